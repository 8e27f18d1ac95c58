"""The threads in which a router works on text: templates, tokenizers and long replays would hold up its event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

NUM_TEXT_THREADS = 4  # tokenizers let go of the interpreter lock
NUM_CHAT_THREADS = 16  # they mostly wait for the process of a template


class TextThreads:
    """Two groups, since a template renders one chat at a time and may use up its time limit on each.

    Whoever sends chats that are hard to render holds up other chats, but no plain text, no replay and no tokenizing.
    """

    def __init__(self) -> None:
        self._text = ThreadPoolExecutor(NUM_TEXT_THREADS, thread_name_prefix="router-text")
        self._chats = ThreadPoolExecutor(NUM_CHAT_THREADS, thread_name_prefix="router-chat")

    async def run(self, work: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        """Runs what waits for no template; raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._text, lambda: work(*arguments, **named))

    async def run_chat(self, work: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        """Runs what renders a chat; raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._chats, lambda: work(*arguments, **named))

    def close(self) -> None:
        """Begins nothing any more, and waits for nothing."""
        for pool in (self._text, self._chats):
            pool.shutdown(wait=False, cancel_futures=True)
