"""What a request's input tensors hold, and how output tensors are written: raw bytes, or the contents' own fields.

Pure. Every input is one text or one truth value, so each tensor has the shape [1].
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from shardline_cluster.errors import SHOWN_CHARACTERS
from shardline_cluster.router.admission.field_checks import invalid
from shardline_cluster.router.open_inference.signature import INPUTS, TEXT_INPUT, Datatype, TensorSpec
from shardline_protos import open_inference_pb2 as pb

Tensor = pb.ModelInferRequest.InferInputTensor
Values = Sequence[str] | Sequence[int] | Sequence[float]

LENGTH = struct.Struct("<I")  # of a text in raw bytes, before it
_INPUTS = {spec.name: spec for spec in INPUTS}
_CONTENTS = {"BYTES": "bytes_contents", "BOOL": "bool_contents"}  # datatype → its field of the contents
_NUMBERS = {"UINT32": "I", "FP32": "f"}  # datatype → format of one number


@dataclass(frozen=True, slots=True)
class InputValues:
    """The values of the tensors that were sent, by name."""

    texts: dict[str, str]
    flags: dict[str, bool]


def input_values(request: pb.ModelInferRequest) -> InputValues:
    """All inputs of a request.

    Raises:
        InvalidRequestError: a tensor is not known, came twice or is missing, or has another datatype, shape or content.
    """
    values = InputValues({}, {})
    raws = _raw_contents(request)
    for index, (tensor, raw) in enumerate(zip(request.inputs, raws, strict=True)):
        spec = _checked_spec(tensor, index)
        if spec.name in values.texts or spec.name in values.flags:
            raise invalid(f"inputs[{index}].name", f"is {spec.name!r} for the second time", "send each input once")
        element = _element(tensor, spec.datatype) if raw is None else _raw_element(raw, spec)
        if isinstance(element, bool):
            values.flags[spec.name] = element
        else:
            values.texts[spec.name] = _text(element, spec.name)
    if TEXT_INPUT.name not in values.texts:
        raise invalid(TEXT_INPUT.name, "is missing", "send the prompt as an input of datatype BYTES and shape [1]")
    return values


def pack_texts(texts: Sequence[bytes]) -> bytes:
    """Texts in raw bytes: for each its length in four bytes, the lowest first, then itself."""
    return b"".join(LENGTH.pack(len(text)) + text for text in texts)


def unpack_texts(raw: bytes) -> list[bytes]:
    """The opposite of `pack_texts`.

    Raises:
        ValueError: the bytes end within a text, or within its length.
    """
    texts, position = [], 0
    while position < len(raw):
        begin = position + LENGTH.size
        if begin > len(raw):
            raise ValueError(f"{len(raw) - position} bytes are left where a length of {LENGTH.size} must stand")
        (length,) = LENGTH.unpack_from(raw, position)
        if length > len(raw) - begin:
            raise ValueError(f"a text of {length} bytes is announced, but {len(raw) - begin} bytes are left")
        texts.append(raw[begin : begin + length])
        position = begin + length
    return texts


def add_output(response: pb.ModelInferResponse, spec: TensorSpec, values: Values) -> None:
    """Appends a tensor with these values, in raw bytes."""
    response.outputs.add(name=spec.name, datatype=spec.datatype, shape=[len(values)])
    response.raw_output_contents.append(_packed(spec.datatype, values))


# --- pieces ----------------------------------------------------------------------------------------------------------


def _packed(datatype: Datatype, values: Values) -> bytes:
    if datatype == "BYTES":
        return pack_texts([str(value).encode() for value in values])
    return struct.pack(f"<{len(values)}{_NUMBERS[datatype]}", *values)


def _raw_contents(request: pb.ModelInferRequest) -> Sequence[bytes | None]:
    raws = request.raw_input_contents
    if not raws:
        return [None] * len(request.inputs)
    if len(raws) != len(request.inputs):
        raise invalid(
            "raw_input_contents",
            f"has {len(raws)} entries for {len(request.inputs)} inputs",
            "send one for each input, or the contents of every input in its own field `contents`",
        )
    for index, tensor in enumerate(request.inputs):
        if tensor.HasField("contents"):
            raise invalid(f"inputs[{index}].contents", "is set beside raw_input_contents", "send one of both")
    return list(raws)


def _checked_spec(tensor: Tensor, index: int) -> TensorSpec:
    spec = _INPUTS.get(tensor.name)
    if spec is None:
        shown = repr(tensor.name[:SHOWN_CHARACTERS])
        raise invalid(f"inputs[{index}].name", f"is {shown}, which no model has", f"inputs are: {', '.join(_INPUTS)}")
    if tensor.datatype != spec.datatype:
        raise invalid(f"{spec.name}.datatype", f"is {tensor.datatype[:SHOWN_CHARACTERS]!r}", f"must be {spec.datatype}")
    if tuple(tensor.shape) != spec.dims:
        raise invalid(
            f"{spec.name}.shape",
            f"is {list(tensor.shape[:8])}{'…' if len(tensor.shape) > 8 else ''}",
            "must be [1]: there is no batch dimension, send several requests, which are batched together",
        )
    for name in tensor.parameters:
        raise invalid(
            f"{spec.name}.parameters",
            f"holds {name[:SHOWN_CHARACTERS]!r}",
            "leave it out: shared memory is not supported",
        )
    return spec


def _element(tensor: Tensor, datatype: Datatype) -> bytes | bool:
    wanted = _CONTENTS[datatype]
    others = [field.name for field, _ in tensor.contents.ListFields() if field.name != wanted]
    if others:
        raise invalid(f"{tensor.name}.contents", f"has {others[0]}", f"{datatype} is sent in {wanted}")
    elements: Sequence[bytes | bool] = getattr(tensor.contents, wanted)
    if len(elements) != 1:
        raise invalid(
            f"{tensor.name}.contents", f"has {len(elements)} elements", "must have one, as the shape [1] says"
        )
    return elements[0]


def _raw_element(raw: bytes, spec: TensorSpec) -> bytes | bool:
    if spec.datatype == "BOOL":
        if raw not in (b"\0", b"\1"):
            raise invalid(spec.name, f"has the raw content {raw[:8]!r}", "must be one byte, 0 or 1")
        return raw == b"\1"
    try:
        texts = unpack_texts(raw)
    except ValueError as error:
        remedy = "send the length of the text in four bytes, the lowest first, then the text in UTF-8"
        raise invalid(spec.name, f"has a raw content that is malformed ({error})", remedy) from error
    if len(texts) != 1:
        raise invalid(spec.name, f"has {len(texts)} texts in its raw content", "must have one")
    return texts[0]


def _text(element: bytes, name: str) -> str:
    try:
        return element.decode()
    except UnicodeDecodeError as error:
        what = f"is no UTF-8 at byte {error.start} (0x{element[error.start]:02x})"
        raise invalid(name, what, "send text in UTF-8") from error
