"""Deployments are made, changed and taken away in words that name what is wrong; replicas are listed and drained."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shardline_cluster.errors import (
    ConfigurationError,
    InvalidRequestError,
    LaneNotEmptyError,
    QueueUnavailableError,
    ReplicaNotReadyError,
    ShardlineError,
    UnknownDeploymentError,
    UnknownReplicaError,
)
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.deployment_plan import WantedModel, plan_deployment
from shardline_cluster.fleet.fleet_report import DeploymentReport, FleetReport, PlaceReport
from shardline_cluster.fleet.json_encoding import to_json
from shardline_cluster.fleet.kept_records import KeptRecords
from shardline_cluster.fleet.memory_fleet_report import MemoryFleetReportStore
from shardline_cluster.fleet.memory_record_store import MemoryRecordStore
from shardline_cluster.fleet.replica_state import ReplicaState, ReplicaStatus
from shardline_cluster.queue.answers import InboxKind
from shardline_cluster.queue.calls import ClaimCall, Member, MemberRole
from shardline_cluster.queue.memory_request_queue import MemoryRequestQueue, MemoryServer
from shardline_cluster.queue.request_ids import draw_request_id
from shardline_cluster.router.admin.deployment_administration import DeploymentAdministration
from shardline_protos import admin_pb2 as pb
from tests.cluster.queue.lane_calls import a_submission

NOW_MS = 1_800_000_000_000


class _Bench:
    """An administration over twins in memory."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS
        self.server = MemoryServer(now_ms=lambda: self.now_ms)
        self.store = MemoryRecordStore[Deployment](now_ms=lambda: NOW_MS)
        self.reports = MemoryFleetReportStore()
        self.noticed = 0
        self.digest = "0123456789abcdef"
        self.administration = self.new_administration()

    def new_administration(self) -> DeploymentAdministration:
        return DeploymentAdministration(
            KeptRecords(self.store, now_ms=lambda: NOW_MS),
            self.reports,
            open_queue=self.queue,
            plan=self.plan,
            notice=self.notice,
            cluster="east",
            now_ms=lambda: NOW_MS,
        )

    def queue(self, lane: str) -> MemoryRequestQueue:
        return MemoryRequestQueue(self.server, lane)

    def plan(self, wanted: WantedModel, say: Callable[[str], None]) -> Deployment:
        say(f"looking for {wanted.model}")
        planned = plan_deployment(wanted, cache_folder=Path("/nowhere"), say=say)
        return replace(planned, weights_digest=self.digest, lane=f"{wanted.name}-{self.digest[:8]}")

    async def notice(self) -> None:
        self.noticed += 1

    async def apply(self, name: str = "tiny", *, max_model_len: int = 128, **fields: object) -> pb.Deployment:
        options = pb.EngineOptions(engine="simulated", max_model_len=max_model_len)
        request = pb.ApplyDeploymentRequest(name=name, options=options, **fields)  # type: ignore[arg-type]
        events = [event async for event in self.administration.apply(request)]
        assert [event.progress for event in events[:-1]] == ["looking for simulated"]
        return events[-1].deployment

    async def deployments(self) -> dict[str, pb.Deployment]:
        listed = await self.administration.list_deployments(pb.ListDeploymentsRequest())
        return {deployment.name: deployment for deployment in listed.deployments}

    async def register(self, incarnation: str, place: str, state: ReplicaState) -> None:
        lane = place.rpartition("-")[0]
        status = ReplicaStatus(deployment="tiny", replica=place, state=state)
        member = Member(incarnation=incarnation, role=MemberRole.LEADER, status=to_json(status))
        await self.queue(lane).register(member)

    async def inbox(self, incarnation: str, lane: str) -> list[InboxKind]:
        call = ClaimCall(incarnation=incarnation, number=1, nonce=b"n" * 8, free_slots=1, free_tokens=1, inbox_seen=0)
        return [entry.kind for entry in (await self.queue(lane).claim(call)).value.inbox]


async def _error(bench: _Bench, **fields: object) -> ShardlineError:
    request = pb.ApplyDeploymentRequest(**fields)  # type: ignore[arg-type]
    with pytest.raises(ShardlineError) as raised:
        async for _ in bench.administration.apply(request):
            pass
    assert await bench.store.all() == {}
    return raised.value


async def test_a_model_is_deployed_and_told_with_all_its_options() -> None:
    bench = _Bench()

    deployed = await bench.apply(replicas=2)

    assert (deployed.name, deployed.model, deployed.lane) == ("tiny", "simulated", "tiny-01234567")
    assert (deployed.replicas, deployed.ready_replicas, deployed.cluster) == (2, 0, "east")
    assert (deployed.max_model_len, deployed.options.max_num_seqs, deployed.options.dtype) == (128, 32, "auto")
    assert deployed.changed.ToMilliseconds() == NOW_MS
    assert await bench.deployments() == {"tiny": deployed}
    assert bench.noticed == 1


async def test_the_same_again_changes_nothing_and_no_number_keeps_the_number() -> None:
    bench = _Bench()
    await bench.apply(replicas=2)
    before = await bench.store.all()

    await bench.apply()
    await bench.apply(replicas=2)

    assert await bench.store.all() == before


