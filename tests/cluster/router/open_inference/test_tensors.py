"""Tensors: what is read from them, what is refused, and that writing and reading are each other's opposite."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardline_cluster.errors import InvalidRequestError
from shardline_cluster.router.open_inference.signature import FINISH_REASON, NUM_OUTPUT_TOKENS, TEXT_OUTPUT
from shardline_cluster.router.open_inference.tensors import add_output, input_values, pack_texts, unpack_texts
from shardline_protos import open_inference_pb2 as oip
from tests.cluster.router.open_inference_requests import infer_request, tensor_of

STEADY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine, too
Change = Callable[[oip.ModelInferRequest], object]


@pytest.mark.parametrize("raw", [True, False], ids=["raw contents", "contents of their own"])
def test_texts_and_truth_values_are_read(raw: bool) -> None:
    values = input_values(infer_request("héllo", sampling={}, raw=raw, stream=True, return_logprobs=False))

    assert values.texts == {"text_input": "héllo", "sampling_parameters": "{}"}
    assert values.flags == {"stream": True, "return_logprobs": False}


@STEADY
@given(st.lists(st.binary(max_size=40), max_size=6))
def test_texts_come_back_from_raw_bytes(texts: list[bytes]) -> None:
    assert unpack_texts(pack_texts(texts)) == texts


@STEADY
@given(st.binary(max_size=64))
def test_any_bytes_are_texts_or_refused(raw: bytes) -> None:
    try:
        texts = unpack_texts(raw)
    except ValueError:
        return

    assert pack_texts(texts) == raw


@STEADY
@given(st.lists(st.text(), max_size=5), st.lists(st.integers(0, 2**32 - 1), max_size=5))
def test_outputs_hold_what_was_written(texts: list[str], counts: list[int]) -> None:
    texts = [text.encode(errors="replace").decode() for text in texts]
    response = oip.ModelInferResponse()

    add_output(response, TEXT_OUTPUT, texts)
    add_output(response, NUM_OUTPUT_TOKENS, counts)
    add_output(response, FINISH_REASON, ["stop"])

    assert tensor_of(response, "text_output") == texts
    assert tensor_of(response, "num_output_tokens") == counts
    assert [output.datatype for output in response.outputs] == ["BYTES", "UINT32", "BYTES"]


@STEADY
@given(st.binary(max_size=200))
def test_any_message_is_read_or_refused_in_words(message: bytes) -> None:
    request = infer_request()
    request.raw_input_contents[0] = message

    try:
        values = input_values(request)
    except InvalidRequestError as error:
        assert error.field == "text_input"
    else:
        assert pack_texts([values.texts["text_input"].encode()]) == message


def _set_raw(index: int, content: bytes) -> Change:
    return lambda request: request.raw_input_contents.__setitem__(index, content)


def _without_text(request: oip.ModelInferRequest) -> None:
    del request.inputs[0], request.raw_input_contents[0]


def _shape(*shape: int) -> Change:
    def change(request: oip.ModelInferRequest) -> None:
        request.inputs[0].shape[:] = shape

    return change


RAW_WRONG: list[tuple[str, Change, str, str]] = [
    ("unknown tensor", lambda r: setattr(r.inputs[0], "name", "prompt"), "inputs[0].name", "inputs are: text_input"),
    ("datatype", lambda r: setattr(r.inputs[0], "datatype", "FP32"), "text_input.datatype", "must be BYTES"),
    ("batch", _shape(2), "text_input.shape", "must be [1]"),
    ("batch dimension", _shape(1, 1), "text_input.shape", "is [1, 1]"),
    ("no shape", _shape(), "text_input.shape", "is []"),
    ("long shape", _shape(*range(100)), "text_input.shape", "…"),
    ("missing text", _without_text, "text_input", "is missing"),
    ("too few raw", lambda r: r.raw_input_contents.pop(), "raw_input_contents", "has 1 entries for 2 inputs"),
    ("raw and own", lambda r: r.inputs[1].contents.SetInParent(), "inputs[1].contents", "send one of both"),
    (
        "shared memory",
        lambda r: r.inputs[0].parameters["shared_memory_region"].SetInParent(),
        "text_input.parameters",
        "shared memory",
    ),
    ("short length", _set_raw(0, b"\1\0"), "text_input", "2 bytes are left where a length of 4 must stand"),
    ("lying length", _set_raw(0, b"\5\0\0\0hi"), "text_input", "a text of 5 bytes is announced, but 2 bytes are left"),
    ("two texts", _set_raw(0, pack_texts([b"a", b"b"])), "text_input", "has 2 texts"),
    ("no text", _set_raw(0, b""), "text_input", "has 0 texts"),
    ("no UTF-8", _set_raw(0, pack_texts([b"ab\xff"])), "text_input", "no UTF-8 at byte 2 (0xff)"),
    ("long truth", _set_raw(1, b"\1\1"), "stream", "one byte, 0 or 1"),
    ("strange truth", _set_raw(1, b"\2"), "stream", "one byte, 0 or 1"),
]


@pytest.mark.parametrize(("change", "field", "words"), [w[1:] for w in RAW_WRONG], ids=[w[0] for w in RAW_WRONG])
def test_what_is_wrong_is_refused_by_field_and_remedy(change: Change, field: str, words: str) -> None:
    request = infer_request(stream=True)
    change(request)

    with pytest.raises(InvalidRequestError) as raised:
        input_values(request)

    assert raised.value.field == field
    assert words in str(raised.value)


def test_an_input_that_comes_twice_is_refused() -> None:
    request = infer_request()
    request.inputs.append(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])

    with pytest.raises(InvalidRequestError, match="'text_input' for the second time: send each input once"):
        input_values(request)


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (oip.InferTensorContents(), "has 0 elements"),
        (oip.InferTensorContents(bytes_contents=[b"a", b"b"]), "has 2 elements"),
        (oip.InferTensorContents(int_contents=[1]), "has int_contents: BYTES is sent in bytes_contents"),
        (oip.InferTensorContents(bytes_contents=[b"a"], fp32_contents=[1]), "has fp32_contents"),
    ],
)
def test_contents_of_another_kind_or_number_are_refused(contents: oip.InferTensorContents, words: str) -> None:
    request = infer_request(raw=False)
    request.inputs[0].contents.CopyFrom(contents)

    with pytest.raises(InvalidRequestError) as raised:
        input_values(request)

    assert words in str(raised.value)
