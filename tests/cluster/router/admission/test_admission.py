"""A submission has every default resolved, and two equal bodies under one key are one request."""

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from shardline_cluster.errors import KeyConflictError, QueueFullError, RequestTooLargeError
from shardline_cluster.queue.answers import KeyConflict, LaneFull, TooLarge
from shardline_cluster.queue.records import DisconnectAction, Submission
from shardline_cluster.queue.request_ids import lane_of
from shardline_cluster.queue.terms import QueueTerms
from shardline_cluster.router.admission.admission import Admission, body_digest, refusal, seed_of, submission_of
from shardline_cluster.router.admission.tokenized_request import TokenizedRequest
from shardline_protos import generation_pb2 as pb
from shardline_protos.record_pb2 import RequestPayload
from shardline_workers.text.text_model import SamplingDefaults

TERMS = QueueTerms()
TOKENS = TokenizedRequest(prompt_ids=(1, 2, 3), echoed_text="abc", bad_words=((4,), (5, 6)))


def _admission(**changes: Any) -> Admission:
    fields: dict[str, Any] = {
        "model": "m",
        "lane": "lane",
        "drawn": "server-1",
        "tenant": "default",
        "terms": TERMS,
        "max_model_len": 100,
        "defaults": SamplingDefaults(),
        "time_remaining_s": None,
    }
    return Admission(**(fields | changes))


def _submit(request: pb.GenerateRequest, **changes: Any) -> tuple[Submission, RequestPayload]:
    submission = submission_of(request, TOKENS, _admission(**changes))
    return submission, RequestPayload.FromString(submission.payload)


def test_everything_that_was_left_out_has_the_protocols_default() -> None:
    submission, payload = _submit(pb.GenerateRequest(text="hi"))

    sampling = payload.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p) == (1.0, 0, 1.0, 0.0)
    assert (sampling.n, sampling.max_tokens, sampling.seed) == (1, 97, seed_of(submission.id))
    assert not sampling.HasField("logprobs")
    assert (submission.max_tokens, submission.num_logprobs, submission.prompt_tokens) == (97, None, 3)
    assert (submission.on_disconnect, submission.grace_ms) == (DisconnectAction.GRACE, TERMS.grace_ms)
    assert (submission.max_queue_ms, submission.retention_ms) == (TERMS.max_queue_ms, TERMS.retention_ms)
    assert (submission.timeout_ms, submission.store, submission.background) == (None, True, False)
    assert (list(payload.prompt_ids), payload.model) == ([1, 2, 3], "m")
    assert (payload.prompt_text, [list(word.ids) for word in payload.bad_words]) == ("abc", [[4], [5, 6]])
    assert lane_of(submission.id) == "lane"


def test_the_models_defaults_come_before_the_protocols_and_the_clients_before_both() -> None:
    defaults = SamplingDefaults(temperature=0.6, top_k=40, top_p=0.9, repetition_penalty=1.2)

    _, payload = _submit(pb.GenerateRequest(sampling=pb.SamplingParams(temperature=0, top_p=0.5)), defaults=defaults)

    sampling = payload.sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p) == (0.0, 40, 0.5, 0.0)
    assert sampling.repetition_penalty == 1.2


def test_what_the_client_set_is_kept() -> None:
    asked = pb.SamplingParams(seed=0, n=3, max_tokens=5, logprobs=0, stop=["a", "b"], stop_token_ids=[7])
    submission, payload = _submit(
        pb.GenerateRequest(
            sampling=asked,
            priority=-3,
            store=False,
            background=True,
            metadata={"a": "b"},
            max_queue_time=Duration(seconds=2),
        )
    )

    assert (payload.sampling.seed, payload.sampling.n, list(payload.sampling.stop)) == (0, 3, ["a", "b"])
    assert (submission.num_sequences, submission.max_tokens, submission.num_logprobs) == (3, 5, 0)
    assert (submission.priority, submission.store, submission.background) == (-3, False, True)
    assert (submission.max_queue_ms, dict(payload.metadata)) == (2000, {"a": "b"})


def test_with_a_key_id_and_seed_follow_from_tenant_key_and_body() -> None:
    request = pb.GenerateRequest(text="hi", idempotency_key="k")

    first, second = _submit(request)[0], _submit(request, drawn="server-2")[0]
    other_body = _submit(pb.GenerateRequest(text="ho", idempotency_key="k"))[0]
    other_tenant = _submit(request, tenant="t")[0]

    assert (first.id, first.payload) == (second.id, second.payload)
    assert len({first.id, other_body.id, other_tenant.id}) == 3
    assert first.body_digest != other_body.body_digest


def test_without_a_key_every_submission_is_a_new_request() -> None:
    request = pb.GenerateRequest(text="hi")

    assert _submit(request)[0].id != _submit(request)[0].id


def test_the_digest_leaves_the_key_out_and_nothing_else() -> None:
    request = pb.GenerateRequest(text="hi", metadata={"a": "1", "b": "2"})
    keyed = pb.GenerateRequest(text="hi", metadata={"b": "2", "a": "1"}, idempotency_key="k")
    other = pb.GenerateRequest(text="hi", metadata={"a": "1", "b": "3"})

    assert body_digest(request) == body_digest(keyed) != body_digest(other)


@pytest.mark.parametrize(
    ("timeout_s", "remaining_s", "background", "expected_ms"),
    [
        (None, None, False, None),
        (5, None, False, 5000),
        (5, 2.5, False, 2500),
        (2, 60.0, False, 2000),
        (None, 0.0, False, 1),
        (None, 2.5, True, None),
        (5, 2.5, True, 5000),
    ],
)
def test_the_shorter_of_timeout_and_deadline_wins_and_a_background_call_has_only_the_first(
    timeout_s: int | None, remaining_s: float | None, background: bool, expected_ms: int | None
) -> None:
    timeout = None if timeout_s is None else Duration(seconds=timeout_s)
    request = pb.GenerateRequest(text="hi", timeout=timeout, background=background)

    submission, _ = _submit(request, time_remaining_s=remaining_s)

    assert submission.timeout_ms == expected_ms


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (pb.OnDisconnect(cancel=True), (DisconnectAction.CANCEL, 0)),
        (pb.OnDisconnect(keep_going=True), (DisconnectAction.CONTINUE, 0)),
        (pb.OnDisconnect(grace=Duration(seconds=1, nanos=1)), (DisconnectAction.GRACE, 1001)),
        (pb.OnDisconnect(), (DisconnectAction.GRACE, TERMS.grace_ms)),
    ],
)
def test_what_happens_on_a_disconnect_is_the_clients_choice(
    asked: pb.OnDisconnect, expected: tuple[DisconnectAction, int]
) -> None:
    submission, _ = _submit(pb.GenerateRequest(text="hi", on_disconnect=asked))

    assert (submission.on_disconnect, submission.grace_ms) == expected


def test_each_refusal_has_its_own_error_in_words() -> None:
    conflict, full, large = KeyConflict("lane-1"), LaneFull("max_waiting_tokens", 7, 1500), TooLarge(12, 10)

    errors = [refusal(conflict), refusal(full), refusal(large)]

    assert [type(e) for e in errors] == [KeyConflictError, QueueFullError, RequestTooLargeError]
    assert errors[1].retry_after_s == 1.5
    assert "max_waiting_tokens is 7" in str(errors[1])
    assert "12 tokens" in str(errors[2])
    assert "holds 10" in str(errors[2])