async def test_other_weights_under_a_name_get_a_lane_of_their_own_and_the_old_one_is_remembered() -> None:
    bench = _Bench()
    await bench.apply()
    bench.digest = "fedcba9876543210"

    deployed = await bench.apply()

    record = (await bench.store.all())["tiny"].value
    assert record is not None
    assert deployed.lane == "tiny-fedcba98"
    assert [former.lane for former in record.former_lanes] == ["tiny-01234567"]
    assert len(await bench.deployments()) == 1


async def test_a_context_gets_shorter_only_where_no_request_could_be_longer() -> None:
    bench = _Bench()
    await bench.apply()
    queue = bench.queue("tiny-01234567")
    submission = a_submission("memory-0", id=draw_request_id(queue.lane), tenant="t", max_tokens=8, background=True)
    await queue.submit("router", 1, submission)

    with pytest.raises(
        LaneNotEmptyError, match=r"1 requests of tiny .* up to 128 tokens, but max_model_len is to be 64"
    ):
        await bench.apply(max_model_len=64)
    longer = await bench.apply(max_model_len=256)
    bench.now_ms += bench.server.terms.hold_ms
    await queue.cancel(submission.id, "t")
    shorter = await bench.apply(max_model_len=64)

    assert (longer.max_model_len, shorter.max_model_len) == (256, 64)


async def test_deployments_come_in_order_of_names_from_whoever_made_them() -> None:
    bench = _Bench()
    await bench.apply("b")
    await bench.new_administration().list_deployments(pb.ListDeploymentsRequest())
    bench.administration = bench.new_administration()
    await bench.apply("a")

    assert list(await bench.deployments()) == ["a", "b"]


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({}, "model", "model is ''.*name a .gguf file"),
        ({"model": "a\nb"}, "model", "model is"),
        ({"model": "x" * 5_000}, "model", "model is"),
        ({"model": "hf:a/b/c"}, "model", "hf:a/b/c"),
        ({"model": "m.gguf", "name": "a\tb"}, "name", "name is .* must have 1 to 200 characters"),
        ({"model": "m.gguf", "name": "n" * 201}, "name", "must have 1 to 200 characters"),
        ({"model": "m.gguf", "replicas": 1025}, "replicas", "replicas is 1025: must be 0 to 1024"),
        ({"model": "m.gguf", "options": pb.EngineOptions(engine="vllm")}, "options.engine", "one of shardline, simul"),
        ({"model": "m.gguf", "options": pb.EngineOptions(dtype="f8")}, "options.dtype", "one of auto, float32"),
        ({"model": "m.gguf", "options": pb.EngineOptions(device="tpu")}, "options.device", "cpu, cuda, or cuda:N"),
        (
            {"model": "m.gguf", "options": pb.EngineOptions(max_num_seqs=0)},
            "options.max_num_seqs",
            "is 0, but must be 1",
        ),
        ({"model": "m.gguf", "options": pb.EngineOptions(block_size=2**31 + 1)}, "options.block_size", "must be 1 to"),
        (
            {"options": pb.EngineOptions(engine="simulated", simulated_step_s=float("nan"))},
            "options.simulated_step_s",
            "is nan, but must be 0 to 3600",
        ),
        ({"model": "m.gguf", "options": pb.EngineOptions(engine="simulated")}, "model", "has a model of its own"),
    ],
)
async def test_a_wrong_field_is_named_with_its_bound_and_nothing_is_deployed(
    fields: dict[str, object], field: str, words: str
) -> None:
    error = await _error(_Bench(), **fields)

    assert isinstance(error, InvalidRequestError)
    assert error.field == field
    with pytest.raises(InvalidRequestError, match=words):
        raise error


async def test_a_model_that_is_not_there_is_told_in_words() -> None:
    error = await _error(_Bench(), model="/nowhere/absent.gguf")

    assert isinstance(error, ConfigurationError)
    assert "no such model" in str(error)


async def test_names_that_would_share_a_lane_are_refused() -> None:
    bench = _Bench()
    await bench.apply("tiny")
    with pytest.raises(ConfigurationError, match="too alike"):
        bench.plan = lambda wanted, say: replace(  # type: ignore[method-assign]
            plan_deployment(wanted, cache_folder=Path("/"), say=say), lane="tiny-01234567"
        )
        bench.administration = bench.new_administration()
        request = pb.ApplyDeploymentRequest(name="tiny!", options=pb.EngineOptions(engine="simulated"))
        async for _ in bench.administration.apply(request):
            pass


async def test_without_redis_nothing_is_planned() -> None:
    bench = _Bench()
    bench.store.is_down = True

    with pytest.raises(QueueUnavailableError):
        await bench.apply()


