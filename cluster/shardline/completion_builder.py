"""Collects the events of one stream into a completion."""

from dataclasses import dataclass, field

from shardline.errors import NotCompletedError, RequestCancelledError, RequestExpiredError, RequestFailedError
from shardline.results import (
    Accepted,
    Completion,
    Event,
    Finished,
    PromptTokens,
    RequestState,
    SequenceEnd,
    SequenceOutput,
    TokenLogprobs,
    Tokens,
)

_ERRORS: dict[RequestState, tuple[type[NotCompletedError], str]] = {
    RequestState.CANCELLED: (RequestCancelledError, "was cancelled"),
    RequestState.EXPIRED: (RequestExpiredError, "expired"),
    RequestState.FAILED: (RequestFailedError, "failed"),
}


@dataclass(slots=True)
class _SequenceParts:
    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)

    def output(self, sequence: int, end: SequenceEnd | None) -> SequenceOutput:
        return SequenceOutput(
            sequence=sequence,
            text="".join(self.texts),
            token_ids=tuple(self.token_ids),
            finish_reason=end.finish_reason if end else None,
            stop=end.stop if end else "",
            logprobs=tuple(self.logprobs),
        )


class CompletionBuilder:
    """What one stream has brought so far."""

    def __init__(self) -> None:
        self._parts: dict[int, _SequenceParts] = {}
        self._model = ""
        self._finished: Finished | None = None
        self._prompt: list[PromptTokens] = []

    def take(self, event: Event) -> None:
        """Adds an event; they come in the order of the stream."""
        match event:
            case Accepted():
                self._model = event.model
            case Tokens():
                self._take_tokens(event)
            case PromptTokens():
                self._prompt.append(event)
            case Finished():
                self._finished = event

    def _take_tokens(self, event: Tokens) -> None:
        parts = self._parts.setdefault(event.sequence, _SequenceParts())
        parts.texts.append(event.text)
        parts.token_ids.extend(event.token_ids)
        parts.logprobs.extend(event.logprobs)

    def completion(self) -> Completion:
        """The request's result.

        Raises:
            NotCompletedError: it ended as CANCELLED, EXPIRED or FAILED; the error holds what there is of it.
        """
        finished = self._finished
        assert finished is not None, "a completion is asked for after the request's end was received"
        completion = self._build(finished)
        if finished.state in _ERRORS:
            kind, verb = _ERRORS[finished.state]
            reason = f": {finished.error}" if finished.error else ""
            raise kind(f"request {finished.request_id} {verb}{reason}", completion=completion)
        return completion

    def _build(self, finished: Finished) -> Completion:
        ends = {end.sequence: end for end in finished.sequences}
        return Completion(
            request_id=finished.request_id,
            model=self._model,
            state=finished.state,
            outputs=tuple(
                self._parts.get(sequence, _SequenceParts()).output(sequence, ends.get(sequence))
                for sequence in sorted(self._parts.keys() | ends.keys())
            ),
            usage=finished.usage,
            error=finished.error,
            prompt_token_ids=tuple(token_id for part in self._prompt for token_id in part.token_ids),
            prompt_logprobs=tuple(logprobs for part in self._prompt for logprobs in part.logprobs),
        )
