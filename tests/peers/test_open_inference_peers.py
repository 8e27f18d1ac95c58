"""Other people's clients and a real `serve`: tritonclient with its own protocol files, grpcurl through reflection."""

import base64
import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shardline_protos import open_inference_pb2
from tests.end_to_end.served_cluster import ServedCluster, served_cluster
from tests.peers.peer_programs import peer_program, run_peer

pytestmark = [pytest.mark.process, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(120)]

KEY = "key-of-the-peers-0123456789"
SIMULATED = ("--engine", "simulated", "--launcher", "local", "--simulated-step-s", "0.02", "--max-num-seqs", "2")
SESSION = Path(__file__).with_name("tritonclient_session.py")
SERVICE = "inference.GRPCInferenceService"


@pytest.fixture(scope="module")
def cluster() -> Iterator[ServedCluster]:
    peer_program("python")  # before anything is started for it
    with served_cluster(*SIMULATED, "--api-key", KEY) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def seen(cluster: ServedCluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Everything that the session with tritonclient saw."""
    descriptor = tmp_path_factory.mktemp("descriptors") / "open_inference.binpb"
    descriptor.write_bytes(open_inference_pb2.DESCRIPTOR.serialized_pb)
    told = run_peer("python", str(SESSION), cluster.endpoint, KEY, str(descriptor))
    return dict(json.loads(next(line for line in told.splitlines() if line.startswith("{"))))


def test_our_protocol_file_is_theirs_as_far_as_it_goes(seen: dict[str, Any]) -> None:
    assert seen["differences"]["other"] == []
    assert seen["differences"]["missing_in_requests"] == []
    assert seen["differences"]["compared"] > 100


def test_tritonclient_reads_what_server_and_model_say(seen: dict[str, Any]) -> None:
    told = seen["questions"]

    assert [told[name] for name in ("live", "ready", "model_ready", "other_ready")] == [True, True, True, False]
    assert told["server"]["name"] == "shardline"
    assert (told["metadata"]["name"], told["metadata"]["versions"]) == ("simulated", ["1"])
    assert told["metadata"]["inputs"][0] == {"name": "text_input", "datatype": "BYTES", "shape": ["1"]}
    assert told["config"]["model_transaction_policy"] == {"decoupled": True}
    assert told["config"]["output"][0] == {"name": "text_output", "data_type": "TYPE_STRING", "dims": ["-1"]}
    assert told["index"]["models"] == [{"name": "simulated", "version": "1", "state": "READY"}]


def test_tritonclient_gets_one_answer_with_every_output(seen: dict[str, Any]) -> None:
    told = seen["one_answer"]

    assert told["id"] == "7"
    assert [text[:5] for text in told["texts"]] == ["hello", "hello"]
    assert [len(text) for text in told["texts"]] == [11, 11]
    assert told["texts"][0] != told["texts"][1]
    assert (told["finish"], told["logprobs"]) == (["length", "length"], [6, 6])
    assert (told["num_input_tokens"], told["num_output_tokens"]) == ([5], [6, 6])
    assert all(total < 0 for total in told["cumulative"])
    assert [len(text) for text in seen["typed_parameters"]] == [3]


def test_tritonclient_reads_why_a_request_was_refused(seen: dict[str, Any]) -> None:
    expected = "StatusCode.INVALID_ARGUMENT sampling_parameters.temperature is -1.0: must be 0 … 10, 0 is greedy"
    assert seen["a_refusal"] == expected


def test_tritonclient_is_let_in_by_a_header(seen: dict[str, Any]) -> None:
    assert seen["by_headers"] == ["True", "StatusCode.UNAUTHENTICATED", "StatusCode.UNAUTHENTICATED"]


def test_requests_on_one_stream_of_tritonclient_do_not_disturb_each_other(seen: dict[str, Any]) -> None:
    told = seen["streams"]["seen"]
    errors = sorted(answer["error"] for answer in told if "error" in answer)
    pieces = [answer for answer in told if answer.get("id") == "pieces"]
    (whole,) = (answer for answer in told if answer.get("id") == "whole")

    assert len(errors) == 2
    assert "[request id: unknown] INVALID_ARGUMENT: sampling_parameters.temprature is not known" in errors[0]
    assert "[request id: wrong] INVALID_ARGUMENT: sampling_parameters.max_tokens is 0" in errors[1]
    assert len(pieces) > 1
    assert [answer["final"] for answer in pieces] == [False] * (len(pieces) - 1) + [True]
    assert "".join(answer["texts"][0] for answer in pieces) == whole["texts"][0]
    assert (len(whole["texts"][0]), whole["final"]) == (8, True)


def test_the_end_is_told_by_itself_where_tritonclient_asks_for_that(seen: dict[str, Any]) -> None:
    *answers, last = seen["empty_final"]

    assert len("".join(answer["texts"][0] for answer in answers)) == 3
    assert not any(answer["final"] for answer in answers)
    assert last == {"id": "e", "texts": None, "final": True}


def test_a_cancelled_stream_of_tritonclient_frees_the_places_of_its_requests(
    seen: dict[str, Any], cluster: ServedCluster
) -> None:
    told = seen["cancelled"]

    assert told["seen"] == ["a", "b"]
    assert len(told["texts"][0]) == 1
    assert told["waited_s"] < 30, "two requests of a minute held it up"
    (deployment,) = json.loads(cluster.command("status", "--name", cluster.name, "--json").stdout)["deployments"]
    assert (deployment["lane"]["running_requests"], deployment["lane"]["waiting_requests"]) == (0, 0)


packaged = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="the packaged grpcurl is for Linux on x86-64"
)

# --- grpcurl ---------------------------------------------------------------------------------------------------------


def _grpcurl(cluster: ServedCluster, *words: str, data: dict[str, Any] | None = None, expect: int = 0) -> str:
    flags = [] if data is None else ["-d", json.dumps(data)]
    return run_peer(
        "grpcurl", "-plaintext", "-H", f"authorization: Bearer {KEY}", *flags, cluster.endpoint, *words, expect=expect
    )


def _text_input(text: str) -> dict[str, Any]:
    contents = {"bytes_contents": [base64.b64encode(text.encode()).decode()]}
    return {"name": "text_input", "datatype": "BYTES", "shape": [1], "contents": contents}


@packaged
def test_grpcurl_lists_and_describes_the_services(cluster: ServedCluster) -> None:
    services = _grpcurl(cluster, "list").split()
    methods = _grpcurl(cluster, "list", SERVICE).split()
    described = _grpcurl(cluster, "describe", SERVICE)
    message = _grpcurl(cluster, "describe", ".inference.ModelInferRequest")

    assert {SERVICE, "shardline.v1.Generation", "grpc.health.v1.Health"} <= set(services)
    assert f"{SERVICE}.ModelStreamInfer" in methods
    assert "rpc ModelStreamInfer ( stream .inference.ModelInferRequest )" in described
    assert "repeated bytes raw_input_contents = 7;" in message


@packaged
def test_grpcurl_infers_and_generates(cluster: ServedCluster) -> None:
    asked = {"inputs": [_text_input("hey")], "parameters": {"max_tokens": {"int64_param": "4"}}}

    inferred = json.loads(_grpcurl(cluster, f"{SERVICE}/ModelInfer", data=asked))
    asked_too = {"text": "hey", "sampling": {"max_tokens": 4}}
    generated = _grpcurl(cluster, "shardline.v1.Generation/Generate", data=asked_too)

    assert inferred["model_name"] == "simulated"
    (raw,) = inferred["raw_output_contents"]
    length, text = base64.b64decode(raw)[:4], base64.b64decode(raw)[4:]
    assert (int.from_bytes(length, "little"), len(text), text[:3]) == (7, 7, b"hey")
    assert '"state": "REQUEST_STATE_DONE"' in generated


@packaged
def test_grpcurl_shows_why_a_request_was_refused(cluster: ServedCluster) -> None:
    told = _grpcurl(cluster, f"{SERVICE}/ModelInfer", data={"inputs": [_text_input("")]}, expect=67)

    assert "Code: InvalidArgument" in told
    assert "text_input is empty: send at least one character" in told
