"""Keyword arguments become the fields of the protobuf request, or an error that names them."""

from typing import Any

import pytest

from shardline.errors import InvalidArgumentError
from shardline.requests import ChatMessage, RequestOptions, chat_of, chat_request, text_request
from shardline_protos import generation_pb2 as pb


def test_every_sampling_field_of_the_protocol_can_be_set() -> None:
    options: RequestOptions = {
        "temperature": 0.0,
        "top_k": 5,
        "top_p": 0.5,
        "min_p": 0.25,
        "seed": 2**64 - 1,
        "n": 2,
        "max_tokens": 9,
        "min_tokens": 1,
        "stop": ["a", "b"],
        "stop_token_ids": [3],
        "ignore_eos": False,
        "include_stop_in_output": True,
        "logprobs": 0,
        "prompt_logprobs": 1,
        "echo": True,
        "presence_penalty": -1.0,
        "frequency_penalty": 1.0,
        "repetition_penalty": 1.5,
        "logit_bias": {7: -2.0},
        "bad_words": "no",
        "skip_special_tokens": False,
        "regex": "a+",
    }

    sampling = text_request("Hi", "m", options).sampling

    assert {field.name for field, _ in sampling.ListFields()} == {
        *(set(options) - {"regex"}),
        "constraint",
    }
    assert {field.name for field in pb.SamplingParams.DESCRIPTOR.fields} == {*(set(options) - {"regex"}), "constraint"}
    assert sampling.HasField("temperature")
    assert (sampling.temperature, sampling.seed, list(sampling.stop)) == (0.0, 2**64 - 1, ["a", "b"])
    assert (dict(sampling.logit_bias), list(sampling.bad_words)) == ({7: -2.0}, ["no"])


def test_what_is_absent_or_none_stays_absent() -> None:
    request = text_request("Hi", "m", {"temperature": None, "timeout_s": None, "priority": None})

    assert not request.HasField("sampling")
    assert not request.HasField("timeout")
    assert not request.HasField("store")


def test_each_call_draws_its_own_key_unless_one_is_given() -> None:
    drawn = {text_request("Hi", "", {}).idempotency_key for _ in range(3)}

    assert len(drawn) == 3
    assert all(len(key) == 32 for key in drawn)
    assert text_request("Hi", "", {"idempotency_key": "mine"}).idempotency_key == "mine"


def test_the_requests_own_options_are_set() -> None:
    request = text_request(
        "Hi", "m", {"priority": -5, "timeout_s": 1.5, "max_queue_time_s": 60, "store": False, "metadata": {"user": "7"}}
    )

    assert request.priority == -5
    assert (request.timeout.ToMilliseconds(), request.max_queue_time.ToMilliseconds()) == (1500, 60_000)
    assert request.HasField("store")
    assert not request.store
    assert dict(request.metadata) == {"user": "7"}


def test_on_disconnect_is_a_word_or_a_grace() -> None:
    assert text_request("", "", {"on_disconnect": "cancel"}).on_disconnect.cancel
    assert text_request("", "", {"on_disconnect": "continue"}).on_disconnect.keep_going
    assert text_request("", "", {"on_disconnect": 2}).on_disconnect.grace.ToMilliseconds() == 2000


@pytest.mark.parametrize(
    ("name", "value", "sent"),
    [
        ("json_schema", {"type": "object"}, '{"type": "object"}'),
        ("json_schema", "{}", "{}"),
        ("grammar", "root ::= 'a'", "root ::= 'a'"),
        ("choices", ["yes", "no"], pb.TokenChoices(choices=["yes", "no"])),
        ("json_object", True, True),
    ],
)
def test_constraints_are_set_by_name(name: str, value: Any, sent: Any) -> None:
    options: Any = {name: value}

    assert getattr(text_request("Hi", "", options).sampling.constraint, name) == sent


def test_two_constraints_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="choices and regex are given"):
        text_request("Hi", "", {"regex": "a", "choices": ["a"]})


def test_prompts_are_text_or_token_ids() -> None:
    assert text_request("Hi", "", {}).WhichOneof("prompt") == "text"
    assert list(text_request([1, 2], "", {}).token_ids.ids) == [1, 2]
    assert text_request([], "", {}).WhichOneof("prompt") == "token_ids"


def test_messages_are_mappings_objects_or_a_single_text() -> None:
    expected = [pb.ChatMessage(role="user", content="Hi", name="Ada")]

    assert list(chat_of([{"role": "user", "content": "Hi", "name": "Ada"}]).messages) == expected
    assert list(chat_of([ChatMessage("user", "Hi", "Ada")]).messages) == expected
    assert list(chat_request("Hi", "", {}).chat.messages) == [pb.ChatMessage(role="user", content="Hi")]


@pytest.mark.parametrize(
    "message",
    [{"role": "user"}, {"content": "x"}, {"role": "user", "content": 3}, {"role": "a", "content": "", "x": "y"}],
)
def test_a_message_that_is_none_is_refused_with_its_place(message: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"messages\[1\] is"):
        chat_of([{"role": "system", "content": ""}, message])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", -1),
        ("max_tokens", "ten"),
        ("top_k", 2**32),
        ("seed", -1),
        ("stop", 3),
        ("stop_token_ids", ["a"]),
        ("logit_bias", {"a": 1.0}),
        ("choices", 3),
        ("timeout_s", 0),
        ("timeout_s", float("nan")),
        ("timeout_s", "soon"),
        ("max_queue_time_s", -1),
        ("on_disconnect", "never"),
        ("on_disconnect", -1.0),
        ("priority", 1.5),
        ("metadata", {"a": 1}),
    ],
)
def test_what_cannot_be_sent_is_refused_by_name_and_value(name: str, value: Any) -> None:
    options: Any = {name: value}

    with pytest.raises(InvalidArgumentError, match=f"{name} is "):
        text_request("Hi", "", options)


@pytest.mark.parametrize("prompt", [[-1], "half a character: \ud83d"])
def test_a_prompt_that_cannot_be_sent_is_refused(prompt: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="prompt is"):
        text_request(prompt, "", {})


@pytest.mark.parametrize("message", [ChatMessage("user", "\ud83d"), {"role": "user", "content": "\ud83d"}])
def test_a_message_that_cannot_be_sent_is_refused(message: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"messages\[0\] is "):
        chat_of([message])


def test_an_error_shows_the_beginning_of_a_long_value() -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        text_request([*range(10_000), -1], "", {})

    assert "prompt is [0, 1, 2" in str(raised.value)
    assert len(str(raised.value)) < 500


def test_an_unknown_option_is_never_dropped() -> None:
    options: Any = {"temprature": 1.0}

    with pytest.raises(TypeError, match="no option 'temprature'"):
        text_request("Hi", "", options)
