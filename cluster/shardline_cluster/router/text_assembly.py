"""Tokens to the events that a client sees: text, log-probabilities, finishes, and a cursor after each.

The text that was delivered at a cursor is a pure function of the first tokens that the cursor covers and of the
request, so a stream goes on through any router: `replay` feeds what the client has and drops its text. Text that is
held back, the beginning of a character or of a stop string, is told with the finish, and the cursor says that it was.
"""

from collections.abc import Iterator, Sequence

from shardline_cluster.queue.cursor import Cursor, advance, encode_cursor
from shardline_cluster.queue.log_encoding import unpack_ids, unpack_logprobs
from shardline_cluster.queue.records import RequestEnd, RequestState, SequenceFinish, SequenceLog
from shardline_cluster.router.streams.stream_reader import SequenceUpdate
from shardline_protos import generation_pb2 as pb
from shardline_protos.record_pb2 import RequestPayload
from shardline_workers.engine import FinishReason
from shardline_workers.text.output_text import OutputText
from shardline_workers.text.text_model import TextModel

REASONS = {
    FinishReason.STOP.value: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH.value: pb.FINISH_REASON_LENGTH,
}
STATES = {
    RequestState.WAITING: pb.REQUEST_STATE_WAITING,
    RequestState.RUNNING: pb.REQUEST_STATE_RUNNING,
    RequestState.DONE: pb.REQUEST_STATE_DONE,
    RequestState.CANCELLED: pb.REQUEST_STATE_CANCELLED,
    RequestState.EXPIRED: pb.REQUEST_STATE_EXPIRED,
    RequestState.FAILED: pb.REQUEST_STATE_FAILED,
}
_REASONS_OF_ENDS = {
    RequestState.CANCELLED: pb.FINISH_REASON_CANCELLED,
    RequestState.EXPIRED: pb.FINISH_REASON_EXPIRED,
    RequestState.FAILED: pb.FINISH_REASON_FAILED,
}


class SequenceText:
    """The text of one sequence as its tokens come. A token that ends the sequence has no text of its own.

    `echoed`, the prompt's text, comes with the first tokens, or with the end where there are none.
    """

    def __init__(self, model: TextModel, sampling: pb.SamplingParams, *, echoed: str = "") -> None:
        self._echoed = echoed
        ends = set(sampling.stop_token_ids) | (set() if sampling.ignore_eos else model.eos_ids)
        self._text = OutputText(
            model.tokenizer,
            stops=tuple(sampling.stop),
            include_stop=sampling.include_stop_in_output,
            skip_special=sampling.skip_special_tokens,
            min_tokens=sampling.min_tokens,
            silent_ids=frozenset() if sampling.include_stop_in_output else frozenset(ends),
        )
        self._num_characters = 0

    def feed(self, ids: Sequence[int]) -> str:
        """The text that these tokens make safe to show."""
        text = self._counted(self._text.feed(ids).text)
        return self._take_echoed() + text if ids else text

    def close(self, text_end: int | None = None) -> str:
        """What was held back, when the sequence ends; `text_end` characters of its whole text count, None: all."""
        rest = self._text.finish()
        return self._take_echoed() + self._counted(
            rest if text_end is None else rest[: max(0, text_end - self._num_characters)]
        )

    def _take_echoed(self) -> str:
        text, self._echoed = self._echoed, ""
        return text

    def _counted(self, text: str) -> str:
        self._num_characters += len(text)
        return text


