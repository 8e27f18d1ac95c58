"""Every rule of validation, as a table: what is set, which field is named, and what the message says."""

import math
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from shardline_cluster.errors import InvalidRequestError
from shardline_cluster.router.admission.sampling_validation import ModelLimits
from shardline_cluster.router.admission.validation import check_against_model, check_request
from shardline_protos import generation_pb2 as pb

LIMITS = ModelLimits(vocab_size=100, max_model_len=50, max_num_seqs=8)


def _request(**fields: Any) -> pb.GenerateRequest:
    return pb.GenerateRequest(**({"text": "hi"} | fields))


def _sampling(**fields: Any) -> pb.GenerateRequest:
    return _request(sampling=pb.SamplingParams(**fields))


def _unknown_field(message: Any) -> Any:
    message.MergeFromString(b"\xf8\x7f\x01")  # field 2047, varint 1
    return message


WRONG: list[tuple[pb.GenerateRequest, str, str]] = [
    # The prompt.
    (pb.GenerateRequest(), "prompt", "is missing: set one of text, token_ids and chat"),
    (_request(text=""), "text", "is empty"),
    (pb.GenerateRequest(token_ids=pb.TokenIds()), "token_ids.ids", "is empty"),
    (pb.GenerateRequest(chat=pb.Chat()), "chat.messages", "is empty"),
    (pb.GenerateRequest(chat=pb.Chat(messages=[pb.ChatMessage()])), "chat.messages[0].role", "is empty"),
    (
        pb.GenerateRequest(chat=pb.Chat(messages=[pb.ChatMessage(role="user")] * 4097)),
        "chat.messages",
        "has 4097 entries: at most 4096 are allowed",
    ),
    (_request(model="m" * 257), "model", "has 257 characters: at most 256"),
    # Sampling: ranges.
    (_sampling(temperature=-0.1), "sampling.temperature", "is -0.1: must be 0 … 10"),
    (_sampling(temperature=10.5), "sampling.temperature", "is 10.5"),
    (_sampling(temperature=math.nan), "sampling.temperature", "is nan"),
    (_sampling(temperature=math.inf), "sampling.temperature", "is inf"),
    (_sampling(top_p=0.0), "sampling.top_p", "is 0.0: must be more than 0"),
    (_sampling(top_p=1.01), "sampling.top_p", "is 1.01"),
    (_sampling(top_p=math.nan), "sampling.top_p", "is nan"),
    (_sampling(min_p=-0.5), "sampling.min_p", "is -0.5: must be 0 … 1"),
    (_sampling(min_p=1.5), "sampling.min_p", "is 1.5"),
    (_sampling(n=0), "sampling.n", "is 0: must be 1 … 64"),
    (_sampling(n=65), "sampling.n", "is 65"),
    (_sampling(max_tokens=0), "sampling.max_tokens", "is 0: must be at least 1"),
    (_sampling(logprobs=21), "sampling.logprobs", "is 21: must be 0 … 20"),
    (_sampling(stop=["x"] * 65), "sampling.stop", "has 65 entries: at most 64"),
    (_sampling(stop=["x", ""]), "sampling.stop[1]", "has 0 characters: must have 1 … 1024"),
    (_sampling(stop=["x" * 1025]), "sampling.stop[0]", "has 1025 characters"),
    (_sampling(stop_token_ids=[1] * 65), "sampling.stop_token_ids", "has 65 entries: at most 64"),
    (_sampling(presence_penalty=2.5), "sampling.presence_penalty", "is 2.5: must be -2 … 2, 0 is off"),
    (_sampling(presence_penalty=math.nan), "sampling.presence_penalty", "is nan"),
    (_sampling(frequency_penalty=-2.1), "sampling.frequency_penalty", "is -2.1: must be -2 … 2"),
    (_sampling(frequency_penalty=-math.inf), "sampling.frequency_penalty", "is -inf"),
    (_sampling(repetition_penalty=0.0), "sampling.repetition_penalty", "is 0.0: must be 0.01 … 100, 1 is off"),
    (_sampling(repetition_penalty=-1.0), "sampling.repetition_penalty", "is -1.0"),
    (_sampling(repetition_penalty=101.0), "sampling.repetition_penalty", "is 101.0"),
    (_sampling(repetition_penalty=math.nan), "sampling.repetition_penalty", "is nan"),
    (_sampling(logit_bias={7: 100.5}), "sampling.logit_bias[7]", "is 100.5: must be -100 … 100"),
    (_sampling(logit_bias={7: -1e30}), "sampling.logit_bias[7]", "must be -100 … 100"),
    (_sampling(logit_bias={0: math.nan}), "sampling.logit_bias[0]", "is nan"),
    (_sampling(logit_bias=dict.fromkeys(range(1025), 1.0)), "sampling.logit_bias", "has 1025 entries: at most 1024"),
    (_sampling(bad_words=["x"] * 129), "sampling.bad_words", "has 129 entries: at most 128"),
    (_sampling(bad_words=["x", ""]), "sampling.bad_words[1]", "has 0 characters: must have 1 … 1024"),
    (_sampling(bad_words=["x" * 1025]), "sampling.bad_words[0]", "has 1025 characters"),
    (_sampling(prompt_logprobs=21), "sampling.prompt_logprobs", "is 21: must be 0 … 20"),
    # Sampling: what the engine has not.
    (_sampling(constraint=pb.Constraint(regex="a")), "sampling.constraint", "is set (regex)"),
    (_sampling(constraint=pb.Constraint()), "sampling.constraint", "is set (empty)"),
    # The rest.
    (_request(priority=101), "priority", "is 101: must be -100 … 100"),
    (_request(priority=-101), "priority", "is -101"),
    (_request(idempotency_key="é" * 129), "idempotency_key", "has 258 bytes: must have 1 … 256"),
    (_request(timeout=Duration()), "timeout", "is 0 s: must be more than 0 s"),
    (_request(timeout=Duration(seconds=-1)), "timeout", "is -1 s"),
    (_request(timeout=Duration(seconds=40 * 86400)), "timeout", "at most 2592000 s"),
    (_request(max_queue_time=Duration(nanos=-5)), "max_queue_time", "must be more than 0 s"),
    (_request(on_disconnect=pb.OnDisconnect(grace=Duration(seconds=-1))), "on_disconnect.grace", "is -1 s"),
    (_request(on_disconnect=pb.OnDisconnect(cancel=False)), "on_disconnect.cancel", "is false"),
    (_request(on_disconnect=pb.OnDisconnect(keep_going=False)), "on_disconnect.keep_going", "is false"),
    (_request(metadata={str(i): "" for i in range(17)}), "metadata", "has 17 entries: at most 16"),
    (_request(metadata={"": "x"}), "metadata", "has the key ''"),
    (_request(metadata={"k": "v" * 513}), "metadata['k']", "has 513 bytes: at most 512"),
    # What only a newer client knows.
    (_unknown_field(_request()), "2047", "is field number 2047 of the request, which this router does not know"),
    (
        _request(sampling=_unknown_field(pb.SamplingParams())),
        "sampling.2047",
        "is field number 2047 of sampling",
    ),
    (
        pb.GenerateRequest(chat=pb.Chat(messages=[_unknown_field(pb.ChatMessage(role="user"))])),
        "chat.messages.2047",
        "of chat.messages",
    ),
]


