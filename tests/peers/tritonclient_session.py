"""What a user of tritonclient does with a router, run in an environment of its own: it imports nothing of ours.

    python tritonclient_session.py HOST:PORT API_KEY OUR_DESCRIPTOR

OUR_DESCRIPTOR is a file with our serialized FileDescriptorProto. Prints one JSON object: what was seen, by scene.
"""

import json
import queue
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from google.protobuf import descriptor_pb2
from tritonclient.grpc import model_config_pb2, service_pb2

MODEL = "simulated"
PATIENCE_S = 30
LONG = 3000  # tokens: a minute of the engine's time


def inputs(text: str, sampling: dict[str, Any] | None = None, **flags: bool) -> list[Any]:
    """Input tensors as tritonclient makes them of numpy's arrays."""
    texts = {"text_input": text} | ({} if sampling is None else {"sampling_parameters": json.dumps(sampling)})
    made = []
    for name, value in texts.items():
        made.append(triton.InferInput(name, [1], "BYTES"))
        made[-1].set_data_from_numpy(np.array([value.encode()], dtype=np.object_))
    for name, flag in flags.items():
        made.append(triton.InferInput(name, [1], "BOOL"))
        made[-1].set_data_from_numpy(np.array([flag]))
    return made


def texts(result: Any, name: str = "text_output") -> list[str] | None:
    """An output of texts; None where it is not there."""
    array = result.as_numpy(name)
    return None if array is None else [text.decode() for text in array]


class ShowsKey(triton.InferenceServerClientPlugin):  # type: ignore[misc]
    """Shows an API key with every call of a client."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: Any) -> None:
        """Adds the header."""
        request.headers["authorization"] = f"Bearer {self._key}"


class Stream:
    """A stream, and what came on it in order."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._seen: queue.Queue[tuple[Any, Any]] = queue.Queue()

    def ask(self, id_: str, made: list[Any], **options: Any) -> None:
        """Sends one request."""
        self._client.async_stream_infer(MODEL, made, request_id=id_, **options)

    def take(self) -> dict[str, Any]:
        """The next answer."""
        result, error = self._seen.get(timeout=PATIENCE_S)
        if error is not None:
            return {"error": str(error)}
        response = result.get_response()
        final = response.parameters["triton_final_response"].bool_param
        return {"id": response.id, "texts": texts(result), "final": final}

    def until_final(self, num_requests: int) -> list[dict[str, Any]]:
        """Everything until so many requests have ended."""
        seen: list[dict[str, Any]] = []
        while num_requests:
            seen.append(self.take())
            num_requests -= "error" in seen[-1] or seen[-1]["final"]
        return seen

    @contextmanager
    def open(self, *, cancel: bool = False) -> Iterator["Stream"]:
        """Opens it, and ends it: orderly, or with everything on it."""
        self._client.start_stream(lambda result, error: self._seen.put((result, error)))
        try:
            yield self
        finally:
            self._client.stop_stream(cancel_requests=cancel)


def questions(client: Any) -> dict[str, Any]:
    """What a server and its models say of themselves."""
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(MODEL),
        "other_ready": client.is_model_ready("other"),
        "server": client.get_server_metadata(as_json=True),
        "metadata": client.get_model_metadata(MODEL, model_version="1", as_json=True),
        "config": client.get_model_config(MODEL, as_json=True)["config"],
        "index": client.get_model_repository_index(as_json=True),
    }


def one_answer(client: Any) -> dict[str, Any]:
    """Unary inference, with every output there is."""
    asked = {"max_tokens": "6", "temperature": "0.5", "seed": 7, "n": 2}
    wanted = ["finish_reason", "cumulative_logprob", "logprobs", "num_input_tokens", "num_output_tokens"]
    result = client.infer(MODEL, inputs("hello", asked, **{f"return_{name}": True for name in wanted}), request_id="7")
    return {
        "id": result.get_response().id,
        "texts": texts(result),
        "finish": texts(result, "finish_reason"),
        "logprobs": [len(json.loads(text)) for text in texts(result, "logprobs") or ()],
        "cumulative": result.as_numpy("cumulative_logprob").tolist(),
        "num_input_tokens": result.as_numpy("num_input_tokens").tolist(),
        "num_output_tokens": result.as_numpy("num_output_tokens").tolist(),
    }


def typed_parameters(client: Any) -> list[str] | None:
    """Settings as parameters of the request, and one output by name."""
    made = inputs("hello", exclude_input_in_output=True)
    outputs = [triton.InferRequestedOutput("text_output")]
    parameters = {"max_tokens": 3, "temperature": 0.0, "ignore_eos": True}
    return texts(client.infer(MODEL, made, outputs=outputs, parameters=parameters, priority=3, timeout=60_000_000))


