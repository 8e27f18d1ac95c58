"""A payload becomes what engine and leader need, or a clear error."""

import dataclasses

import pytest

from shardline_cluster.replica.held_request import HeldRequest
from shardline_cluster.replica.request_plan import UnreadablePayloadError, read_plan
from shardline_protos.generation_pb2 import TokenIds
from shardline_protos.record_pb2 import RequestPayload
from shardline_workers.engine import Sampling
from tests.cluster.replica.queue_replies import granted


def _held(payload: bytes, *, num_logprobs: int | None = None) -> HeldRequest:
    request = granted("a", num_logprobs=num_logprobs)
    submission = dataclasses.replace(request.info.submission, payload=payload)
    info = dataclasses.replace(request.info, submission=submission)
    return HeldRequest.of(dataclasses.replace(request, info=info), seen="server-1")


def test_every_sampling_field_arrives() -> None:
    payload = RequestPayload(prompt_ids=[1, 2])
    sampling = payload.sampling
    sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p = 0.5, 4, 0.75, 0.25
    sampling.seed, sampling.max_tokens = 2**63 + 1, 8
    sampling.stop_token_ids.extend([7])
    sampling.stop.extend(["x", "y"])
    sampling.include_stop_in_output, sampling.skip_special_tokens = True, False
    sampling.logprobs, sampling.min_tokens = 3, 5
    sampling.repetition_penalty, sampling.frequency_penalty, sampling.presence_penalty = 1.25, -0.5, 1.5
    sampling.logit_bias.update({30: 0.5, 4: -2.0})
    payload.bad_words.add(ids=[11, 12])
    payload.bad_words.add(ids=[13])

    plan = read_plan(_held(payload.SerializeToString(), num_logprobs=3), {9})

    assert plan.prompt_ids == (1, 2)
    assert (plan.stops, plan.include_stop, plan.skip_special) == (("x", "y"), True, False)
    assert plan.sampling == Sampling(
        temperature=0.5,
        top_k=4,
        top_p=0.75,
        min_p=0.25,
        seed=2**63 + 1,
        max_tokens=8,
        stop_token_ids=frozenset({7, 9}),
        num_logprobs=3,
        min_tokens=5,
        repetition_penalty=1.25,
        frequency_penalty=-0.5,
        presence_penalty=1.5,
        logit_bias=((4, -2.0), (30, 0.5)),
        bad_words=((11, 12), (13,)),
    )


def test_end_of_text_may_be_ignored_but_not_the_stop_ids_that_were_asked_for() -> None:
    payload = RequestPayload(prompt_ids=[1])
    payload.sampling.ignore_eos = True
    payload.sampling.stop_token_ids.extend([7])

    plan = read_plan(_held(payload.SerializeToString()), {9})

    assert plan.sampling.stop_token_ids == {7}


def test_greedy_is_not_taken_for_a_missing_temperature() -> None:
    payload = RequestPayload(prompt_ids=[1])
    payload.sampling.temperature = 0.0

    assert read_plan(_held(payload.SerializeToString()), set()).sampling.temperature == 0.0
    assert read_plan(_held(RequestPayload(prompt_ids=[1]).SerializeToString()), set()).sampling.temperature == 1.0


WORDLESS = RequestPayload(prompt_ids=[1], bad_words=[TokenIds()]).SerializeToString()


@pytest.mark.parametrize(
    ("payload", "message"),
    [(b"\xff\xff", "no RequestPayload"), (b"", "no prompt ids"), (WORDLESS, "a bad word without a token")],
)
def test_what_is_no_request_is_refused(payload: bytes, message: str) -> None:
    with pytest.raises(UnreadablePayloadError, match=message):
        read_plan(_held(payload), set())
