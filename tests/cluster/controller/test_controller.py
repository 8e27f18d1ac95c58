"""The controller's rounds on the queue in memory and a pretended launcher: what it starts, tells, survives."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest

from shardline_cluster.controller.controller import Controller
from shardline_cluster.controller.controller_config import ControllerConfig
from shardline_cluster.controller.launcher_calls import LauncherBusyError
from shardline_cluster.controller.replica_launcher import ReplicaObservation
from shardline_cluster.controller.replica_place import ReplicaPlace
from shardline_cluster.errors import QueueUnavailableError
from shardline_cluster.fleet.controller_lease import LEASE_S, NotInChargeError
from shardline_cluster.fleet.deployment import Deployment, EngineOptions
from shardline_cluster.fleet.fleet_report import FleetReport
from shardline_cluster.fleet.json_encoding import to_json
from shardline_cluster.fleet.kept_records import KeptRecords
from shardline_cluster.fleet.memory_controller_lease import LeaseTable, MemoryControllerLease
from shardline_cluster.fleet.memory_fleet_report import MemoryFleetReportStore
from shardline_cluster.fleet.memory_record_store import MemoryRecordStore
from shardline_cluster.fleet.redeployment import FORMER_LANE_MS, redeployed
from shardline_cluster.fleet.replica_state import ReplicaState
from shardline_cluster.queue.answers import Snapshot, TooLarge
from shardline_cluster.queue.calls import ClaimCall, Member, MemberRole
from shardline_cluster.queue.memory_request_queue import MemoryRequestQueue, MemoryServer
from shardline_cluster.queue.records import RequestState, Submission
from shardline_cluster.queue.request_ids import draw_request_id
from shardline_cluster.queue.terms import QueueTerms
from shardline_workers.memory_budget import RUNTIME_BYTES
from tests.cluster.controller.fleets import PretendedLauncher, deployment
from tests.cluster.controller.rank_clusters import a_node, sharded
from tests.cluster.fleet.deploying import deploy, undeploy
from tests.cluster.queue.lane_calls import a_submission

LANE = "tiny-1a2b"
TERMS = QueueTerms()


class _Cluster:
    """A controller with everything around it, and a clock that only `wait` moves."""

    def __init__(self, *, call_deadline_s: float = 10.0) -> None:
        self.now_s = 1_000.0
        self.server = MemoryServer(TERMS, now_ms=lambda: int(self.now_s * 1000))
        self.queue = MemoryRequestQueue(self.server, LANE)
        self.store = MemoryRecordStore[Deployment]()
        self.reports = MemoryFleetReportStore()
        self.launcher = PretendedLauncher()
        self.config = ControllerConfig(
            redis_url="unix:///nowhere", prefix="test", terms=TERMS, call_deadline_s=call_deadline_s
        )
        self.leases = LeaseTable(lambda: self.now_s)
        self.controller = self.new_controller()

    def new_controller(self, *, holder: str = "here", launcher: PretendedLauncher | None = None) -> Controller:
        return Controller(
            self.config,
            deployments=KeptRecords(self.store),
            reports=self.reports,
            lease=MemoryControllerLease(self.leases, cluster=self.config.cluster, holder=holder),
            launcher=launcher or self.launcher,
            open_queue=lambda lane: MemoryRequestQueue(self.server, lane),
            clock=lambda: self.now_s,
            now_ms=lambda: int(self.now_s * 1000),
        )

    async def pass_time(self, seconds: float) -> None:
        """Rounds twice a second, while replicas go from state to state and tell their lane."""
        for _ in range(round(seconds * 2)):
            self.now_s += 0.5
            self.launcher.fleet.tick()
            for incarnation, status in self.launcher.fleet.statuses().items():
                lane = MemoryRequestQueue(self.server, ReplicaPlace.of(status.replica).lane)
                await lane.register(Member(incarnation=incarnation, role=MemberRole.LEADER, status=to_json(status)))
            await self.controller.play_round()

    async def report(self) -> FleetReport:
        return (await self.reports.all())[self.config.cluster]


def _submission(*, max_tokens: int = 8) -> Submission:
    return a_submission(
        "memory-0", id=draw_request_id(LANE), tenant="t", prompt_tokens=4, max_tokens=max_tokens, background=True
    )


async def test_a_deployment_gets_its_replicas_and_the_report_says_so() -> None:
    cluster = _Cluster()
    await deploy(cluster.store, deployment(2))

    await cluster.pass_time(5)

    (report,) = (await cluster.report()).deployments
    assert (report.name, report.num_ready) == ("tiny", 2)
    assert {spec.replica for spec in cluster.launcher.specs} == {f"{LANE}-0", f"{LANE}-1"}
    assert all(spec.replicas_on_host == 2 and spec.terms == TERMS for spec in cluster.launcher.specs)


async def test_a_restarted_controller_touches_no_running_replica() -> None:
    cluster = _Cluster()
    await deploy(cluster.store, deployment(2))
    await cluster.pass_time(5)
    before = dict(cluster.launcher.fleet.replicas)

    cluster.controller = cluster.new_controller()
    await cluster.pass_time(5)

    assert cluster.launcher.fleet.replicas == before
    assert len(cluster.launcher.specs) == 2


async def test_a_dead_replica_gives_its_requests_back_at_once_and_is_replaced() -> None:
    cluster = _Cluster()
    await deploy(cluster.store, deployment(1))
    await cluster.pass_time(TERMS.hold_ms / 1000 + 1)  # a new lane begins with a hold
    leader, replica = cluster.launcher.fleet.only()
    submission = _submission()
    await cluster.queue.submit("router", 1, submission)
    claim = ClaimCall(incarnation=leader, number=1, nonce=b"12345678", free_slots=4, free_tokens=400, inbox_seen=0)
    granted = (await cluster.queue.claim(claim)).value.granted
    assert [request.info.id for request in granted] == [submission.id]

    replica.die()
    await cluster.pass_time(0.5)

    seen = (await cluster.queue.look(submission.id, "t")).value
    assert isinstance(seen, Snapshot)
    assert seen.state is RequestState.WAITING
    assert cluster.launcher.forgotten == [leader]
    await cluster.pass_time(5)
    assert (await cluster.report()).deployments[0].num_ready == 1
    assert len(cluster.launcher.specs) == 2


async def test_the_news_of_a_death_is_kept_until_a_hold_is_over() -> None:
    cluster = _Cluster()
    await deploy(cluster.store, deployment(1))
    await cluster.pass_time(10)
    leader, replica = cluster.launcher.fleet.only()

    cluster.server.rollback(cluster.server.snapshot())
    replica.die()
    await cluster.pass_time(TERMS.hold_ms / 1000 - 1)
    in_hold = list(cluster.launcher.forgotten)
    await cluster.pass_time(2)

    assert in_hold == []
    assert cluster.launcher.forgotten == [leader]
    assert len(cluster.launcher.specs) == 2


async def test_a_lane_knows_the_largest_request_also_after_its_server_forgot() -> None:
    cluster = _Cluster()
    await deploy(cluster.store, deployment(1))
    await cluster.pass_time(1)
    cluster.server.rollback(None)
    await cluster.pass_time(1)

    answer = (await cluster.queue.submit("router", 1, _submission(max_tokens=600))).value

    assert answer == TooLarge(604, 512)


async def test_while_redis_is_away_nothing_is_started_or_stopped() -> None:
    cluster = _Cluster()
    await deploy(cluster.store, deployment(1))
    await cluster.pass_time(5)
    cluster.launcher.fleet.only()[1].die()

    cluster.server.go_down()
    cluster.now_s += 60
    with pytest.raises(QueueUnavailableError):
        await cluster.controller.play_round()
    num_started = len(cluster.launcher.specs)
    cluster.server.come_up()
    await cluster.pass_time(5)

    assert num_started == 1
    assert len(cluster.launcher.specs) == 2


async def test_run_survives_an_outage_and_ends_when_it_is_told() -> None:
    cluster = _Cluster()
    cluster.config = replace(cluster.config, period_s=0.001)
    cluster.controller = cluster.new_controller()
    await deploy(cluster.store, deployment(1))
    cluster.store.is_down = True
    stop = asyncio.Event()
    running = asyncio.create_task(cluster.controller.run(stop))
    await asyncio.sleep(0.05)

    cluster.store.is_down = False
    for _ in range(5_000):
        if not cluster.launcher.specs:
            await asyncio.sleep(0.001)
    stop.set()
    await running

    assert len(cluster.launcher.specs) == 1


async def test_a_launcher_that_hangs_costs_a_round_but_not_the_controller() -> None:
    cluster = _Cluster(call_deadline_s=0.05)
    await deploy(cluster.store, deployment(1))
    cluster.launcher.hang = threading.Event()

    for _ in range(2):  # the second round does not pile up behind the first
        with pytest.raises(LauncherBusyError):
            await cluster.controller.play_round()
    cluster.launcher.hang.set()
    await asyncio.sleep(0.2)

    await cluster.pass_time(5)
    assert (await cluster.report()).deployments[0].num_ready == 1


async def test_a_replica_that_can_never_be_started_is_reported_with_the_reason() -> None:
    cluster = _Cluster()
    await deploy(cluster.store, deployment(1))
    cluster.launcher.refusal = "no GPU here"

    await cluster.pass_time(4)

    (place,) = (await cluster.report()).deployments[0].places
    assert (place.state, place.reason, place.incarnation) == (ReplicaState.FAILED, "no GPU here", "")
    assert place.failures == 3  # after 1 and 2 more seconds
    assert place.next_start_s is not None


async def test_a_controller_cares_only_for_the_deployments_of_its_cluster() -> None:
    cluster = _Cluster()
    await deploy(cluster.store, deployment(1))
    await deploy(cluster.store, replace(deployment(3, lane="other-1"), name="other", cluster="elsewhere"))

    await cluster.pass_time(2)

    assert [spec.deployment.name for spec in cluster.launcher.specs] == ["tiny"]
    assert [report.name for report in (await cluster.report()).deployments] == ["tiny"]


async def test_of_two_controllers_of_a_cluster_one_acts_and_the_other_says_who() -> None:
    cluster = _Cluster()
    await deploy(cluster.store, deployment(1))
    await cluster.pass_time(2)
    launcher = PretendedLauncher()
    second = cluster.new_controller(holder="there", launcher=launcher)

    with pytest.raises(NotInChargeError, match=r"another controller \(here\) keeps .* 'default'"):
        await second.play_round()

    assert launcher.specs == []
    assert len(cluster.launcher.specs) == 1


async def test_a_controller_follows_one_that_ended_at_once_and_one_that_died_after_its_lease() -> None:
    cluster = _Cluster()
    await deploy(cluster.store, deployment(1))
    await cluster.pass_time(2)
    second = cluster.new_controller(holder="there", launcher=PretendedLauncher())

    cluster.now_s += LEASE_S
    await second.play_round()
    with pytest.raises(NotInChargeError):
        await cluster.controller.play_round()
    await second.close()
    await cluster.controller.play_round()

    assert [report.name for report in (await cluster.report()).deployments] == ["tiny"]


async def test_a_controller_that_lost_its_lease_while_it_looked_does_nothing() -> None:
    cluster = _Cluster()
    await deploy(cluster.store, deployment(1))
    look = cluster.launcher.observe
    other = MemoryControllerLease(cluster.leases, cluster="default", holder="there")

    def slowly() -> Sequence[ReplicaObservation]:
        cluster.now_s += LEASE_S
        asyncio.run(other.renew())
        return look()

    cluster.launcher.observe = slowly  # type: ignore[method-assign]
    with pytest.raises(NotInChargeError):
        await cluster.controller.play_round()

    assert cluster.launcher.specs == []


async def test_a_deleted_deployment_loses_its_replicas_in_order() -> None:
    cluster = _Cluster()
    await deploy(cluster.store, deployment(2))
    await cluster.pass_time(10)

    await undeploy(cluster.store, "tiny")
    await cluster.pass_time(2)

    assert cluster.launcher.fleet.replicas == {}
    assert (await cluster.report()).deployments == ()


async def test_a_deployment_that_redis_forgets_is_put_back_and_loses_no_replica() -> None:
    cluster = _Cluster()
    await deploy(cluster.store, deployment(2))
    await cluster.pass_time(10)
    before = dict(cluster.launcher.fleet.replicas)

    cluster.store.forget()
    await cluster.pass_time(5)

    assert set(await cluster.store.all()) == {"tiny"}
    assert cluster.launcher.fleet.replicas == before
    assert cluster.launcher.stopped == []


async def test_other_settings_replace_the_replicas_one_by_one() -> None:
    cluster = _Cluster()
    await deploy(cluster.store, deployment(3))
    await cluster.pass_time(5)
    before = set(cluster.launcher.fleet.replicas)
    await deploy(cluster.store, replace(deployment(3), options=EngineOptions(engine="simulated", max_num_seqs=2)))

    least_ready = 3
    for _ in range(40):
        await cluster.pass_time(0.5)
        states = [replica.state for replica in cluster.launcher.fleet.replicas.values()]
        least_ready = min(least_ready, states.count(ReplicaState.READY))

    assert least_ready == 2
    assert before.isdisjoint(cluster.launcher.fleet.replicas)
    assert [spec.deployment.options.max_num_seqs for spec in cluster.launcher.specs[3:]] == [2, 2, 2]
    assert cluster.launcher.killed == []


async def test_another_number_of_replicas_replaces_none() -> None:
    cluster = _Cluster()
    await deploy(cluster.store, deployment(1))
    await cluster.pass_time(5)
    await deploy(cluster.store, deployment(2))

    await cluster.pass_time(5)

    assert len(cluster.launcher.specs) == 2
    assert cluster.launcher.stopped == []


async def test_a_place_that_failed_with_other_settings_begins_anew_with_new_ones() -> None:
    cluster = _Cluster()
    await deploy(cluster.store, deployment(1))
    cluster.launcher.refusal = "no GPU here"
    await cluster.pass_time(20)
    failed = (await cluster.report()).deployments[0].places[0]

    cluster.launcher.refusal = ""
    await deploy(cluster.store, replace(deployment(1), options=EngineOptions(engine="simulated", max_num_seqs=2)))
    await cluster.pass_time(0.5)

    assert failed.failures > 3
    assert len(cluster.launcher.specs) == 1
    assert (await cluster.report()).deployments[0].places[0].failures == 0


async def test_a_replica_that_starts_later_is_told_what_the_others_have_taken() -> None:
    cluster = _Cluster()
    await deploy(cluster.store, deployment(1))
    cluster.launcher.fleet.details = {"weights_bytes": "1000", "kv_cache_bytes": "500"}
    await cluster.pass_time(5)
    await deploy(cluster.store, replace(deployment(1, lane="other-1"), name="other"))

    await cluster.pass_time(2)

    first, second = cluster.launcher.specs
    assert (first.memory_taken_bytes, first.memory_sharers) == (0, 1)
    assert (second.memory_taken_bytes, second.memory_sharers) == (1500 + RUNTIME_BYTES, 1)


async def test_requests_in_a_lane_that_was_left_end_there_and_its_replicas_go_then() -> None:
    cluster = _Cluster()
    await deploy(cluster.store, deployment(1))
    await cluster.pass_time(10)
    submission = _submission()
    await cluster.queue.submit("router", 1, submission)
    await deploy(cluster.store, _with_other_weights(cluster))

    await cluster.pass_time(5)
    with_work = {replica.place for replica in cluster.launcher.fleet.replicas.values()}
    await cluster.queue.cancel(submission.id, "t")
    await cluster.pass_time(3)

    assert with_work == {f"{LANE}-0", "tiny-9f9f-0"}
    assert {replica.place for replica in cluster.launcher.fleet.replicas.values()} == {"tiny-9f9f-0"}
    assert cluster.launcher.killed == []


async def test_a_lane_that_was_left_is_served_for_half_an_hour_and_no_longer() -> None:
    cluster = _Cluster()
    await deploy(cluster.store, deployment(1))
    await cluster.pass_time(10)
    await cluster.queue.submit("router", 1, _submission())
    await deploy(cluster.store, _with_other_weights(cluster))
    await cluster.pass_time(2)

    cluster.now_s += FORMER_LANE_MS / 1000
    await cluster.pass_time(20)

    assert {replica.place for replica in cluster.launcher.fleet.replicas.values()} == {"tiny-9f9f-0"}
    assert (await cluster.queue.view()).value.waiting_requests == 1, "it waits for its weights to be deployed again"


def _with_other_weights(cluster: _Cluster) -> Deployment:
    other = replace(deployment(1, lane="tiny-9f9f"), weights_digest="9f9f")
    return redeployed(deployment(1), other, now_ms=int(cluster.now_s * 1000))


async def test_all_replicas_can_be_stopped_without_redis_and_leave_nothing() -> None:
    cluster = _Cluster()
    await deploy(cluster.store, deployment(2))
    await cluster.pass_time(5)
    replicas = set(cluster.launcher.fleet.replicas)
    cluster.server.go_down()

    async def live() -> None:
        while True:
            await asyncio.sleep(0.01)
            cluster.launcher.fleet.tick()

    living = asyncio.create_task(live())
    await cluster.controller.stop_replicas(grace_s=5)
    living.cancel()

    assert set(cluster.launcher.stopped) == set(cluster.launcher.forgotten) == replicas
    assert cluster.launcher.killed == []
    assert cluster.launcher.fleet.replicas == {}


async def test_a_replica_that_does_not_stop_in_the_grace_is_killed() -> None:
    cluster = _Cluster()
    await deploy(cluster.store, deployment(1))
    await cluster.pass_time(5)
    (incarnation,) = cluster.launcher.fleet.replicas

    await cluster.controller.stop_replicas(grace_s=0.0)

    assert cluster.launcher.killed == cluster.launcher.forgotten == [incarnation]


async def test_closing_lets_go_of_the_launcher_and_leaves_replicas_alone() -> None:
    cluster = _Cluster()
    await deploy(cluster.store, deployment(1))
    await cluster.pass_time(5)

    await cluster.controller.close()

    assert cluster.launcher.closed
    assert cluster.launcher.fleet.only()[1].state is ReplicaState.READY


async def test_a_replica_of_several_ranks_is_told_who_runs_where_and_says_so_in_the_report() -> None:
    cluster = _Cluster()
    cluster.launcher.nodes = (a_node("1", 2), a_node("2", 1))
    await deploy(cluster.store, sharded(tp=1, pp=3))

    await cluster.pass_time(5)

    (spec,) = cluster.launcher.specs
    assert spec.gang.slots == {"1": 2, "2": 1}
    assert (await cluster.report()).deployments[0].places[0].shape == "tp=1 pp=3"


async def test_while_the_head_is_away_the_dead_are_reported_and_gangs_wait() -> None:
    cluster = _Cluster()
    cluster.launcher.nodes = (a_node("1", 2),)
    await deploy(cluster.store, sharded(tp=2))
    await cluster.pass_time(5)
    cluster.launcher.head_is_away = True
    incarnation, replica = cluster.launcher.fleet.only()
    replica.die()

    await cluster.pass_time(10)
    waiting = (await cluster.report()).deployments[0].places[0]
    cluster.launcher.head_is_away = False
    await cluster.pass_time(5)

    assert cluster.launcher.forgotten == [incarnation]
    assert "the launcher does not tell which nodes there are" in waiting.reason
    assert len(cluster.launcher.specs) == 2
