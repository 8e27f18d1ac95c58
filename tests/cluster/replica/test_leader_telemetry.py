"""What a leader counts while it serves, dies, hands over; on virtual time, with simulated engines."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry

from shardline_cluster.queue.records import RequestState
from shardline_cluster.replica.leader_telemetry import DECODE, PREFILL, QUEUE, LeaderTelemetry
from shardline_cluster.replica.replica_metrics import ReplicaMetrics
from shardline_protos.record_pb2 import RequestPayload
from tests.cluster.replica.simulated_lane import SimulatedLane
from tests.cluster.replica.virtual_time import run_virtually
from tests.cluster.telemetry.readings import Readings, readings
from tests.cluster.telemetry.recorded_spans import RecordingTracer

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
LABELS = {"model_name": "simulated", "lane": "simulated-1", "replica": "simulated-0"}


class _Counted:
    """A leader's telemetry that a test reads."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.tracer = RecordingTracer()
        self.telemetry = LeaderTelemetry(
            ReplicaMetrics(self._registry, LABELS), self.tracer, labels=LABELS, clock=asyncio.get_running_loop().time
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


def test_a_request_s_stretches_are_spans_under_its_own_parent() -> None:
    async def test() -> None:
        async with _lane() as (lane, counted):
            lane.lead(telemetry=counted.telemetry)
            payload = RequestPayload(model="simulated", prompt_ids=list(b"hello"), traceparent=TRACEPARENT)
            payload.sampling.prompt_logprobs = 1

            await lane.end(await lane.submit(max_tokens=8, payload=payload.SerializeToString(), num_prompt_logprobs=1))
            await asyncio.sleep(1)

            queue, prefill, decode = counted.tracer.spans
            assert [queue.name, prefill.name, decode.name] == [QUEUE, PREFILL, DECODE]
            assert {span.parent for span in counted.tracer.spans} == {TRACEPARENT}
            assert [span.ended for span in counted.tracer.spans] == [1, 1, 1]
            assert queue.began_ns is not None
            assert decode.attributes["shardline.replica"] == "simulated-0"
            assert decode.attributes["gen_ai.request.model"] == "simulated"
            assert decode.attributes["shardline.request.attempt"] == 1
            assert decode.attributes["gen_ai.usage.output_tokens"] == 8  # without the prompt's own log
            assert decode.attributes["gen_ai.response.finish_reasons"] == ["length"]

    run_virtually(test())


def test_a_hand_over_ends_the_span_and_says_so() -> None:
    async def test() -> None:
        async with _lane() as (lane, counted):
            leader = lane.lead(telemetry=counted.telemetry)
            await lane.grows_to(await lane.submit(max_tokens=100), 3)

            leader.stop.set()
            await leader.task

            decode = counted.tracer.named(DECODE)
            assert (decode.ended, decode.error) == (1, "")
            assert decode.attributes["shardline.handed_over"] is True

    run_virtually(test())


def test_a_request_that_cannot_be_computed_ends_its_span_with_an_error() -> None:
    async def test() -> None:
        async with _lane() as (lane, counted):
            lane.lead(telemetry=counted.telemetry)

            await lane.end(await lane.submit(payload=b"\xff"))
            await asyncio.sleep(5)

            prefill = counted.tracer.named(PREFILL)
            assert (prefill.ended, prefill.error) == (1, "FAILED")
            assert counted.value("request_success_total", finished_reason="error") == 1

    run_virtually(test())
