"""One request's stream over however many connections it takes: the state machine, without any connection.

A shell opens what `next_request` says, hands every message to `receive` and every end of a connection to `failed`, and
waits as long as that answers:

    Generate (with the call's idempotency key, again and again until the router names the request)
       └─ accepted ─▶ Resume from the last cursor, through any router ─▶ … ─▶ finished

Each message must join what came before: its offset is the number of tokens received so far. Anything else is an error
and never reaches the caller, since a wrong text is worse than none.
"""

from dataclasses import dataclass
from typing import TypeVar

from shardline.call_failure import CallFailure
from shardline.decoding import decode_event
from shardline.errors import ServerError, ShardlineError, StreamClosedError, StreamMismatchError
from shardline.patience import Patience
from shardline.results import Accepted, Event, Finished, PromptTokens, Started, Tokens
from shardline_protos import generation_pb2 as pb

E = TypeVar("E", bound=ShardlineError)


@dataclass(slots=True)
class _SequenceProgress:
    offset: int | None  # tokens received; None where a cursor from elsewhere hides how many there were before
    ended: bool = False


class TokenStream:
    """The state of one stream. Not safe to share between threads."""

    def __init__(self, request: pb.GenerateRequest | pb.ResumeRequest, patience: Patience) -> None:
        self._request = request
        self._patience = patience
        resumed = request if isinstance(request, pb.ResumeRequest) else None
        self._request_id = resumed.request_id if resumed else None
        self._cursor = resumed.cursor if resumed else b""
        self._start = None if self._cursor else 0
        self._sequences: dict[int, _SequenceProgress] = {}
        self._prompt = _SequenceProgress(self._start)
        self._accepted = False
        self._attempt = 0  # the latest that the caller knows of
        self._opened = 0.0
        self._ended = False

    @property
    def request_id(self) -> str | None:
        """The request's id, once a router has named it."""
        return self._request_id

    @property
    def cursor(self) -> bytes:
        """What was received so far, for another `Resume`; empty before the first event."""
        return self._cursor

    @property
    def ended(self) -> bool:
        """Whether everything was received."""
        return self._ended

    @property
    def to_be_forgotten(self) -> bool:
        """Whether the caller wants nothing kept (`store=False`) and has now received everything."""
        request = self._request
        return (
            self._ended and isinstance(request, pb.GenerateRequest) and request.HasField("store") and not request.store
        )

    def next_request(self, now: float) -> tuple[pb.GenerateRequest | pb.ResumeRequest, float | None]:
        """What to send to a router now, and the time limit of that call in seconds (None: none).

        Raises:
            DeadlineError: the request's time is over.
        """
        self._opened = now
        try:
            remaining_s = self._patience.remaining_s(now)
        except ShardlineError as error:
            raise self._located(error) from None
        if self._request_id is None:
            return self._request, remaining_s
        return pb.ResumeRequest(request_id=self._request_id, cursor=self._cursor), remaining_s

    def receive(self, message: pb.GenerateEvent, now: float) -> Event | None:
        """Takes a message in; returns what it tells the caller that the caller does not know yet.

        Raises:
            StreamMismatchError: it does not join what came before.
            ServerError: it makes no sense.
        """
        self._patience.connected(now)
        self._check_request(message)
        try:
            event = decode_event(message)
        except ValueError as error:
            raise self._located(ServerError(str(error))) from None
        if isinstance(event, Tokens) and not self._joins(event):
            return None
        if isinstance(event, PromptTokens) and not self._prompt_joins(event):
            return None
        if isinstance(event, Accepted | Started) and not self._is_news(event):
            return None
        if isinstance(event, Finished):
            self._check_end(event)
            self._ended = True
        self._cursor = message.cursor or self._cursor
        return event

    def failed(self, failure: CallFailure, now: float, *, back_off_s: float) -> float:
        """Takes the end of a connection in; returns the seconds to wait before the next.

        A background request's stream ends with its acceptance: then `ended` is set, and there is nothing to wait for.

        Raises:
            ShardlineError: no other try helps, or patience is used up.
        """
        if self._request_id is not None and isinstance(self._request, pb.GenerateRequest) and self._request.background:
            self._ended = True
            return 0.0
        try:
            return self._patience.after(failure, opened=self._opened, now=now, back_off_s=back_off_s)
        except ShardlineError as error:
            raise self._located(error) from None

    def outage_s(self, now: float) -> float:
        """Time without a connection, since the stream came further."""
        return self._patience.outage_s(now)

    def closed(self) -> StreamClosedError:
        """What a reader is told where this side closed the stream before its end was read."""
        return self._located(StreamClosedError("the stream was closed before its end was read"))

    def _check_request(self, message: pb.GenerateEvent) -> None:
        if self._request_id is None and message.request_id:
            self._request_id = message.request_id
            self._patience.progressed()
        if message.request_id != self._request_id:
            raise self._located(
                StreamMismatchError(f"the router sent an event of request {message.request_id!r} into this stream")
            )

    def _is_news(self, event: Accepted | Started) -> bool:
        """Each router tells acceptance and claim anew to whom it begins to stream."""
        if isinstance(event, Accepted):
            known, self._accepted = self._accepted, True
        else:
            known = event.attempt <= self._attempt
            self._attempt = max(self._attempt, event.attempt)
        return not known

    def _joins(self, event: Tokens) -> bool:
        """Whether an event brings something new; the end of a sequence may be told again after a resume."""
        progress = self._sequences.setdefault(event.sequence, _SequenceProgress(self._start))
        if progress.ended and not event.token_ids and event.offset == progress.offset:
            return False
        if progress.ended or progress.offset not in (None, event.offset):
            raise self._located(StreamMismatchError(_mismatch(event, progress)))
        progress.offset = event.offset + len(event.token_ids)
        progress.ended = event.finish_reason is not None
        if event.token_ids:
            self._patience.progressed()
        return True

    def _prompt_joins(self, event: PromptTokens) -> bool:
        """Whether the event brings tokens of the prompt; its end is told by an empty one."""
        if not event.token_ids:
            return False
        if self._prompt.offset not in (None, event.offset):
            raise self._located(
                StreamMismatchError(
                    f"the router sent tokens of the prompt from {event.offset} on, but {self._prompt.offset} are here"
                )
            )
        self._prompt.offset = event.offset + len(event.token_ids)
        self._patience.progressed()
        return True

    def _check_end(self, event: Finished) -> None:
        """An end that counts other tokens than were received would hide a gap at the very end."""
        for end in event.sequences:
            progress = self._sequences.get(end.sequence)
            received = progress.offset if progress else self._start
            if received not in (None, end.num_tokens):
                raise self._located(
                    StreamMismatchError(
                        f"sequence {end.sequence}: the request ended with {end.num_tokens} tokens, "
                        f"but {received} were received"
                    )
                )

    def _located(self, error: E) -> E:
        """The error, with what a caller needs to go on by itself."""
        error.request_id, error.cursor = self._request_id, self._cursor
        return error


def _mismatch(event: Tokens, progress: _SequenceProgress) -> str:
    received = f"{progress.offset} were received" + (" and it had ended" if progress.ended else "")
    return (
        f"sequence {event.sequence}: the router sent {len(event.token_ids)} tokens at offset {event.offset}, "
        f"but {received}"
    )
