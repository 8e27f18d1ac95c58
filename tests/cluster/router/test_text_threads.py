"""Where text is worked on."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from shardline_cluster.router.text_threads import NUM_CHAT_THREADS, TextThreads


@pytest.fixture
def threads() -> Iterator[TextThreads]:
    threads = TextThreads()
    yield threads
    threads.close()


async def test_chats_that_hang_hold_up_no_plain_text(threads: TextThreads) -> None:
    may_end = threading.Event()
    hanging = [asyncio.create_task(threads.run_chat(may_end.wait, 30)) for _ in range(2 * NUM_CHAT_THREADS)]
    await asyncio.sleep(0)

    async with asyncio.timeout(20):
        assert await threads.run(str.upper, "plain") == "PLAIN"

    assert not any(task.done() for task in hanging)
    may_end.set()
    assert all(await asyncio.gather(*hanging))


async def test_what_the_work_raises_is_raised(threads: TextThreads) -> None:
    with pytest.raises(ZeroDivisionError):
        await threads.run(divmod, 1, 0)
    with pytest.raises(ZeroDivisionError):
        await threads.run_chat(divmod, 1, 0)
