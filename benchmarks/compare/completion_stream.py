"""A stream of an OpenAI-compatible server, over a bare connection: as light as our own client is.

It sends token ids, so that no side tokenises, and books when each event arrived. What an event says is not parsed,
except for the last one, which tells the number of tokens.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence

from benchmarks.compare.stream_figures import StreamTimes

_USAGE = b'"usage":{'
_DATA = b"data: "
_DONE = b"data: [DONE]"
_LINE_LIMIT = 1 << 20  # bytes


class StreamRefusedError(RuntimeError):
    """The server answered with something else than a stream, or ended it early."""


async def stream_completion(endpoint: str, model: str, *, prompt: Sequence[int], num_tokens: int) -> StreamTimes:
    """One request from sending to its end.

    Raises:
        StreamRefusedError: the answer is no stream of `num_tokens` tokens.
    """
    host, _, port = endpoint.rpartition(":")
    body = json.dumps(_request(model, prompt=prompt, num_tokens=num_tokens)).encode()
    reader, writer = await asyncio.open_connection(host, int(port), limit=_LINE_LIMIT)
    try:
        sent_at = time.perf_counter()
        writer.write(_head(endpoint, len(body)) + body)
        await writer.drain()
        await _check_status(reader)
        return await _read_events(reader, sent_at, num_tokens)
    finally:
        writer.close()


def _request(model: str, *, prompt: Sequence[int], num_tokens: int) -> dict[str, object]:
    return {
        "model": model,
        "prompt": list(prompt),
        "max_tokens": num_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def _head(endpoint: str, length: int) -> bytes:
    lines = (
        "POST /v1/completions HTTP/1.1",
        f"Host: {endpoint}",
        "Content-Type: application/json",
        f"Content-Length: {length}",
        "Connection: close",
        "",
        "",
    )
    return "\r\n".join(lines).encode()


async def _check_status(reader: asyncio.StreamReader) -> None:
    status = await reader.readline()
    if b" 200 " not in status:
        raise StreamRefusedError(f"the server answered {status!r} {(await reader.read(2000))!r}")
    while (await reader.readline()).strip():
        pass


async def _read_events(reader: asyncio.StreamReader, sent_at: float, num_tokens: int) -> StreamTimes:
    arrivals: list[float] = []
    told = 0
    async for line, now in _data_lines(reader):
        if _USAGE in line.replace(b" ", b""):
            usage = json.loads(line[len(_DATA) :])
            told = usage["usage"]["completion_tokens"]
            if not usage["choices"]:
                continue
        if not _only_says_the_end(line):
            arrivals.append(now)
    if told != num_tokens or not arrivals:
        raise StreamRefusedError(f"the server told of {told} tokens in {len(arrivals)} events; {num_tokens} were asked")
    each = num_tokens / len(arrivals)  # some events hold two, where a character needs both
    return StreamTimes(sent_at=sent_at, arrivals=tuple((now, each) for now in arrivals), ended_at=time.perf_counter())


def _only_says_the_end(line: bytes) -> bool:
    """llama-server tells the reason of the end in an event without a token of its own."""
    tight = line.replace(b" ", b"")
    return b'"text":""' in tight and b'"finish_reason":null' not in tight


async def _data_lines(reader: asyncio.StreamReader) -> AsyncIterator[tuple[bytes, float]]:
    while line := await reader.readline():
        if line.startswith(_DONE):
            return
        if line.startswith(_DATA):
            yield line, time.perf_counter()