def a_refusal(client: Any) -> str:
    """The error of a wrong field."""
    try:
        client.infer(MODEL, inputs("hello", {"temperature": -1}))
    except triton.InferenceServerException as error:
        return f"{error.status()} {error.message()}"
    return "none"


def streams(client: Any) -> dict[str, Any]:
    """Two requests at once on one stream, one of them whole, and two wrong ones between them."""
    asked = {"max_tokens": 8, "seed": 7, "temperature": 0}
    with Stream(client).open() as stream:
        stream.ask("pieces", inputs("hello", asked, stream=True))
        stream.ask("wrong", inputs("hello", {"max_tokens": 0}, stream=True))
        stream.ask("whole", inputs("hello", asked, stream=False, exclude_input_in_output=True))
        stream.ask("unknown", inputs("hello", {"temprature": 1}))
        return {"seen": stream.until_final(4)}


def empty_final(client: Any) -> list[dict[str, Any]]:
    """A stream that asks for its end to be told by an answer of its own."""
    with Stream(client).open() as stream:
        stream.ask("e", inputs("hello", {"max_tokens": 3}, stream=True), enable_empty_final_response=True)
        return stream.until_final(1)


def cancelled(client: Any) -> dict[str, Any]:
    """Both places of the engine are taken by long requests; the stream is cancelled; a third request gets a place."""
    with Stream(client).open(cancel=True) as stream:
        for id_ in ("a", "b"):
            stream.ask(id_, inputs("hello", {"max_tokens": LONG, "ignore_eos": True}, stream=True))
        seen = {stream.take()["id"] for _ in range(10)}
    begun = time.monotonic()
    result = client.infer(
        MODEL, inputs("x", {"max_tokens": 1}, exclude_input_in_output=True), client_timeout=PATIENCE_S
    )
    return {"seen": sorted(seen), "texts": texts(result), "waited_s": time.monotonic() - begun}


def by_headers(endpoint: str, key: str) -> list[str]:
    """Calls that show a key, another one and none, each in its own headers."""
    told = []
    with triton.InferenceServerClient(endpoint) as client:
        for headers in ({"authorization": f"Bearer {key}"}, {"authorization": "Bearer another-key-of-length"}, {}):
            try:
                told.append(str(client.is_server_live(headers=headers)))
            except triton.InferenceServerException as error:
                told.append(str(error.status()))
    return told


def fields_of(files: list[descriptor_pb2.FileDescriptorProto]) -> dict[str, tuple[Any, ...]]:
    """Every field, enum value and method by its full name, with all that goes over the wire."""
    found: dict[str, tuple[Any, ...]] = {}

    def add(message: Any, path: str) -> None:
        for field in message.field:
            is_in_choice = field.HasField("oneof_index")
            found[f"{path}.{field.name}"] = (field.number, field.type, field.label, field.type_name, is_in_choice)
        for inner in message.nested_type:
            add(inner, f"{path}.{inner.name}")

    for file in files:
        for message in file.message_type:
            add(message, f"{file.package}.{message.name}")
        for enum in file.enum_type:
            found |= {f"{file.package}.{enum.name}.{value.name}": (value.number,) for value in enum.value}
        for service in file.service:
            for method in service.method:
                ends = (method.input_type, method.output_type, method.client_streaming, method.server_streaming)
                found[f"{file.package}.{service.name}/{method.name}"] = ends
    return found


def differences(our_descriptor: Path) -> dict[str, Any]:
    """What in our file is not as in tritonclient's, and how much there is."""
    theirs = [descriptor_pb2.FileDescriptorProto() for _ in range(2)]
    service_pb2.DESCRIPTOR.CopyToProto(theirs[0])
    model_config_pb2.DESCRIPTOR.CopyToProto(theirs[1])
    ours = fields_of([descriptor_pb2.FileDescriptorProto.FromString(our_descriptor.read_bytes())])
    known = fields_of(theirs)
    request = "inference.ModelInferRequest"
    return {
        "other": [f"{name}: {value} {known.get(name)}" for name, value in ours.items() if known.get(name) != value],
        "compared": len(ours),
        "missing_in_requests": [name for name in known if name.startswith(request) and name not in ours],
    }


def main() -> None:
    """Plays all scenes."""
    endpoint, key, our_descriptor = sys.argv[1:]
    with triton.InferenceServerClient(endpoint) as client:
        client.register_plugin(ShowsKey(key))
        scenes = (questions, one_answer, typed_parameters, a_refusal, streams, empty_final, cancelled)
        seen: dict[str, Any] = {scene.__name__: scene(client) for scene in scenes}
    seen["by_headers"] = by_headers(endpoint, key)
    seen["differences"] = differences(Path(our_descriptor))
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
