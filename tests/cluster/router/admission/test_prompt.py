"""Text, ids and chats become prompt ids, or an error that says why not."""

import dataclasses
from collections.abc import Mapping, Sequence

import pytest

from shardline_cluster.errors import InvalidRequestError
from shardline_cluster.router.admission.prompt import MAX_CHARACTERS_A_TOKEN, prompt_ids
from shardline_protos import generation_pb2 as pb
from shardline_workers.text.chat_template import ChatTemplateError
from shardline_workers.text.simulated_text import simulated_text_model

MODEL = simulated_text_model(100)


class _RecordingTemplate:
    def __init__(self, error: str = "") -> None:
        self.calls: list[tuple[list[dict[str, str]], bool]] = []
        self._error = error

    def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool) -> str:
        if self._error:
            raise ChatTemplateError(self._error)
        self.calls.append(([dict(message) for message in messages], add_generation_prompt))
        return "rendered"


class _TokenizerWithBos:
    vocab_size = 300
    special_ids = frozenset({299})

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [299] * add_special_tokens + list(text.encode())

    def token_bytes(self, token_id: int, *, skip_special: bool) -> bytes:
        return bytes([token_id])


class _NeverAsked(_TokenizerWithBos):
    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        raise AssertionError("tokenising takes seconds here")


def _chat(*roles: str, **fields: bool) -> pb.GenerateRequest:
    messages = [pb.ChatMessage(role=role, content="hi", name="me" if role == "tool" else "") for role in roles]
    return pb.GenerateRequest(chat=pb.Chat(messages=messages, **fields))


def test_a_text_that_can_never_fit_is_not_even_tokenised() -> None:
    model = dataclasses.replace(MODEL, tokenizer=_NeverAsked())
    most = MAX_CHARACTERS_A_TOKEN * MODEL.max_model_len

    with pytest.raises(InvalidRequestError, match=f"has {most + 1} characters, but .* holds {most} at the very most"):
        prompt_ids(model, pb.GenerateRequest(text=" " * (most + 1)))
    assert len(prompt_ids(MODEL, pb.GenerateRequest(text=" " * most))) == most


def test_text_gets_the_models_bos_once_and_a_rendered_chat_gets_none() -> None:
    template = _RecordingTemplate()
    model = dataclasses.replace(MODEL, tokenizer=_TokenizerWithBos(), chat_template=template)

    assert prompt_ids(model, pb.GenerateRequest(text="a")) == (299, 97)
    assert prompt_ids(model, _chat("user")) == tuple(b"rendered")


def test_token_ids_are_taken_as_they_are() -> None:
    assert prompt_ids(MODEL, pb.GenerateRequest(token_ids=pb.TokenIds(ids=[5, 511]))) == (5, 511)


def test_token_ids_beyond_the_vocabulary_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="is 512: must be below the vocabulary's 512") as error:
        prompt_ids(MODEL, pb.GenerateRequest(token_ids=pb.TokenIds(ids=[5, 512])))

    assert error.value.field == "token_ids.ids[1]"


def test_a_text_with_a_token_that_the_weights_do_not_know_is_refused() -> None:
    model = dataclasses.replace(MODEL, vocab_size=98)

    assert prompt_ids(model, pb.GenerateRequest(text="a")) == (97,)
    with pytest.raises(InvalidRequestError, match=r"the token 98 \('b'\), but the weights of .* know ids below 98"):
        prompt_ids(model, pb.GenerateRequest(text="ab"))


def test_a_template_gets_roles_contents_and_names_and_opens_an_assistants_turn_unless_told_not_to() -> None:
    template = _RecordingTemplate()
    model = dataclasses.replace(MODEL, chat_template=template)

    prompt_ids(model, _chat("user", "tool"))
    prompt_ids(model, _chat("user", add_generation_prompt=False))

    assert template.calls == [
        ([{"role": "user", "content": "hi"}, {"role": "tool", "content": "hi", "name": "me"}], True),
        ([{"role": "user", "content": "hi"}], False),
    ]


def test_a_chat_with_a_base_model_is_refused_with_the_reason() -> None:
    model = dataclasses.replace(MODEL, chat_template=None)

    with pytest.raises(InvalidRequestError, match=r"no chat template: it is a base model, .* Send `text`") as error:
        prompt_ids(model, _chat("user"))

    assert error.value.field == "chat"


def test_what_a_template_says_against_the_messages_is_passed_on() -> None:
    model = dataclasses.replace(MODEL, chat_template=_RecordingTemplate("roles must alternate"))

    with pytest.raises(InvalidRequestError, match="roles must alternate"):
        prompt_ids(model, _chat("user", "user"))
