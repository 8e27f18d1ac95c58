"""The load against a scripted router: what is sent, what is measured, when it ends."""

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from benchmarks import serve_load
from benchmarks.serve_load import main, measure, parse_arguments
from shardline_protos import generation_pb2 as pb
from tests.cluster.client.conftest import StartRouter, start_router
from tests.cluster.client.dead_sockets import unused_address
from tests.cluster.client.scripted_router import Fault, ScriptedCluster, ScriptedRouter

__all__ = ["start_router"]

TEXT = "Hello, world!"


@pytest.fixture(autouse=True)
def _surroundings_without_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_load, "surroundings", lambda: {"commit": "c", "machine": {}})


def run_load(router: ScriptedRouter, *flags: str) -> dict[str, Any]:
    return asyncio.run(measure(parse_arguments(["--endpoint", router.address, *flags])))


def measured_requests(router: ScriptedRouter) -> list[pb.GenerateRequest]:
    return [request for method, request in router.calls if method == "Generate"]


def test_a_closed_loop_sends_its_number_and_reports_all(start_router: StartRouter) -> None:
    router = start_router()

    report = run_load(router, "--concurrency", "3", "--num-requests", "9", "--warm-up", "1")

    results = report["results"]
    assert (results["requests"], results["completed"], results["errors"]) == (9, 9, {})
    assert results["output_tokens"] == 9 * len(TEXT)
    assert results["time_to_first_token_ms"]["p50"] > 0
    assert len(measured_requests(router)) == 10
    assert report["configuration"]["concurrency"] == 3
    assert report["models"][0]["name"] == "scripted"
    assert len(report["load_average_before"]) == 3


def test_prompts_are_token_ids_of_the_asked_length_and_none_is_like_another(start_router: StartRouter) -> None:
    router = start_router()

    run_load(router, "--num-requests", "6", "--input-tokens", "20", "--output-tokens", "5", "--warm-up", "0")

    prompts = [tuple(request.token_ids.ids) for request in measured_requests(router)]
    assert {len(prompt) for prompt in prompts} == {20}
    assert len(set(prompts)) == 6
    sampling = measured_requests(router)[0].sampling
    assert (sampling.max_tokens, sampling.ignore_eos, sampling.temperature) == (5, True, 0.0)


def test_a_shared_prefix_is_shared(start_router: StartRouter) -> None:
    router = start_router()

    run_load(router, "--num-requests", "4", "--input-tokens", "20", "--shared-prefix", "15", "--warm-up", "0")

    prompts = [tuple(request.token_ids.ids) for request in measured_requests(router)]
    assert len({prompt[:15] for prompt in prompts}) == 1
    assert len(set(prompts)) == 4


def test_no_more_are_on_their_way_than_asked(start_router: StartRouter) -> None:
    router = start_router(pause_after=2)

    report = run_load(
        router, "--concurrency", "2", "--num-requests", "9", "--warm-up", "0", "--duration-s", "0.3", "--drain-s", "0.1"
    )

    assert len(measured_requests(router)) == 2
    assert report["results"]["errors"] == {"unfinished": 2}


def test_an_open_loop_does_not_wait_for_answers(start_router: StartRouter) -> None:
    router = start_router(pause_after=2)

    report = run_load(
        router, "--rate", "200", "--num-requests", "9", "--warm-up", "0", "--duration-s", "5", "--drain-s", "0.1"
    )

    assert len(measured_requests(router)) == 9
    assert report["results"]["errors"] == {"unfinished": 9}


def test_a_trace_is_played(start_router: StartRouter, tmp_path: Path) -> None:
    router = start_router()
    trace = tmp_path / "trace.csv"
    trace.write_text("0,5,7\n0.2,6,8\n")

    report = run_load(router, "--trace", str(trace), "--warm-up", "0")

    assert [(len(r.token_ids.ids), r.sampling.max_tokens) for r in measured_requests(router)] == [(5, 7), (6, 8)]
    assert report["results"]["duration_s"] >= 0.2


def test_errors_are_counted_by_kind_and_are_an_exit_code(
    start_router: StartRouter, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = Fault(code=grpc.StatusCode.RESOURCE_EXHAUSTED, details="full", retry_after_ms=10)
    well = Fault(code=None)  # the question for the models comes first
    router = start_router(faults=[well, refusal, Fault(after=5)])

    code = main(["--endpoint", router.address, "--num-requests", "4", "--concurrency", "1", "--warm-up", "0"])

    results = json.loads(capsys.readouterr().out)["results"]
    assert code == 1
    assert (results["completed"], results["errors"]) == (3, {"QueueFullError": 1})


def test_requests_that_end_badly_are_errors(start_router: StartRouter) -> None:
    router = start_router(ScriptedCluster(["x"], state=pb.REQUEST_STATE_FAILED, error="three crashes"))

    report = run_load(router, "--num-requests", "2", "--warm-up", "0")

    assert report["results"]["errors"] == {"FAILED": 2}


def test_the_report_can_go_to_a_file(
    start_router: StartRouter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "result.json"

    assert main(["--endpoint", start_router().address, "--num-requests", "2", "--out", str(out)]) == 0

    assert json.loads(out.read_text())["results"]["completed"] == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("flags", [["--trace", "/no/such/file"], []])
def test_what_cannot_be_measured_is_one_line(
    flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve_load, "PATIENCE_S", 0.2)

    assert main(["--endpoint", unused_address(), *flags]) == 1

    assert capsys.readouterr().err.startswith("serve_load: ")


def test_eight_at_a_time_is_what_is_measured_where_nothing_is_said() -> None:
    arguments = parse_arguments([])

    assert (arguments.concurrency, arguments.endpoint) == (8, ["127.0.0.1:50051"])
