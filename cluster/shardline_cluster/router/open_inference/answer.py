"""The events of a request as answers of the Open Inference Protocol: one for each piece of text, or one for all."""

import json
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field

from shardline_cluster.errors import (
    AnswerTooLargeError,
    RequestCancelledError,
    RequestExpiredError,
    RequestFailedError,
    ShardlineError,
)
from shardline_cluster.router.open_inference.request import VERSION, AnswerForm
from shardline_cluster.router.open_inference.signature import (
    CUMULATIVE_LOGPROB,
    FINISH_REASON,
    LOGPROBS,
    NUM_INPUT_TOKENS,
    NUM_OUTPUT_TOKENS,
    TEXT_OUTPUT,
    TensorSpec,
)
from shardline_cluster.router.open_inference.tensors import Values, add_output
from shardline_protos import generation_pb2 as generation
from shardline_protos import open_inference_pb2 as pb

# Beyond it gRPC would not send the message, and end the whole stream for it: a router's limit is 16 MiB.
MAX_ANSWER_BYTES = 15 << 20

# As vLLM calls them, and Python the absence of one.
_REASONS = {generation.FINISH_REASON_STOP: "stop", generation.FINISH_REASON_LENGTH: "length"}
_UNFINISHED = "None"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; `final`: none follows."""

    response: pb.ModelInferResponse
    final: bool


async def answers(
    events: AsyncGenerator[generation.GenerateEvent, None], form: AnswerForm, token_text: Callable[[int], str]
) -> AsyncGenerator[Answer, None]:
    """Each answer as soon as it can be told; the last one is final. `token_text` shows a token in log-probabilities.

    Raises:
        ShardlineError: the request was not accepted, did not end by itself, or its answer is too large.
    """
    writer: AnswerWriter | None = None
    async with aclosing(events) as open_events:
        async for event in open_events:
            kind = event.WhichOneof("event")
            if kind == "accepted":
                writer = AnswerWriter(form, event.accepted, token_text)
                continue
            assert writer is not None, "a request is accepted before anything else is told of it"
            if kind == "tokens":
                writer.feed(event.tokens)
                if writer.can_tell:
                    yield writer.take(final=False)
            if kind == "finished":
                for answer in writer.last(event.finished):
                    yield answer


@dataclass(slots=True)
class _SequenceOutput:
    """What one sequence has said since the last answer; sum and finish are those of all it has said."""

    texts: list[str] = field(default_factory=list)
    num_tokens: int = 0
    logprobs: list[str] = field(default_factory=list)  # JSON, one object for each token
    cumulative_logprob: float = 0.0
    finish: str = _UNFINISHED

    def clear(self) -> None:
        self.texts, self.num_tokens, self.logprobs = [], 0, []


class AnswerWriter:
    """Gathers what the sequences of one request say, and writes it down when it is time."""

    def __init__(self, form: AnswerForm, accepted: generation.Accepted, token_text: Callable[[int], str]) -> None:
        self._form = form
        self._model = accepted.model
        self._num_input_tokens = accepted.prompt_tokens
        self._token_text = token_text
        self._sequences = [_SequenceOutput() for _ in range(form.num_sequences)]
        self._num_bytes = 0  # that the next answer would have
        self._news = False  # a text or a finish that was not told
        self._told = False  # there was an answer

    @property
    def can_tell(self) -> bool:
        """Whether there is an answer to give before the end. The last one waits for it, if it must tell the end."""
        ended = all(output.finish != _UNFINISHED for output in self._sequences)
        return self._form.streams and self._news and (self._form.empty_final or not ended)

    def feed(self, tokens: generation.Tokens) -> None:
        """New tokens of one sequence.

        Raises:
            AnswerTooLargeError: no message holds all of it.
        """
        output = self._sequences[tokens.sequence]
        output.texts.append(tokens.text)
        output.num_tokens += len(tokens.token_ids)
        output.finish = _REASONS.get(tokens.finish_reason, output.finish)
        output.cumulative_logprob += sum(record.logprob for record in tokens.logprobs)
        self._num_bytes += len(tokens.text.encode())
        if LOGPROBS in self._form.outputs:
            self._feed_logprobs(output, tokens)
        self._news |= bool(tokens.text) or tokens.finish_reason in _REASONS
        if self._num_bytes > MAX_ANSWER_BYTES:
            raise AnswerTooLargeError(
                f"the answer has more than {MAX_ANSWER_BYTES} bytes, which no message holds: ask for fewer max_tokens, "
                "sequences or logprobs, or set stream = true in ModelStreamInfer"
            )

    def take(self, *, final: bool) -> Answer:
        """Everything that was not told yet."""
        response = self._empty()
        for spec in self._form.outputs:
            add_output(response, spec, self._values(spec))
        for output in self._sequences:
            output.clear()
        self._num_bytes, self._news, self._told = 0, False, True
        return Answer(response, final)

    def last(self, finished: generation.Finished) -> Iterator[Answer]:
        """The answers that the request's end makes.

        Raises:
            ShardlineError: it did not end by itself.
        """
        ended_well = finished.state == generation.REQUEST_STATE_DONE
        if ended_well and not self._form.empty_final:
            yield self.take(final=True)
            return
        if (self._news and (ended_well or self._form.streams)) or (ended_well and not self._told):
            yield self.take(final=False)
        if not ended_well:
            raise _ended_badly(finished)
        yield Answer(self._empty(), final=True)

    def _empty(self) -> pb.ModelInferResponse:
        return pb.ModelInferResponse(model_name=self._model, model_version=VERSION, id=self._form.request_id)

    def _values(self, spec: TensorSpec) -> Values:
        sequences = self._sequences
        if spec is TEXT_OUTPUT:
            return ["".join(output.texts) for output in sequences]
        if spec is FINISH_REASON:
            return [output.finish for output in sequences]
        if spec is CUMULATIVE_LOGPROB:
            return [output.cumulative_logprob for output in sequences]
        if spec is LOGPROBS:
            return [f"[{', '.join(output.logprobs)}]" for output in sequences]
        if spec is NUM_OUTPUT_TOKENS:
            return [output.num_tokens for output in sequences]
        assert spec is NUM_INPUT_TOKENS, f"{spec.name} is an output without values"
        return [self._num_input_tokens]

    def _feed_logprobs(self, output: _SequenceOutput, tokens: generation.Tokens) -> None:
        for token_id, record in zip(tokens.token_ids, tokens.logprobs, strict=True):
            position = self._position(token_id, record)
            output.logprobs.append(position)
            self._num_bytes += len(position)

    def _position(self, token_id: int, record: generation.TokenLogprobs) -> str:
        """The chosen token, then the likeliest, by id; a rank that is not known is null. ASCII, as JSON escapes it."""
        ranks = {top.token_id: rank for rank, top in enumerate(record.top, start=1)}
        told = {token_id: record.logprob} | {top.token_id: top.logprob for top in record.top}
        return json.dumps(
            {
                id_: {"logprob": logprob, "rank": ranks.get(id_), "decoded_token": self._token_text(id_)}
                for id_, logprob in told.items()
            }
        )


def _ended_badly(finished: generation.Finished) -> ShardlineError:
    if finished.state == generation.REQUEST_STATE_CANCELLED:
        return RequestCancelledError("the request was cancelled before its end")
    if finished.state == generation.REQUEST_STATE_EXPIRED:
        return RequestExpiredError(finished.error or "the request ran out of time")
    return RequestFailedError(finished.error or "the request failed")
