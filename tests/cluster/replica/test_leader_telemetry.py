"""What a leader counts while it serves, dies, hands over; on virtual time, with simulated engines."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from shardline_cluster.queue.records import RequestState
from shardline_cluster.replica.leader_telemetry import LeaderTelemetry
from shardline_cluster.replica.replica_metrics import ReplicaMetrics
from tests.cluster.replica.simulated_lane import SimulatedLane
from tests.cluster.replica.virtual_time import run_virtually
from tests.cluster.telemetry.readings import Readings, readings

LABELS = {"model_name": "simulated", "lane": "simulated-1", "replica": "simulated-0"}


class _Counted:
    """A leader's telemetry that a test reads."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.telemetry = LeaderTelemetry(
            ReplicaMetrics(self._registry, LABELS), labels=LABELS, clock=asyncio.get_running_loop().time
        )

    def now(self) -> Readings:
        return readings(self._registry)

    def value(self, name: str, **labels: str) -> float | None:
        return self.now().value(f"shardline_{name}", **LABELS, **labels)


@asynccontextmanager
async def _lane() -> AsyncIterator[tuple[SimulatedLane, _Counted]]:
    async with SimulatedLane.open() as lane:
        yield lane, _Counted()


def test_a_request_is_counted_from_its_claim_to_its_end() -> None:
    async def test() -> None:
        async with _lane() as (lane, counted):
            lane.lead(telemetry=counted.telemetry)

            request_id = await lane.submit(max_tokens=8)
            await lane.grows_to(request_id, 2)
            running = counted.value("engine_num_seqs_running"), counted.value("kv_cache_usage_perc")
            await lane.end(request_id)
            await asyncio.sleep(1)

            assert running[0] == 1
            assert running[1] is not None and 0 < running[1] < 1
            assert counted.value("claimed_requests_total") == 1
            assert counted.value("redeliveries_total") == 0
            assert counted.value("prompt_tokens_total") == 5
            assert counted.value("generation_tokens_total") == counted.value("committed_tokens_total") == 8
            assert counted.value("iteration_tokens_total_sum") == 5 + 7
            assert counted.value("batch_size_count") == counted.value("step_duration_seconds_count") == 8
            assert counted.value("request_success_total", finished_reason="length") == 1
            assert counted.value("engine_num_seqs_running") == 0
            for stretch in ("queue", "prefill", "decode"):
                assert counted.value(f"request_{stretch}_time_seconds_count") == 1
            assert counted.value("request_decode_time_seconds_sum") == pytest.approx(0.14)  # 7 steps of 20 ms

    run_virtually(test())


def test_who_takes_over_from_the_dead_counts_a_redelivery_and_no_second_wait_in_the_queue() -> None:
    async def test() -> None:
        async with _lane() as (lane, counted):
            first = lane.lead("leader-1")
            request_id = await lane.submit(max_tokens=20)
            await lane.grows_to(request_id, 3)
            await first.kill()

            lane.lead("leader-2", telemetry=counted.telemetry)
            await lane.end(request_id)
            await asyncio.sleep(1)

            assert counted.value("claimed_requests_total") == counted.value("redeliveries_total") == 1
            assert counted.value("request_queue_time_seconds_count") == 0
            assert counted.value("request_prefill_time_seconds_count") == 1
            assert counted.value("request_success_total", finished_reason="length") == 1

    run_virtually(test())


def test_a_leader_that_drains_hands_over_what_it_holds_and_ends_empty() -> None:
    async def test() -> None:
        async with _lane() as (lane, counted):
            leader = lane.lead(telemetry=counted.telemetry)
            request_id = await lane.submit(max_tokens=100)
            await lane.grows_to(request_id, 3)

            leader.stop.set()
            await leader.task

            assert (await lane.look(request_id)).state is RequestState.WAITING
            assert counted.value("handed_over_requests_total") == 1
            assert counted.value("engine_num_seqs_running") == 0
            assert counted.now().value("shardline_request_success_total", finished_reason="length") is None

    run_virtually(test())


def test_a_cancelled_request_has_vllm_s_word_for_it() -> None:
    async def test() -> None:
        async with _lane() as (lane, counted):
            lane.lead(telemetry=counted.telemetry)
            request_id = await lane.submit(max_tokens=100)
            await lane.grows_to(request_id, 3)

            await lane.queue.cancel(request_id, "tenant")
            await asyncio.sleep(5)

            assert counted.value("request_success_total", finished_reason="abort") == 1

    run_virtually(test())
