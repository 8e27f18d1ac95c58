"""Requests of the Open Inference Protocol, as clients build them, and what answers hold."""

import json
import struct
from collections.abc import Sequence
from typing import Any

from shardline_cluster.router.open_inference.tensors import pack_texts, unpack_texts
from shardline_protos import open_inference_pb2 as oip

FORMATS = {"UINT32": "I", "FP32": "f"}


def infer_request(
    text: str | bytes | None = "hi",
    *,
    sampling: dict[str, Any] | str | None = None,
    parameters: dict[str, Any] | None = None,
    outputs: Sequence[str] = (),
    model: str = "",
    version: str = "",
    id: str = "",  # noqa: A002
    raw: bool = True,
    **flags: bool,
) -> oip.ModelInferRequest:
    """A request; `flags` are its BOOL inputs. `raw`: contents as tritonclient sends them, else as plain clients do."""
    request = oip.ModelInferRequest(model_name=model, model_version=version, id=id)
    texts: dict[str, str | bytes | None] = {"text_input": text}
    if sampling is not None:
        texts["sampling_parameters"] = sampling if isinstance(sampling, str) else json.dumps(sampling)
    for name, value in texts.items():
        if value is not None:
            _add(request, name, "BYTES", value.encode() if isinstance(value, str) else value, raw=raw)
    for name, flag in flags.items():
        _add(request, name, "BOOL", flag, raw=raw)
    for name, parameter in (parameters or {}).items():
        request.parameters[name].CopyFrom(_parameter(parameter))
    for name in outputs:
        request.outputs.add(name=name)
    return request


def tensor_of(response: oip.ModelInferResponse, name: str) -> list[Any]:
    """The elements of an output; texts as str."""
    index = [output.name for output in response.outputs].index(name)
    output, raw = response.outputs[index], response.raw_output_contents[index]
    if output.datatype == "BYTES":
        elements: list[Any] = [text.decode() for text in unpack_texts(raw)]
    else:
        elements = list(struct.unpack(f"<{len(raw) // 4}{FORMATS[output.datatype]}", raw))
    assert [len(elements)] == list(output.shape)
    return elements


def texts_of(response: oip.ModelInferResponse) -> list[Any]:
    """Its text_output."""
    return tensor_of(response, "text_output")


def is_final(response: oip.ModelInferResponse) -> bool:
    """Whether it says that nothing follows."""
    return response.parameters["triton_final_response"].bool_param


def _add(request: oip.ModelInferRequest, name: str, datatype: str, value: bytes | bool, *, raw: bool) -> None:
    tensor = request.inputs.add(name=name, datatype=datatype, shape=[1])
    if raw:
        content = bytes([value]) if isinstance(value, bool) else pack_texts([value])
        request.raw_input_contents.append(content)
    elif isinstance(value, bool):
        tensor.contents.bool_contents.append(value)
    else:
        tensor.contents.bytes_contents.append(value)


def _parameter(value: Any) -> oip.InferParameter:
    if isinstance(value, bool):
        return oip.InferParameter(bool_param=value)
    if isinstance(value, int):
        return oip.InferParameter(int64_param=value)
    if isinstance(value, float):
        return oip.InferParameter(double_param=value)
    return oip.InferParameter() if value is None else oip.InferParameter(string_param=value)
