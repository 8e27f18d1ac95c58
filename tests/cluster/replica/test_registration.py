"""A replica's registration carries its whole status, again and again."""

import asyncio
import contextlib

from shardline_cluster.fleet.json_encoding import from_json
from shardline_cluster.fleet.replica_state import ReplicaState, ReplicaStatus
from shardline_cluster.queue.answers import LeaderView
from shardline_cluster.replica.registration import Registration
from shardline_workers.simulated_engine import SimulatedEngine, SimulatedEngineConfig
from tests.cluster.replica.simulated_lane import SimulatedLane
from tests.cluster.replica.virtual_time import run_virtually


async def _view(lane: SimulatedLane) -> LeaderView:
    (leader,) = (await lane.queue.view()).value.leaders
    return leader


def test_each_telling_replaces_the_one_before_and_keeps_what_was_described() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            registration = Registration(lane.queue, lane.spec("leader-1"))

            await registration.tell(ReplicaState.LOADING)
            loading = from_json(ReplicaStatus, (await _view(lane)).status)
            registration.describe(SimulatedEngine(SimulatedEngineConfig()).description)
            await registration.tell(ReplicaState.READY)
            ready = await _view(lane)

            assert (loading.state, loading.details, loading.replica) == (ReplicaState.LOADING, {}, "simulated-0")
            status = from_json(ReplicaStatus, ready.status)
            assert (status.state, status.details["engine"]) == (ReplicaState.READY, "simulated")
            assert status.started_at == loading.started_at > 0
            assert ready.numerics_id == "simulated-same"
            assert registration.identity == lane.server.identity

    run_virtually(test())


def test_keeping_it_renews_the_lease_through_an_outage() -> None:
    async def test() -> None:
        async with SimulatedLane.open() as lane:
            registration = Registration(lane.queue, lane.spec("leader-1"))
            keeping = asyncio.create_task(registration.keep())
            await asyncio.sleep(20)
            lane.server.go_down()
            await asyncio.sleep(20)
            lane.server.come_up()
            await asyncio.sleep(20)

            assert (await _view(lane)).lease_ends_ms > (await lane.queue.view()).now_ms
            assert registration.state is ReplicaState.LOADING
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping

    run_virtually(test())
