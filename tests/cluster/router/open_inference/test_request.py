"""A request of the Open Inference Protocol in the words of ours, and errors in the client's."""

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from shardline_cluster.errors import InvalidRequestError, UnknownModelError
from shardline_cluster.router.admission.field_checks import invalid
from shardline_cluster.router.open_inference.request import translated
from shardline_protos import generation_pb2 as pb
from shardline_protos import open_inference_pb2 as oip
from tests.cluster.router.open_inference_requests import infer_request


def _names(request: oip.ModelInferRequest) -> list[str]:
    return [output.name for output in translated(request).form.outputs]


def test_a_plain_request_asks_for_the_whole_text_with_its_prompt_and_ends_with_its_client() -> None:
    asked = translated(infer_request("hello", model="m", version="1", id="7"))

    assert asked.generate == pb.GenerateRequest(
        model="m", text="hello", sampling=pb.SamplingParams(echo=True), on_disconnect=pb.OnDisconnect(cancel=True)
    )
    form = asked.form
    assert (form.request_id, form.num_sequences, form.streams, form.empty_final) == ("7", 1, False, False)
    assert [output.name for output in form.outputs] == ["text_output"]


@pytest.mark.parametrize(
    ("flags", "echo"),
    [
        ({}, True),
        ({"exclude_input_in_output": True}, False),
        ({"exclude_input_in_output": False}, True),
        ({"stream": True}, False),
        ({"stream": True, "exclude_input_in_output": False}, True),
    ],
)
def test_the_prompt_stands_in_the_output_as_with_triton(flags: dict[str, Any], echo: bool) -> None:
    assert translated(infer_request(**flags)).generate.sampling.echo is echo


def test_settings_come_from_json_and_from_typed_parameters() -> None:
    parameters = {"max_tokens": 5, "temperature": 0.5, "stop": "end", "ignore_eos": True, "top_k": "7"}

    asked = translated(infer_request(sampling={"n": 2, "seed": 1}, parameters=parameters))

    sampling = pb.SamplingParams(
        n=2, seed=1, max_tokens=5, temperature=0.5, stop=["end"], ignore_eos=True, top_k=7, echo=True
    )
    assert asked.generate.sampling == sampling
    assert asked.form.num_sequences == 2


def test_priority_time_and_the_empty_final_answer_are_parameters() -> None:
    parameters = {"priority": 3, "timeout": 1_500_000, "triton_enable_empty_final_response": True}

    asked = translated(infer_request(parameters=parameters))

    assert asked.generate.priority == 3
    assert asked.generate.timeout == Duration(seconds=1, nanos=500_000_000)
    assert asked.form.empty_final


def test_outputs_are_what_was_asked_for_or_named() -> None:
    assert _names(infer_request(return_finish_reason=True, return_num_input_tokens=False)) == [
        "text_output",
        "finish_reason",
    ]
    assert _names(infer_request(outputs=["num_output_tokens", "text_output"])) == ["text_output", "num_output_tokens"]
    assert _names(infer_request(outputs=["finish_reason"], return_finish_reason=True)) == ["finish_reason"]


@pytest.mark.parametrize("output", ["logprobs", "cumulative_logprob"])
def test_outputs_of_log_probabilities_ask_for_those_of_the_chosen_tokens(output: str) -> None:
    asked = translated(infer_request(outputs=[output]))
    named = translated(infer_request(outputs=[output], sampling={"logprobs": 3}))

    assert (asked.generate.sampling.HasField("logprobs"), asked.generate.sampling.logprobs) == (True, 0)
    assert named.generate.sampling.logprobs == 3


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"id": "x" * 257}, "id", "has 257 bytes: at most 256"),
        ({"outputs": ["tokens"]}, "outputs[0].name", "outputs are: text_output"),
        ({"outputs": ["text_output"], "return_logprobs": True}, "return_logprobs", "`outputs` does not name logprobs"),
        ({"sampling": {"n": 1}, "parameters": {"n": 1}}, "parameters.n", "is given beside sampling_parameters.n"),
        ({"sampling": {"logprobs": 1}}, "sampling_parameters.logprobs", "no output would carry them"),
        ({"parameters": {"logprobs": 1}}, "parameters.logprobs", "no output would carry them"),
        ({"parameters": {"binary_data_output": True}}, "parameters.binary_data_output", "known are: priority"),
        ({"parameters": {"sequence_id": 1}}, "parameters.sequence_id", "keeps no state"),
        ({"parameters": {"top_k": None}}, "parameters.top_k", "has no value"),
        ({"parameters": {"logit_bias": "x"}}, "parameters.logit_bias", "in sampling_parameters"),
        ({"parameters": {"timeout": -1}}, "parameters.timeout", "is -1"),
        ({"parameters": {"priority": "high"}}, "parameters.priority", "is 'high': must be an int64_param"),
        ({"parameters": {"priority": True}}, "parameters.priority", "is True"),
        (
            {"parameters": {"triton_enable_empty_final_response": 1}},
            "parameters.triton_enable_empty_final_response",
            "must be a bool_param",
        ),
    ],
)
def test_what_is_wrong_is_refused_by_field_and_remedy(changes: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        translated(infer_request(**changes))

    assert raised.value.field == field
    assert words in str(raised.value)


def test_options_of_an_output_are_refused() -> None:
    request = infer_request(outputs=["text_output"])
    request.outputs[0].parameters["classification"].int64_param = 3

    with pytest.raises(InvalidRequestError, match="holds 'classification': leave it out"):
        translated(request)


def test_fields_of_a_newer_protocol_are_refused() -> None:
    newer = oip.ModelInferRequest.FromString(infer_request().SerializeToString() + b"\xf8\x06\x01")

    with pytest.raises(InvalidRequestError, match="field number 111"):
        translated(newer)


def test_another_version_is_not_found() -> None:
    with pytest.raises(UnknownModelError, match="model 'm' has no version '2': leave it out, or say '1'"):
        translated(infer_request(model="m", version="2"))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("sampling.temperature", "parameters.temperature"),
        ("sampling.logit_bias[5]", "sampling_parameters.logit_bias[5]"),
        ("sampling.max_tokens", "sampling_parameters.max_tokens"),
        ("text", "text_input"),
        ("prompt", "text_input"),
        ("model", "model_name"),
        ("timeout", "parameters.timeout"),
        ("metadata", "metadata"),
    ],
)
def test_errors_name_a_field_as_the_client_sent_it(ours: str, theirs: str) -> None:
    asked = translated(infer_request(sampling={"logit_bias": {"5": 1}}, parameters={"temperature": 0.5}))

    error = asked.in_clients_words(invalid(ours, "is wrong", "mend it"))

    assert error.field == theirs
    assert str(error) == f"{theirs} is wrong: mend it"
