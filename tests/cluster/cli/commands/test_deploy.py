"""`deploy`, `scale`, `drain` and `undeploy`: what they ask of a router, and what they tell people."""

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from shardline_cluster.cli.commands import deploy, drain, scale, undeploy
from shardline_cluster.cli.main import main
from shardline_protos import admin_pb2 as pb

LANE = "tiny-1a2b"
DEPLOYED = pb.Deployment(name="tiny", lane=LANE, cluster="east", replicas=1)


class _Calls:
    """In the place of a router: answers as it was told to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.deployed = pb.Deployment()
        self.deployed.CopyFrom(DEPLOYED)
        self.rounds: list[list[pb.Replica]] = [[_replica("READY")]]  # of ListReplicas, the last one for ever

    def call(self, method: str, request: Any) -> Any:
        self.asked.append((method, request))
        if method == "ListReplicas":
            replicas = self.rounds.pop(0) if len(self.rounds) > 1 else self.rounds[0]
            return pb.ListReplicasResponse(replicas=replicas)
        if method == "DrainReplica":
            return pb.DrainReplicaResponse(incarnation=request.incarnation)
        return pb.Deployment(name=request.name, replicas=3, ready_replicas=1)

    def stream(self, method: str, request: Any) -> Iterator[pb.ApplyDeploymentEvent]:
        self.asked.append((method, request))
        yield pb.ApplyDeploymentEvent(progress="looking for it")
        yield pb.ApplyDeploymentEvent(deployment=self.deployed)


def _replica(state: str, **fields: Any) -> pb.Replica:
    return pb.Replica(**{"deployment": "tiny", "place": f"{LANE}-0", "incarnation": "abc1", "state": state, **fields})


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> _Calls:
    calls = _Calls()

    @contextmanager
    def found(_: argparse.Namespace) -> Iterator[_Calls]:
        yield calls

    for command in (deploy, drain, scale, undeploy):
        monkeypatch.setattr(command, "admin_calls", found)
    monkeypatch.setattr(deploy, "POLL_S", 0.0)
    return calls


def test_deploying_tells_what_happens_until_a_replica_is_ready(
    calls: _Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    calls.rounds = [[], [_replica("LOADING")], [_replica("LOADING")], [_replica("READY")]]

    assert main(["deploy", "m.gguf", "--as", "tiny", "--max-num-seqs", "7"]) == 0

    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        "looking for it",
        "deployed tiny in the cluster east; replicas wanted: 1",
        f"{LANE}-0: loading the model",
        f"{LANE}-0: ready",
        'ready: shardline generate --model tiny "Once upon a time"',
    ]
    request = calls.asked[0][1]
    assert (request.name, request.options.max_num_seqs, request.HasField("replicas")) == ("tiny", 7, False)


def test_the_shape_of_a_replica_with_several_ranks_is_told(calls: _Calls, capsys: pytest.CaptureFixture[str]) -> None:
    calls.rounds = [[_replica("READY", shape="tp=1 pp=3")]]

    assert main(["deploy", "m.gguf", "--pipeline-parallel-size", "3"]) == 0

    assert f"{LANE}-0: ready as tp=1 pp=3" in capsys.readouterr().err.splitlines()


def test_a_path_is_one_from_everywhere_and_other_sources_are_as_given(
    calls: _Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for model in ("m.gguf", "smollm2:135m", "hf:org/name"):
        main(["deploy", model])
    main(["deploy", "--engine", "simulated"])

    asked = [request.model for method, request in calls.asked if method == "ApplyDeployment"]
    assert asked == [str(tmp_path / "m.gguf"), "smollm2:135m", "hf:org/name", ""]


def test_one_that_never_comes_up_is_told_with_the_reason(calls: _Calls, capsys: pytest.CaptureFixture[str]) -> None:
    calls.rounds = [[_replica("FAILED", incarnation="", failures=3, reason="no memory")]]

    assert main(["deploy", "m.gguf"]) == 1

    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("shardline: tiny is deployed, but does not come up: no memory;")
    assert "shardline undeploy tiny" in last


def test_where_no_controller_looks_people_are_told_once(
    calls: _Calls, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deploy, "SILENCE_S", -1.0)
    calls.rounds = [[], [], [_replica("READY")]]

    assert main(["deploy", "m.gguf"]) == 0

    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("waiting: no controller")]
    assert len(told) == 1
    assert "'east'" in told[0]


def test_replicas_of_the_settings_before_do_not_count_as_ready(
    calls: _Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    calls.rounds = [[_replica("READY", outdated=True)], [_replica("READY", incarnation="abc2")]]

    assert main(["deploy", "m.gguf"]) == 0

    assert len([method for method, _ in calls.asked if method == "ListReplicas"]) == 2


def test_nobody_waits_for_no_replicas_or_where_it_is_not_wanted(
    calls: _Calls, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["deploy", "m.gguf", "--no-wait", "--json"]) == 0
    calls.deployed.replicas = 0
    assert main(["deploy", "m.gguf", "--replicas", "0"]) == 0

    assert [method for method, _ in calls.asked] == ["ApplyDeployment", "ApplyDeployment"]
    assert json.loads(capsys.readouterr().out) == {"name": "tiny", "lane": LANE, "cluster": "east", "replicas": 1}


def test_scaling_tells_what_is_wanted_and_what_is_there(calls: _Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scale", "tiny", "3"]) == 0

    assert calls.asked == [("ScaleDeployment", pb.ScaleDeploymentRequest(name="tiny", replicas=3))]
    assert capsys.readouterr().out == "tiny: replicas wanted 3, ready now 1\n"


@pytest.mark.parametrize("number", ["-1", "1025", "many"])
def test_a_wrong_number_is_wrong_usage(number: str, calls: _Calls) -> None:
    assert main(["scale", "tiny", number]) == 2
    assert calls.asked == []


@pytest.mark.parametrize(("named", "incarnation"), [(f"{LANE}-0", "abc1"), ("abc", "abc")])
def test_a_replica_is_drained_by_its_name_or_by_its_incarnation(named: str, incarnation: str, calls: _Calls) -> None:
    assert main(["drain", named]) == 0

    assert calls.asked[-1] == ("DrainReplica", pb.DrainReplicaRequest(incarnation=incarnation))


def test_several_deployments_are_taken_away_in_one_go(calls: _Calls, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["undeploy", "a", "b"]) == 0

    assert [request.name for _, request in calls.asked] == ["a", "b"]
    assert capsys.readouterr().out == "a is deployed no longer\nb is deployed no longer\n"
