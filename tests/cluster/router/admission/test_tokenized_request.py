"""What the router's tokenizer adds to a record."""

import dataclasses

import pytest

from shardline_cluster.router.admission.tokenized_request import TokenizedRequest, tokenized
from shardline_protos import generation_pb2 as pb
from shardline_workers.text.byte_tokenizer import END_OF_TEXT, ByteTokenizer
from shardline_workers.text.simulated_text import simulated_text_model

MODEL = simulated_text_model(100)
EOS = ByteTokenizer().encode(END_OF_TEXT, add_special_tokens=False)[0]


def test_without_echo_and_bad_words_there_are_only_ids() -> None:
    assert tokenized(MODEL, pb.GenerateRequest(text="hi")) == TokenizedRequest(prompt_ids=(104, 105))


@pytest.mark.parametrize(("skips", "text"), [(None, "hi"), (True, "hi"), (False, f"hi{END_OF_TEXT}")])
def test_the_echo_of_ids_is_their_text_as_the_output_would_be_told(skips: bool | None, text: str) -> None:
    request = pb.GenerateRequest(
        token_ids=pb.TokenIds(ids=[104, 105, EOS]), sampling=pb.SamplingParams(echo=True, skip_special_tokens=skips)
    )

    assert tokenized(MODEL, request).echoed_text == text


def test_the_echo_of_a_text_is_the_text() -> None:
    request = pb.GenerateRequest(text=f"é{END_OF_TEXT}", sampling=pb.SamplingParams(echo=True))

    assert tokenized(MODEL, request).echoed_text == f"é{END_OF_TEXT}"


def test_bad_words_are_told_in_every_spelling() -> None:
    request = pb.GenerateRequest(text="hi", sampling=pb.SamplingParams(bad_words=["no"]))

    assert tokenized(MODEL, request).bad_words == (tuple(b"no"), tuple(b" no"))


def test_a_spelling_with_a_token_that_the_model_has_not_is_left_out() -> None:
    model = dataclasses.replace(MODEL, vocab_size=ord("o") + 1)
    request = pb.GenerateRequest(text="hi", sampling=pb.SamplingParams(bad_words=["no", "so"]))

    assert tokenized(model, request).bad_words == (tuple(b"no"), tuple(b" no"))