class TextAssembly:
    """All sequences of one request for one client."""

    def __init__(self, model: TextModel, payload: RequestPayload, *, num_logprobs: int | None) -> None:
        sampling = payload.sampling
        self._texts = [SequenceText(model, sampling, echoed=payload.prompt_text) for _ in range(sampling.n)]
        self._num_logprobs = num_logprobs
        self._tells_logprobs = sampling.HasField("logprobs")
        self._cursor = Cursor.start(sampling.n + sampling.HasField("prompt_logprobs"))

    @property
    def cursor(self) -> bytes:
        """After everything that was assembled so far, as a client sees it."""
        return encode_cursor(self._cursor)

    def replay(self, logs: Sequence[SequenceLog], closed: Sequence[bool]) -> tuple[str, ...]:
        """Feeds what the client has already; returns its texts. May take a while on long logs."""
        texts = []
        for sequence, (log, is_closed) in enumerate(zip(logs, closed, strict=True)):
            self._cursor = advance(self._cursor, sequence, log.ids, closed=is_closed)
            if self.is_prompt(sequence):
                continue
            text = self._texts[sequence].feed(unpack_ids(log.ids))
            text_end = log.finish.text_end if log.finish else None
            texts.append(text + (self._texts[sequence].close(text_end) if is_closed else ""))
        return tuple(texts)

    @property
    def num_outputs(self) -> int:
        """Sequences of output."""
        return len(self._texts)

    def is_prompt(self, sequence: int) -> bool:
        """Whether this is the log of the prompt's own tokens, behind those of the output."""
        return sequence >= len(self._texts)

    def prompt(self, update: SequenceUpdate) -> pb.Prompt:
        """Tokens of the prompt."""
        self._cursor = advance(self._cursor, update.sequence, update.ids, closed=update.finish is not None)
        return self.prompt_of(update.ids, update.logprobs, offset=update.offset)

    def prompt_of(self, ids: bytes, logprobs: bytes, *, offset: int = 0) -> pb.Prompt:
        """The same of a packed log."""
        token_ids = unpack_ids(ids)
        return pb.Prompt(offset=offset, token_ids=token_ids, logprobs=self._logprobs(logprobs)[: len(token_ids)])

    def tokens(self, update: SequenceUpdate) -> pb.Tokens:
        """New tokens of one sequence, with its finish where they are the last."""
        text = self._texts[update.sequence].feed(unpack_ids(update.ids))
        if update.finish is not None:
            text += self._texts[update.sequence].close(update.finish.text_end)
        self._cursor = advance(self._cursor, update.sequence, update.ids, closed=update.finish is not None)
        return pb.Tokens(
            sequence=update.sequence,
            offset=update.offset,
            token_ids=unpack_ids(update.ids),
            text=text,
            logprobs=self._logprobs(update.logprobs) if self._tells_logprobs else [],
            finish_reason=_reason(update.finish),
        )

    def rest(self) -> Iterator[pb.Tokens]:
        """At the end: what is still held back of sequences that did not end by themselves."""
        for sequence, place in enumerate(self._cursor.sequences):
            if place.closed or self.is_prompt(sequence):
                continue
            text = self._texts[sequence].close()
            self._cursor = advance(self._cursor, sequence, b"", closed=True)
            if text:
                yield pb.Tokens(sequence=sequence, offset=place.offset, text=text)

    def _logprobs(self, packed: bytes) -> list[pb.TokenLogprobs]:
        if self._num_logprobs is None:
            return []
        return [
            pb.TokenLogprobs(
                logprob=position.chosen,
                top=[
                    pb.TopLogprob(token_id=i, logprob=value)
                    for i, value in zip(position.top_ids, position.top, strict=True)
                ],
            )
            for position in unpack_logprobs(packed, self._num_logprobs)
        ]


def finished(end: RequestEnd, *, num_outputs: int, prompt_tokens: int) -> pb.Finished:
    """A request's end as a client sees it; what lies behind its outputs is the prompt's."""
    offsets, finishes = end.offsets[:num_outputs], end.finishes[:num_outputs]
    results = [
        pb.SequenceResult(
            sequence=sequence,
            finish_reason=_reason(finish) or _REASONS_OF_ENDS.get(end.state, pb.FINISH_REASON_UNSPECIFIED),
            num_tokens=offset,
            stop=finish.stop if finish else "",
        )
        for sequence, (offset, finish) in enumerate(zip(offsets, finishes, strict=True))
    ]
    usage = pb.Usage(prompt_tokens=prompt_tokens, completion_tokens=sum(offsets))
    return pb.Finished(state=STATES[end.state], sequences=results, usage=usage, error=end.error)


def _reason(finish: SequenceFinish | None) -> pb.FinishReason:
    return REASONS[finish.reason] if finish else pb.FINISH_REASON_UNSPECIFIED
