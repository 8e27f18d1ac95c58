"""The Open Inference Protocol: bytes → message → tensors and JSON → a request of ours → its validation.

What the translation lets through must be a request that the core takes or words an error for, in the client's names.
"""

from pathlib import Path
from random import Random
from typing import Any

from google.protobuf.message import DecodeError

from shardline_cluster.errors import InvalidRequestError, UnknownModelError
from shardline_cluster.router.admission.validation import check_request
from shardline_cluster.router.open_inference.request import TranslatedRequest, translated
from shardline_cluster.router.open_inference.tensors import pack_texts
from shardline_cluster.router.status_details import status_message, status_metadata
from shardline_protos import open_inference_pb2 as pb
from tests.fuzz.bytes_mutation import mutated
from tests.fuzz.json_mutation import json_bytes, mutated_json
from tests.fuzz.message_mutation import mutate_message
from tests.fuzz.target import FuzzTarget

_SETTINGS: dict[str, Any] = {
    "max_tokens": 16,
    "min_tokens": "1",
    "temperature": "0.7",
    "top_p": 0.9,
    "top_k": -1,
    "seed": -1,
    "stop": ["END"],
    "stop_token_ids": [5],
    "bad_words": "no",
    "ignore_eos": "false",
    "logit_bias": {"65": -5.0},
    "presence_penalty": 0.1,
    "repetition_penalty": 1.1,
}
_FLAGS = ("stream", "exclude_input_in_output", "return_finish_reason", "return_logprobs")


def make_infer_request(random: Random) -> bytes:
    """A good request with some fields, settings or raw contents changed, sometimes with damaged bytes."""
    if random.random() < 0.03:
        return random.randbytes(random.randrange(200))
    request = pb.ModelInferRequest(model_name="m", id="7")
    request.parameters["n"].int64_param = 2
    request.parameters["timeout"].int64_param = 1_000_000
    settings = mutated_json(random, _SETTINGS) if random.random() < 0.5 else _SETTINGS
    texts = {"text_input": b"One, two,", "sampling_parameters": json_bytes(random, settings)}
    contents = {name: ("BYTES", pack_texts([text])) for name, text in texts.items()}
    contents |= {name: ("BOOL", b"\1") for name in _FLAGS if random.random() < 0.3}
    for name, (datatype, raw) in contents.items():
        request.inputs.add(name=name, datatype=datatype, shape=[1])
        request.raw_input_contents.append(mutated(random, raw) if random.random() < 0.1 else raw)
    if random.random() < 0.2:
        _send_in_fields(request)
    for _ in range(random.choice((0, 0, 0, 1, 1, 2))):
        mutate_message(random, request)
    content = request.SerializeToString(deterministic=True)
    return mutated(random, content) if random.random() < 0.15 else content


def read_infer_request(content: bytes, _folder: Path) -> None:
    """Translates a request and checks it as the core does.

    Raises:
        DecodeError, InvalidRequestError, UnknownModelError: as a router refuses it.
    """
    request = pb.ModelInferRequest.FromString(content)
    try:
        asked = translated(request)
        _check(asked)
    except InvalidRequestError as error:
        assert error.field and str(error).startswith(error.field), f"the message does not name its field: {error}"
        assert not error.field.startswith("sampling."), f"this is our name of a field, and not the client's: {error}"
        status_metadata(error, code=3, message=status_message(error))
        raise
    assert 1 <= asked.form.num_sequences <= 64
    assert asked.form.outputs, "an answer without outputs"


def _check(asked: TranslatedRequest) -> None:
    try:
        check_request(asked.generate)
    except InvalidRequestError as error:
        raise asked.in_clients_words(error) from error


def _send_in_fields(request: pb.ModelInferRequest) -> None:
    """The contents of all tensors in their own fields."""
    for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        if tensor.datatype == "BOOL":
            tensor.contents.bool_contents.append(raw == b"\1")
        else:
            tensor.contents.bytes_contents.append(raw[4:])
    request.ClearField("raw_input_contents")


OPEN_INFERENCE = FuzzTarget(
    name="open-inference",
    make=make_infer_request,
    run=read_infer_request,
    documented=(DecodeError, InvalidRequestError, UnknownModelError),
)