async def test_one_who_leaves_while_a_model_is_fetched_deploys_nothing() -> None:
    bench = _Bench()
    may_end = threading.Event()

    def slowly(wanted: WantedModel, say: Callable[[str], None]) -> Deployment:
        say("fetching")
        may_end.wait(20)
        return plan_deployment(wanted, cache_folder=Path("/"), say=say)

    bench.plan = slowly  # type: ignore[method-assign]
    administration = bench.new_administration()
    events = administration.apply(pb.ApplyDeploymentRequest(options=pb.EngineOptions(engine="simulated")))

    first = await anext(events)
    await events.aclose()
    may_end.set()

    assert first.progress == "fetching"
    assert await bench.store.all() == {}


async def test_scaling_changes_the_number_alone_and_zero_is_allowed() -> None:
    bench = _Bench()
    before = await bench.apply(replicas=2)

    scaled = await bench.administration.scale(pb.ScaleDeploymentRequest(name="tiny", replicas=0))

    assert scaled.replicas == 0
    scaled.replicas = 2
    scaled.changed.CopyFrom(before.changed)
    assert scaled == before


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (pb.ScaleDeploymentRequest(name="tiny"), "replicas is missing"),
        (pb.ScaleDeploymentRequest(name="tiny", replicas=1025), "must be 0 to 1024"),
    ],
)
async def test_a_wrong_number_of_replicas_is_refused(request_: pb.ScaleDeploymentRequest, words: str) -> None:
    bench = _Bench()
    await bench.apply(replicas=2)

    with pytest.raises(InvalidRequestError, match=words):
        await bench.administration.scale(request_)
    assert (await bench.deployments())["tiny"].replicas == 2


async def test_what_is_taken_away_is_gone_and_can_be_deployed_again() -> None:
    bench = _Bench()
    await bench.apply(replicas=2)

    await bench.administration.delete(pb.DeleteDeploymentRequest(name="tiny"))
    gone = await bench.deployments()
    again = await bench.apply()

    assert gone == {}
    assert again.replicas == 1


async def test_an_unknown_name_is_told_with_those_that_are_known() -> None:
    bench = _Bench()
    await bench.apply("tiny")
    words = "'absent' is not deployed; deployed are: tiny"

    with pytest.raises(UnknownDeploymentError, match=words):
        await bench.administration.delete(pb.DeleteDeploymentRequest(name="absent"))
    with pytest.raises(UnknownDeploymentError, match=words):
        await bench.administration.scale(pb.ScaleDeploymentRequest(name="absent", replicas=1))
    with pytest.raises(UnknownDeploymentError, match=words):
        await bench.administration.list_replicas(pb.ListReplicasRequest(deployment="absent"))


async def test_replicas_are_those_that_speak_and_the_places_that_nobody_fills() -> None:
    bench = _Bench()
    await bench.apply(replicas=2)
    await bench.register("a1", "tiny-01234567-0", ReplicaState.READY)
    place = PlaceReport(
        place="tiny-01234567-1", state=ReplicaState.FAILED, failures=2, reason="no memory", next_start_s=1.5
    )
    report = DeploymentReport(name="tiny", lane="tiny-01234567", places=(place,))
    await bench.reports.put(FleetReport(cluster="east", controller="c", written_at=0.0, deployments=(report,)))

    replicas = (await bench.administration.list_replicas(pb.ListReplicasRequest())).replicas

    ready, failed = replicas
    assert (ready.deployment, ready.place, ready.incarnation, ready.state) == ("tiny", "tiny-01234567-0", "a1", "READY")
    assert not ready.HasField("next_start")
    assert (failed.place, failed.incarnation, failed.state) == ("tiny-01234567-1", "", "FAILED")
    assert (failed.failures, failed.reason, failed.next_start.ToMilliseconds()) == (2, "no memory", 1500)
    assert (await bench.deployments())["tiny"].ready_replicas == 1


async def test_a_ready_replica_is_asked_to_drain_by_the_beginning_of_its_incarnation() -> None:
    bench = _Bench()
    await bench.apply()
    await bench.register("abc1", "tiny-01234567-0", ReplicaState.READY)
    await bench.register("abd2", "tiny-01234567-1", ReplicaState.READY)

    drained = await bench.administration.drain(pb.DrainReplicaRequest(incarnation="abc"))

    assert drained.incarnation == "abc1"
    assert await bench.inbox("abc1", "tiny-01234567") == [InboxKind.DRAIN]
    assert await bench.inbox("abd2", "tiny-01234567") == []


@pytest.mark.parametrize(
    ("beginning", "error", "words"),
    [
        ("", InvalidRequestError, "incarnation is empty"),
        ("ab", InvalidRequestError, r"more than one begins so \(abc1, abd2\)"),
        ("x", UnknownReplicaError, "begins with 'x'"),
        ("abd", ReplicaNotReadyError, "abd2 in tiny-01234567-1 is LOADING"),
    ],
)
async def test_what_cannot_be_drained_is_told(beginning: str, error: type[Exception], words: str) -> None:
    bench = _Bench()
    await bench.apply()
    await bench.register("abc1", "tiny-01234567-0", ReplicaState.READY)
    await bench.register("abd2", "tiny-01234567-1", ReplicaState.LOADING)

    with pytest.raises(error, match=words):
        await bench.administration.drain(pb.DrainReplicaRequest(incarnation=beginning))