@pytest.mark.parametrize(("request_", "field", "words"), WRONG, ids=[f"{w[1]}-{i}" for i, w in enumerate(WRONG)])
def test_what_is_wrong_is_refused_by_field_value_bound_and_remedy(
    request_: pb.GenerateRequest, field: str, words: str
) -> None:
    with pytest.raises(InvalidRequestError) as error:
        check_request(request_)

    assert error.value.field == field
    assert words in str(error.value)
    assert str(error.value).startswith(field)


@pytest.mark.parametrize(
    "request_",
    [
        _request(),
        pb.GenerateRequest(token_ids=pb.TokenIds(ids=[0])),
        pb.GenerateRequest(chat=pb.Chat(messages=[pb.ChatMessage(role="user")])),
        _sampling(temperature=0, top_k=0, top_p=1, min_p=0, seed=2**64 - 1, n=64, max_tokens=1, logprobs=0),
        _sampling(temperature=10, top_k=2**32 - 1, top_p=1e-9, min_p=1, seed=0, n=1, logprobs=20),
        _sampling(stop=["x" * 1024] * 64, stop_token_ids=[1] * 64, ignore_eos=True, include_stop_in_output=True),
        _sampling(presence_penalty=-2, frequency_penalty=2, repetition_penalty=0.01, logit_bias={3: -100, 4: 100}),
        _sampling(repetition_penalty=100, bad_words=["x" * 1024] * 128, echo=True, min_tokens=2**32 - 1),
        _sampling(
            min_tokens=0, echo=False, presence_penalty=0, frequency_penalty=0, repetition_penalty=1, logit_bias={}
        ),
        _request(priority=100, idempotency_key="k" * 256, metadata={"k" * 64: "v" * 512}),
        _request(timeout=Duration(nanos=1), max_queue_time=Duration(seconds=30 * 86400)),
        _request(on_disconnect=pb.OnDisconnect(grace=Duration())),
        _request(on_disconnect=pb.OnDisconnect(cancel=True), store=False, background=True),
    ],
)
def test_what_is_allowed_passes_up_to_its_bounds(request_: pb.GenerateRequest) -> None:
    check_request(request_)


