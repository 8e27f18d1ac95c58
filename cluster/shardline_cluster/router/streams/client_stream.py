"""What one client reads of one request, as fast as it wants: the asynchronous side of a `StreamReader`."""

import asyncio
from collections.abc import Callable

from shardline_cluster.queue.records import RequestInfo, SequenceLog
from shardline_cluster.router.streams.open_stream import OpenStream
from shardline_cluster.router.streams.stream_reader import StreamReader, StreamUpdate


class ClientStream:
    """What one client reads: first the logs that it has already, then update after update."""

    def __init__(
        self, stream: OpenStream, reader: StreamReader, *, changed: asyncio.Event, leave: Callable[[], None]
    ) -> None:
        """`changed` is set when the reader may have something; `leave` tells that it reads no more."""
        self._leave = leave
        self._stream = stream
        self._reader = reader
        self._changed = changed

    async def opened(self) -> tuple[RequestInfo, tuple[SequenceLog, ...], tuple[bool, ...]]:
        """Waits until the log is known to continue the cursor; gives the record, the logs up to the cursor, and
        which sequences' finishes the client has.

        Raises:
            ShardlineError: the stream cannot go on from this cursor.
        """
        while not self._reader.verified or self._stream.info is None:
            await self._wait()
        logs = zip(self._stream.logs, self._reader.taken, strict=True)
        before = tuple(SequenceLog(held.ids(0, taken), held.logprobs(0, taken)) for held, taken in logs)
        return self._stream.info, before, tuple(self._reader.closed)

    async def next_update(self) -> StreamUpdate | None:
        """What follows, as soon as there is something and no sooner than the caller asks; None after the end.

        Raises:
            ShardlineError: the stream cannot go on.
        """
        while not self._reader.ended:
            self._changed.clear()
            update = self._stream.take(self._reader)
            if not update.empty:
                return update
            await self._changed.wait()
        return None

    def skip_position(self, position: int) -> None:
        """The client knows this place in the queue already."""
        self._reader.position = position

    def leave(self) -> None:
        """The client reads no more. To be called once, in any case."""
        self._leave()

    async def _wait(self) -> None:
        if self._reader.failure is not None:
            raise self._reader.failure
        await self._changed.wait()
        self._changed.clear()
