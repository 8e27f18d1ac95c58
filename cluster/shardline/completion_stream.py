"""The events of one request as a plain iterator that outlives routers."""

import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import grpc

from shardline.call_failure import STREAM_ENDED, CallFailure
from shardline.completion_builder import CompletionBuilder
from shardline.errors import ShardlineError
from shardline.results import CancelResult, Completion, Event, Tokens
from shardline.stream_attempts import StreamAttempts
from shardline.token_stream import TokenStream


class CompletionStream:
    """A request that is being received. Reading drives it; it reconnects and resumes by itself.

    Closing it, or leaving its `with` block early, does not cancel the request: its `on_disconnect` decides what becomes
    of it, and `resume(stream.request_id, stream.cursor)` goes on. `cancel` ends it.

    One thread reads; `cancel` and `close` may come from any.
    """

    def __init__(
        self,
        core: TokenStream,
        attempts: StreamAttempts,
        *,
        cancel: Callable[[str], CancelResult],
        forget: Callable[[str], None],
    ) -> None:
        self._core = core
        self._attempts = attempts
        self._cancel_request = cancel
        self._forget_request = forget
        self._builder = CompletionBuilder()
        self._closed = threading.Event()
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

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        """The next event; the last one is Finished.

        Raises:
            ShardlineError: the request was not accepted, no router answers, or the stream was closed.
        """
        try:
            event = self._next_event()
        except ShardlineError:
            self._attempts.hang_up()
            raise
        if event is None:
            self.close()
            raise StopIteration
        self._builder.take(event)
        return event

    def text(self) -> Iterator[str]:
        """The pieces of text of the first sequence as they come.

        Raises:
            NotCompletedError: after the last piece, where the request did not end well.
            ShardlineError: as `__next__`.
        """
        for event in self:
            if isinstance(event, Tokens) and event.sequence == 0 and event.text:
                yield event.text
        self._builder.completion()

    def result(self) -> Completion:
        """Reads what is left and returns all that this stream has brought.

        Raises:
            NotCompletedError: the request ended as CANCELLED, EXPIRED or FAILED.
            ShardlineError: as `__next__`.
        """
        for _ in self:
            pass
        return self._builder.completion()

    def cancel(self) -> None:
        """Ends the request; the stream then ends with Finished. Before its acceptance: as soon as it is accepted."""
        self._cancel_wanted = True
        self._catch_up_cancel()

    def close(self) -> None:
        """Stops receiving. A reader that waits is woken with StreamClosedError."""
        self._closed.set()
        self._attempts.hang_up()
        if self._core.to_be_forgotten and not self._forgotten:
            self._forgotten = True
            self._forget_request(self._core.request_id or "")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next_event(self) -> Event | None:
        """The next event, or None at the end."""
        while not self._core.ended:
            self._catch_up_cancel()
            event = self._step()
            if event is not None:
                return event
        return None

    def _catch_up_cancel(self) -> None:
        """Sends a cancel that was asked for, as soon as the request has a name."""
        if self._cancel_wanted and self.request_id is not None:
            self._cancel_wanted = False
            self._cancel_request(self.request_id)

    def _step(self) -> Event | None:
        """Reads one message, or gets over the end of a connection."""
        try:
            message = next(self._open_call(), None)
        except grpc.RpcError as error:
            self._recover(self._attempts.examined(self._attempts.failure(error)))
            return None
        if message is None:
            self._recover(STREAM_ENDED)
            return None
        return self._attempts.received(message)

    def _open_call(self) -> Any:
        self._check_open()
        call = self._attempts.call()
        self._check_open()  # who closed meanwhile may have found no call to end; `__next__` ends it then
        return call

    def _recover(self, failure: CallFailure) -> None:
        self._check_open()
        self._closed.wait(self._attempts.ended(failure))

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise self._core.closed()
