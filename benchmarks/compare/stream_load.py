"""The load on one server: so many streams at once, from one process with one event loop.

Ours is reached through the client that users have, over gRPC; the others over HTTP with server-sent events.
"""

import asyncio
import random
import time
from collections.abc import Sequence

from benchmarks.compare.completion_stream import stream_completion
from benchmarks.compare.points import OURS, PROMPT_TOKENS, SERVER_OUTPUT_TOKENS
from benchmarks.compare.servers import SERVED_NAME, RunningServer
from benchmarks.compare.stream_figures import StreamTimes, mean_figures, stream_figures
from shardline import AsyncClient, Tokens

_TOKEN_IDS = range(1000, 49152)  # ordinary ones of SmolLM2: no side's prefix cache ever meets such a prompt again
_WARM_UP_TOKENS = 8


class StreamLoad:
    """Sends requests to one server. Used within the event loop that `measure` runs in."""

    def __init__(self, server: RunningServer, rng: random.Random) -> None:
        self._server = server
        self._rng = rng
        self._client: AsyncClient | None = None

    async def __aenter__(self) -> "StreamLoad":
        if self._server.plan.contender == OURS:
            self._client = AsyncClient(self._server.endpoint)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.close()

    async def measure(self, size: int, *, laps: int) -> dict[str, float]:
        """`size` streams at once, `laps` times after each other; `client_cpu_share` is of one core."""
        await self._send(_WARM_UP_TOKENS, _WARM_UP_TOKENS)
        began, cpu_began = time.perf_counter(), time.process_time()
        groups = [stream_figures(await self.streams(size)) for _ in range(laps)]
        share = (time.process_time() - cpu_began) / (time.perf_counter() - began)
        return {**mean_figures(groups), "client_cpu_share": share}

    async def streams(
        self, size: int, *, prompt_tokens: int = PROMPT_TOKENS, output_tokens: int = SERVER_OUTPUT_TOKENS
    ) -> Sequence[StreamTimes]:
        """So many at once."""
        return await asyncio.gather(*(self._send(prompt_tokens, output_tokens) for _ in range(size)))

    async def _send(self, prompt_tokens: int, output_tokens: int) -> StreamTimes:
        prompt = self._rng.choices(_TOKEN_IDS, k=prompt_tokens)
        if self._client is None:
            return await stream_completion(self._server.endpoint, SERVED_NAME, prompt=prompt, num_tokens=output_tokens)
        return await _stream_ours(self._client, prompt, output_tokens)


async def _stream_ours(client: AsyncClient, prompt: Sequence[int], num_tokens: int) -> StreamTimes:
    sent_at = time.perf_counter()
    stream = client.stream(prompt, model=SERVED_NAME, max_tokens=num_tokens, ignore_eos=True, temperature=0.0)
    async with stream:
        arrivals = [
            (time.perf_counter(), float(len(event.token_ids)))
            async for event in stream
            if isinstance(event, Tokens) and event.token_ids
        ]
    return StreamTimes(sent_at=sent_at, arrivals=tuple(arrivals), ended_at=time.perf_counter())


def load_once(server: RunningServer, rng: random.Random, *, size: int, laps: int) -> dict[str, float]:
    """`StreamLoad.measure` in an event loop of its own."""

    async def run() -> dict[str, float]:
        async with StreamLoad(server, rng) as load:
            return await load.measure(size, laps=laps)

    return asyncio.run(run())


def fill(server: RunningServer, rng: random.Random, *, size: int, prompt_tokens: int, output_tokens: int) -> None:
    """Lets a server's KV cache be written, without measuring."""

    async def run() -> None:
        async with StreamLoad(server, rng) as load:
            await load.streams(size, prompt_tokens=prompt_tokens, output_tokens=output_tokens)

    asyncio.run(run())
