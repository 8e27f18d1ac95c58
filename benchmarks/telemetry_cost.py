"""What metrics cost for each token: the same work with and without them, in turns, in one process.

    python -m benchmarks.telemetry_cost

A router's work for a token is taken to be its text and its event; a replica's is to book it and to make its commit. The
network, the queue and the engine are left out: against them the cost is smaller still. Processor time of this thread is
told, of the quickest round: a busy machine adds to the others.
"""

import json
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from benchmarks.surroundings import surroundings
from shardline_cluster.queue.answers import GrantedRequest
from shardline_cluster.queue.calls import CommitCall, CommitEntry, SequenceCommit
from shardline_cluster.queue.log_encoding import pack_ids
from shardline_cluster.queue.records import Grant, RequestInfo, SequenceLog
from shardline_cluster.replica.engine_driver import Turn
from shardline_cluster.replica.held_request import HeldRequest
from shardline_cluster.replica.leader_telemetry import LeaderTelemetry
from shardline_cluster.router.client_events import events_of
from shardline_cluster.router.router_metrics import RouterMetrics, StreamMeter
from shardline_cluster.router.streams.stream_reader import SequenceUpdate, StreamUpdate
from shardline_cluster.router.text_assembly import TextAssembly
from shardline_protos import generation_pb2 as pb
from shardline_protos.record_pb2 import RequestPayload
from shardline_workers.engine import Capacity, EngineLoad, SequenceStep, StepResult
from shardline_workers.text.simulated_text import simulated_text_model
from tests.cluster.replica.queue_replies import submission

ROUNDS = 25
TOKENS = 4_000  # of a round
BATCHES = (1, 32)


def main() -> None:
    """Prints one JSON object."""
    told = {"router": _compare(_router(metered=False), _router(metered=True), num_tokens=1)}
    for batch in BATCHES:
        pair = _replica(batch, metered=False), _replica(batch, metered=True)
        told[f"replica, batch of {batch}"] = _compare(*pair, num_tokens=batch)
    print(json.dumps({"surroundings": surroundings(), "microseconds_a_token": told}, indent=2))


def _compare(plain: Callable[[], None], metered: Callable[[], None], *, num_tokens: int) -> dict[str, float]:
    without, with_metrics = [], []
    for _ in range(ROUNDS):
        without.append(_microseconds(plain, num_tokens))
        with_metrics.append(_microseconds(metered, num_tokens))
    least, least_with = min(without), min(with_metrics)
    return {
        "without": round(least, 2),
        "with": round(least_with, 2),
        "added": round(least_with - least, 2),
        "ratio": round(least_with / least, 3),
    }


def _microseconds(work: Callable[[], None], num_tokens: int) -> float:
    """For a token, where one call of `work` handles so many."""
    calls = TOKENS // num_tokens
    began_s = time.thread_time()
    for _ in range(calls):
        work()
    return (time.thread_time() - began_s) / calls / num_tokens * 1e6


def _router(*, metered: bool) -> Callable[[], None]:
    info = RequestInfo(submission=submission("bytes-1-00"), submitted_ms=0, deadline_ms=None)
    payload = RequestPayload(model="bytes", sampling=pb.SamplingParams(n=1))
    assembly = TextAssembly(simulated_text_model(4096), payload, num_logprobs=None)
    meter = StreamMeter(RouterMetrics(CollectorRegistry()), "bytes", began_s=0.0)
    update = StreamUpdate(sequences=(SequenceUpdate(0, 0, pack_ids((97,)), b"", None),))

    def plain() -> None:
        tuple(events_of(update, assembly, info))

    def with_meter() -> None:
        meter.saw(update)
        tuple(events_of(update, assembly, info))

    return with_meter if metered else plain


def _replica(batch: int, *, metered: bool) -> Callable[[], None]:
    names = [f"request-{number}" for number in range(batch)]
    info = RequestInfo(submission=submission("bytes-1-00"), submitted_ms=0, deadline_ms=None)
    held = [HeldRequest.of(GrantedRequest(info, Grant(1, b"12345678"), (SequenceLog(),), 0), seen="") for _ in names]
    steps = tuple(SequenceStep(request_id=name, sequence=0, token_ids=(97,)) for name in names)
    load = EngineLoad(batch, 0, 0.5)
    turn = Turn(
        StepResult(sequences=steps, num_decode_tokens=batch, load=load), Capacity(1, 1), has_work=True, step_s=0.01
    )
    telemetry = LeaderTelemetry()
    commits = tuple(
        CommitEntry(name, Grant(1, b"12345678"), (SequenceCommit(0, 0, pack_ids((97,))),)) for name in names
    )
    call = CommitCall(incarnation="a", inbox_seen=0, entries=commits)

    def plain() -> None:
        for request, step in zip(held, turn.result.sequences, strict=True):
            request.record(0, ids=pack_ids(step.token_ids), logprobs=b"", finish=None)
            request.taken(request.entry())

    def with_telemetry() -> None:
        telemetry.took(turn)
        plain()
        telemetry.committed(call, 0.001)

    return with_telemetry if metered else plain


if __name__ == "__main__":
    main()
