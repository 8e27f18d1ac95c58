"""The ranks' answers as bytes and back: see steps.proto."""

from itertools import islice

from google.protobuf.message import DecodeError

from shardline_protos import steps_pb2
from shardline_workers.engine import ExpertLoads, TokenLogprobs
from shardline_workers.gang.step_frames import Answer, FrameError, ProbedAnswer, SampledAnswer
from shardline_workers.scheduling.step_plan import SampledToken


def encode_answer(answer: Answer) -> bytes:
    """Any of the answers."""
    message = steps_pb2.Answer()
    if isinstance(answer, SampledAnswer):
        _write_sampled(answer, message.sampled)
    else:
        message.probed.number = answer.number
        if answer.nonsense is not None:
            message.probed.nonsense = answer.nonsense
    return message.SerializeToString()


def decode_answer(data: bytes) -> Answer:
    """What a rank says.

    Raises:
        FrameError: these bytes are no answer.
    """
    try:
        message = steps_pb2.Answer.FromString(data)
    except DecodeError as error:
        raise FrameError(f"{len(data)} bytes are no answer of a rank: {error}") from error
    kind = message.WhichOneof("kind")
    if kind == "sampled":
        return _read_sampled(message.sampled)
    if kind == "probed":
        return _read_probed(message.probed)
    raise FrameError(f"an answer of {len(data)} bytes says neither sampled nor probed")


def _write_sampled(answer: SampledAnswer, to: steps_pb2.Sampled) -> None:
    to.number, to.busy_s = answer.number, answer.busy_s
    to.token_ids.extend([token.token_id for token in answer.sampled])
    if answer.expert_loads is not None:
        to.expert_tokens.extend(answer.expert_loads.by_expert)
        to.part_tokens.extend(answer.expert_loads.by_part)
    for row, token in enumerate(answer.sampled):
        if token.logprobs is not None:
            to.logprob_rows.append(row)
            to.chosen.append(token.logprobs.chosen)
            to.num_top.append(len(token.logprobs.top_ids))
            to.top_ids.extend(token.logprobs.top_ids)
            to.top.extend(token.logprobs.top)
        if token.error is not None:
            to.error_rows.append(row)
            to.errors.append(token.error)


def _read_sampled(sampled: steps_pb2.Sampled) -> SampledAnswer:
    if sampled.logprob_rows or sampled.error_rows:
        tokens = _read_told(sampled)
    else:
        tokens = [SampledToken(token_id=token_id) for token_id in sampled.token_ids]
    loads = ExpertLoads(tuple(sampled.expert_tokens), tuple(sampled.part_tokens)) if sampled.expert_tokens else None
    return SampledAnswer(number=sampled.number, sampled=tokens, busy_s=sampled.busy_s, expert_loads=loads)


def _read_told(sampled: steps_pb2.Sampled) -> list[SampledToken]:
    top_ids, top = iter(sampled.top_ids), iter(sampled.top)
    columns = (sampled.logprob_rows, sampled.chosen, sampled.num_top)
    if len({len(column) for column in columns}) != 1 or len(sampled.error_rows) != len(sampled.errors):
        raise FrameError(f"the columns of step {sampled.number}'s answer have different lengths")
    logprobs = {
        row: TokenLogprobs(chosen, tuple(islice(top_ids, count)), tuple(islice(top, count)))
        for row, chosen, count in zip(*columns, strict=True)
    }
    errors = dict(zip(sampled.error_rows, sampled.errors, strict=True))
    return [
        SampledToken(token_id=token_id, logprobs=logprobs.get(row), error=errors.get(row))
        for row, token_id in enumerate(sampled.token_ids)
    ]


def _read_probed(probed: steps_pb2.Probed) -> ProbedAnswer:
    nonsense = probed.nonsense if probed.HasField("nonsense") else None
    return ProbedAnswer(number=probed.number, nonsense=nonsense)
