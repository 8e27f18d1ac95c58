"""Other people's clients: bytes → ModelInferRequest → tensors and parameters → our request, and its whole way."""

import struct
from pathlib import Path
from random import Random

from google.protobuf.message import DecodeError

from shardline_cluster.errors import InvalidRequestError, UnknownModelError
from shardline_cluster.router.open_inference_request import translated
from shardline_protos import open_inference_pb2 as pb
from tests.fuzz.bytes_mutation import mutated
from tests.fuzz.json_mutation import json_bytes, mutated_json
from tests.fuzz.message_mutation import mutate_message
from tests.fuzz.request_target import read_request
from tests.fuzz.target import FuzzTarget

_SETTINGS = {
    "max_tokens": 16,
    "temperature": 0.5,
    "top_p": "0.9",
    "n": 2,
    "stop": ["END"],
    "logprobs": 1,
    "seed": 7,
    "ignore_eos": False,
    "bad_words": ["no"],
    "logit_bias": {"65": -1.0},
}


def _text(content: bytes) -> bytes:
    return struct.pack("<I", len(content)) + content


def make_infer(random: Random) -> bytes:
    """A good request with raw or typed contents, then some changes anywhere in it."""
    settings = json_bytes(random, mutated_json(random, _SETTINGS) if random.random() < 0.4 else _SETTINGS)
    inputs = [("text_input", "BYTES", b"One, two,"), ("sampling_parameters", "BYTES", settings)]
    flags = [("stream", b"\1"), ("return_logprobs", b"\1"), ("exclude_input_in_output", b"\0")]
    request = pb.ModelInferRequest(model_name="m", id="7")
    request.parameters["priority"].int64_param = 3
    is_raw = random.random() < 0.5
    for name, datatype, content in [*inputs, *((name, "BOOL", flag) for name, flag in flags)]:
        tensor = request.inputs.add(name=name, datatype=datatype, shape=[1])
        if is_raw:
            raw = _text(content) if datatype == "BYTES" else content
            request.raw_input_contents.append(mutated(random, raw) if random.random() < 0.1 else raw)
        elif datatype == "BYTES":
            tensor.contents.bytes_contents.append(content)
        else:
            tensor.contents.bool_contents.append(content == b"\1")
    for _ in range(random.choice((0, 0, 1, 1, 2))):
        mutate_message(random, random.choice((request, *request.inputs)))
    content = request.SerializeToString()
    return mutated(random, content) if random.random() < 0.15 else content


def read_infer(content: bytes, folder: Path) -> None:
    """Translates it and takes what comes of it as far as a scheduler.

    Raises:
        DecodeError, InvalidRequestError, UnknownModelError: as a router refuses it.
    """
    understood = translated(pb.ModelInferRequest.FromString(content))
    try:
        read_request(understood.generate.SerializeToString(), folder)
    except InvalidRequestError as error:
        raise understood.in_clients_words(error) from error


OPEN_INFERENCE = FuzzTarget(
    name="open-inference",
    make=make_infer,
    run=read_infer,
    documented=(DecodeError, InvalidRequestError, UnknownModelError),
)
