"""Sampling settings in the words of Triton's vLLM backend."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardline_cluster.errors import InvalidRequestError
from shardline_cluster.router.open_inference.sampling import (
    MAX_JSON_BYTES,
    SAMPLING_NAMES,
    sampling_of,
    settings_of_json,
)
from shardline_protos import generation_pb2 as pb

STEADY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine, too
TEXT = st.text("-0123456789.eE_ aé\ud800", max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def _sampling(**members: Any) -> pb.SamplingParams:
    return sampling_of(settings_of_json(json.dumps(members), "sampling_parameters"))[0]


def _error(text: str) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as raised:
        sampling_of(settings_of_json(text, "sampling_parameters"))
    return raised.value


def test_every_field_is_read() -> None:
    told = _sampling(
        max_tokens=16,
        min_tokens=2,
        n=3,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.1,
        seed=2**64 - 1,
        stop=["a", "b"],
        stop_token_ids=[1, 2],
        bad_words=["c"],
        ignore_eos=True,
        include_stop_str_in_output=True,
        skip_special_tokens=False,
        logprobs=5,
        presence_penalty=1,
        frequency_penalty=-1,
        repetition_penalty=1.5,
        logit_bias={"7": -100, "8": 1.5},
    )

    assert told == pb.SamplingParams(
        max_tokens=16,
        min_tokens=2,
        n=3,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.1,
        seed=2**64 - 1,
        stop=["a", "b"],
        stop_token_ids=[1, 2],
        bad_words=["c"],
        ignore_eos=True,
        include_stop_in_output=True,
        skip_special_tokens=False,
        logprobs=5,
        presence_penalty=1,
        frequency_penalty=-1,
        repetition_penalty=1.5,
        logit_bias={7: -100, 8: 1.5},
    )
    assert {field.name for field, _ in told.ListFields()} == {sampling_field(name) for name in SAMPLING_NAMES}


def sampling_field(name: str) -> str:
    return {"include_stop_str_in_output": "include_stop_in_output"}.get(name, name)


def test_numbers_and_truth_values_may_be_strings_and_a_stop_may_be_alone() -> None:
    told = _sampling(temperature="0.1", max_tokens="16", ignore_eos="False", stop="end", top_k=40.0)

    assert told == pb.SamplingParams(temperature=0.1, max_tokens=16, ignore_eos=False, stop=["end"], top_k=40)


def test_what_is_null_or_off_for_vllm_counts_as_absent() -> None:
    assert _sampling(stop=None, seed=-1, logit_bias={}, bad_words=[]) == pb.SamplingParams()
    assert _sampling(top_k=-1) == pb.SamplingParams(top_k=0)


def test_each_field_tells_where_the_client_has_it() -> None:
    _, paths = sampling_of(settings_of_json('{"include_stop_str_in_output": true}', "sampling_parameters"))

    assert paths == {"sampling.include_stop_in_output": "sampling_parameters.include_stop_str_in_output"}


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("{", "sampling_parameters", "is no JSON (Expecting property name"),
        ("", "sampling_parameters", "is no JSON"),
        ("[" * 100_000, "sampling_parameters", "nested too deeply"),
        ("1" * 10_000, "sampling_parameters", "is no JSON (Exceeds the limit"),
        ("[1]", "sampling_parameters", "is [1]: must be a JSON object"),
        ("null", "sampling_parameters", "is None"),
        ('{"n": 1, "n": 2}', "sampling_parameters.n", "is given twice"),
        ('{"temprature": 1}', "sampling_parameters.temprature", "is not known: known are: max_tokens"),
        ('{"\\ud800": 1}', "sampling_parameters.\\ud800", "is not known"),
        ('{"guided_decoding": {}}', "sampling_parameters.guided_decoding", "is not known"),
        ('{"prompt_logprobs": 1}', "sampling_parameters.prompt_logprobs", "ask shardline.v1.Generation"),
        ('{"temperature": true}', "sampling_parameters.temperature", "is True: must be a number"),
        ('{"temperature": "hot"}', "sampling_parameters.temperature", "is 'hot'"),
        ('{"temperature": [1]}', "sampling_parameters.temperature", "must be a number"),
        ('{"max_tokens": 1.5}', "sampling_parameters.max_tokens", "whole number"),
        ('{"max_tokens": -1}', "sampling_parameters.max_tokens", "0 … 4294967295"),
        ('{"max_tokens": "1_0"}', "sampling_parameters.max_tokens", "whole number"),
        ('{"max_tokens": 4294967296}', "sampling_parameters.max_tokens", "is 4294967296"),
        ('{"max_tokens": NaN}', "sampling_parameters.max_tokens", "is nan"),
        ('{"seed": -2}', "sampling_parameters.seed", "0 … 18446744073709551615"),
        ('{"ignore_eos": 1}', "sampling_parameters.ignore_eos", "must be true or false"),
        ('{"stop": [1]}', "sampling_parameters.stop[0]", "must be a text"),
        ('{"stop": {"a": 1}}', "sampling_parameters.stop", "a text or a list of texts"),
        ('{"stop": "\\ud800"}', "sampling_parameters.stop[0]", "half a character"),
        ('{"stop_token_ids": 5}', "sampling_parameters.stop_token_ids", "a list of token ids"),
        ('{"stop_token_ids": [1, "x"]}', "sampling_parameters.stop_token_ids[1]", "is 'x'"),
        ('{"logit_bias": [1]}', "sampling_parameters.logit_bias", "must be an object"),
        ('{"logit_bias": {"a": 1}}', "sampling_parameters.logit_bias, a token id in it,", "is 'a'"),
        ('{"logit_bias": {"1": 1, "01": 2}}', "sampling_parameters.logit_bias[1]", "is given twice"),
        ('{"logit_bias": {"1": "x"}}', "sampling_parameters.logit_bias[1]", "must be a number"),
    ],
)
def test_what_is_wrong_is_refused_by_field_value_and_remedy(text: str, field: str, words: str) -> None:
    error = _error(text)

    assert error.field == field
    assert words in str(error)


def test_a_huge_text_is_not_even_read() -> None:
    assert f"at most {MAX_JSON_BYTES} are allowed" in str(_error(" " * (MAX_JSON_BYTES + 1)))


@STEADY
@given(st.dictionaries(st.sampled_from(SAMPLING_NAMES), JSON, max_size=4))
def test_any_json_is_read_or_refused_in_few_words(members: dict[str, Any]) -> None:
    try:
        told = _sampling(**members)
    except InvalidRequestError as error:
        assert error.field.startswith("sampling_parameters.")
        assert len(str(error)) < 400
    else:
        assert pb.SamplingParams.FromString(told.SerializeToString()) is not None
