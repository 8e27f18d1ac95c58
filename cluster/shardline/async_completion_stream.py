"""The events of one request as an asynchronous iterator that outlives routers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import grpc.aio

from shardline.call_failure import STREAM_ENDED, CallFailure
from shardline.completion_builder import CompletionBuilder
from shardline.errors import ShardlineError
from shardline.results import CancelResult, Completion, Event, Tokens
from shardline.stream_attempts import StreamAttempts
from shardline.token_stream import TokenStream


class AsyncCompletionStream:
    """A request that is being received. Reading drives it; it reconnects and resumes by itself.

    Closing it, or leaving its `with` block early, does not cancel the request: its `on_disconnect` decides what becomes
    of it, and `resume(stream.request_id, stream.cursor)` goes on. `cancel` ends it.

    One task reads; others of the same loop may cancel and close. A reader that is cancelled itself loses nothing: the
    next read resumes.
    """

    def __init__(
        self,
        core: TokenStream,
        attempts: StreamAttempts,
        *,
        cancel: Callable[[str], Awaitable[CancelResult]],
        forget: Callable[[str], Awaitable[None]],
    ) -> None:
        self._core = core
        self._attempts = attempts
        self._cancel_request = cancel
        self._forget_request = forget
        self._builder = CompletionBuilder()
        self._closed = asyncio.Event()
        self._cancel_wanted = False
        self._forgotten = False

    @property
    def request_id(self) -> str | None:
        """The request's id, once it is accepted."""
        return self._core.request_id

    @property
    def cursor(self) -> bytes:
        """Shows what was received so far: `client.resume(request_id, cursor)` goes on from there."""
        return self._core.cursor

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        """The next event; the last one is Finished.

        Raises:
            ShardlineError: the request was not accepted, no router answers, or the stream was closed.
        """
        try:
            event = await self._next_event()
        except ShardlineError:
            self._attempts.hang_up()
            raise
        if event is None:
            await self.close()
            raise StopAsyncIteration
        self._builder.take(event)
        return event

    async def text(self) -> AsyncIterator[str]:
        """The pieces of text of the first sequence as they come.

        Raises:
            NotCompletedError: after the last piece, where the request did not end well.
            ShardlineError: as `__anext__`.
        """
        async for event in self:
            if isinstance(event, Tokens) and event.sequence == 0 and event.text:
                yield event.text
        self._builder.completion()

    async def result(self) -> Completion:
        """Reads what is left and returns all that this stream has brought.

        Raises:
            NotCompletedError: the request ended as CANCELLED, EXPIRED or FAILED.
            ShardlineError: as `__anext__`.
        """
        async for _ in self:
            pass
        return self._builder.completion()

    async def cancel(self) -> None:
        """Ends the request; the stream then ends with Finished. Before its acceptance: as soon as it is accepted."""
        self._cancel_wanted = True
        await self._catch_up_cancel()

    async def close(self) -> None:
        """Stops receiving. A reader that waits is woken with StreamClosedError."""
        self._closed.set()
        self._attempts.hang_up()
        if self._core.to_be_forgotten and not self._forgotten:
            self._forgotten = True
            await self._forget_request(self._core.request_id or "")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _next_event(self) -> Event | None:
        """The next event, or None at the end."""
        while not self._core.ended:
            await self._catch_up_cancel()
            event = await self._step()
            if event is not None:
                return event
        return None

    async def _catch_up_cancel(self) -> None:
        """Sends a cancel that was asked for, as soon as the request has a name."""
        if self._cancel_wanted and self.request_id is not None:
            self._cancel_wanted = False
            await self._cancel_request(self.request_id)

    async def _step(self) -> Event | None:
        """Reads one message, or gets over the end of a connection. Nothing that was read is lost by a cancellation."""
        try:
            message = await self._open_call().read()
        except grpc.aio.AioRpcError as error:
            await self._recover(self._attempts.failure(error))
            return None
        except asyncio.CancelledError:
            # Of this task, or of the call by `close`, which the reader is to hear as such.
            self._attempts.hang_up()
            if not _is_being_cancelled():
                self._check_open()
            raise
        if message is grpc.aio.EOF:
            await self._recover(STREAM_ENDED)
            return None
        return self._attempts.received(message)

    def _open_call(self) -> Any:
        self._check_open()
        return self._attempts.call()

    async def _recover(self, failure: CallFailure) -> None:
        if failure.hung_up:
            failure = await asyncio.to_thread(self._attempts.examined, failure)
        self._check_open()
        delay_s = self._attempts.ended(failure)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), delay_s)

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise self._core.closed()


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
