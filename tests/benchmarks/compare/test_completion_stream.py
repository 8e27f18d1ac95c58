"""The light client against a scripted server of server-sent events."""

import asyncio
import json
from collections.abc import Sequence

import pytest

from benchmarks.compare.completion_stream import StreamRefusedError, stream_completion
from benchmarks.compare.stream_figures import StreamTimes


def event(text: str, *, finish: str | None = None) -> str:
    return "data: " + json.dumps({"choices": [{"text": text, "finish_reason": finish}]}, separators=(",", ":"))


def usage(num_tokens: int) -> str:
    return "data: " + json.dumps({"choices": [], "usage": {"completion_tokens": num_tokens}})


def exchange(
    lines: Sequence[str], *, status: str = "200 OK", num_tokens: int = 2
) -> tuple[StreamTimes, dict[str, object]]:
    """What the client made of the answer, and what it had asked."""

    async def run() -> tuple[StreamTimes, dict[str, object]]:
        asked: dict[str, object] = {}

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(int(line.split(":")[1]) for line in head.splitlines() if line.startswith("Content-Length"))
            asked.update(json.loads(await reader.readexactly(length)))
            writer.write(f"HTTP/1.1 {status}\r\nContent-Type: text/event-stream\r\n\r\n".encode())
            writer.write("".join(f"{line}\n\n" for line in lines).encode())
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            host, port = server.sockets[0].getsockname()[:2]
            times = await stream_completion(f"{host}:{port}", "m", prompt=[5, 6], num_tokens=num_tokens)
        return times, asked

    return asyncio.run(run())


def test_every_event_is_a_token_and_the_end_is_none() -> None:
    times, asked = exchange([event("a"), event("b"), event("", finish="length"), usage(2), "data: [DONE]"])

    assert [count for _, count in times.arrivals] == [1.0, 1.0]
    assert times.sent_at <= times.arrivals[0][0] <= times.arrivals[1][0] <= times.ended_at
    assert asked["prompt"] == [5, 6]
    assert (asked["max_tokens"], asked["ignore_eos"], asked["stream"]) == (2, True, True)


def test_a_last_event_with_text_is_a_token() -> None:
    times, _ = exchange([event("a"), event("b", finish="length"), usage(2), "data: [DONE]"])

    assert len(times.arrivals) == 2


def test_tokens_that_share_an_event_are_not_lost() -> None:
    times, _ = exchange([event("a"), event("bc"), usage(3), "data: [DONE]"], num_tokens=3)

    assert times.num_tokens == 3


@pytest.mark.parametrize(
    ("lines", "status", "message"),
    [
        ([event("a"), usage(1), "data: [DONE]"], "200 OK", "told of 1 tokens in 1 events; 2 were asked"),
        ([], "200 OK", "told of 0 tokens"),
        (["no such model"], "404 Not Found", "404 Not Found"),
    ],
)
def test_what_is_no_whole_stream_is_refused(lines: list[str], status: str, message: str) -> None:
    with pytest.raises(StreamRefusedError, match=message):
        exchange(lines, status=status)