@pytest.mark.parametrize(
    ("request_", "num_prompt_tokens", "field", "words"),
    [
        (_request(), 0, "prompt", "has no tokens"),
        (_request(), 50, "prompt", "has 50 tokens, but the context holds 50 with at least one of output"),
        (_request(), 60, "prompt", "shorten the prompt by 11 tokens"),
        (_sampling(max_tokens=41), 10, "sampling.max_tokens", "is 41, but a prompt of 10 tokens leaves 40 of"),
        (_sampling(n=9), 10, "sampling.n", "is 9, but the replicas of this model run 8 sequences at once"),
        (
            _sampling(n=8, prompt_logprobs=0),
            10,
            "sampling.prompt_logprobs",
            "makes 9, but the replicas of this model run 8",
        ),
        (_sampling(min_tokens=4, max_tokens=3), 10, "sampling.min_tokens", "is 4, but the output ends at 3 tokens"),
        (_sampling(min_tokens=41), 10, "sampling.min_tokens", "is 41, but the output ends at 40 tokens"),
        (_sampling(logit_bias={5: 1, 100: 1}), 10, "sampling.logit_bias[100]", "is no token of the model: ids must be"),
        (_sampling(stop_token_ids=[5, 100]), 10, "sampling.stop_token_ids[1]", "is 100: must be below the vocab"),
    ],
)
def test_what_does_not_fit_the_model_is_told_with_its_numbers(
    request_: pb.GenerateRequest, num_prompt_tokens: int, field: str, words: str
) -> None:
    with pytest.raises(InvalidRequestError) as error:
        check_against_model(request_, num_prompt_tokens, LIMITS)

    assert error.value.field == field
    assert words in str(error.value)


@pytest.mark.parametrize(
    "request_", [_request(), _sampling(max_tokens=40, min_tokens=40, n=8, stop_token_ids=[99], logit_bias={99: 1})]
)
def test_what_just_fits_the_model_passes(request_: pb.GenerateRequest) -> None:
    check_against_model(request_, 10, LIMITS)


def test_a_prompt_whose_log_probabilities_are_too_many_is_refused() -> None:
    roomy = ModelLimits(vocab_size=100, max_model_len=100_000, max_num_seqs=8)
    request = _sampling(prompt_logprobs=20)

    check_against_model(request, 12_483, roomy)
    with pytest.raises(
        InvalidRequestError, match="makes 2097312 bytes of a prompt of 12484 tokens, but at most 2097152"
    ):
        check_against_model(request, 12_484, roomy)
