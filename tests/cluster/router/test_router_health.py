"""Health tells the truth: of the router by its queue, of a model by the replicas that step."""

import asyncio
from collections.abc import Callable
from typing import Any

from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.json_encoding import to_json
from shardline_cluster.fleet.replica_state import ReplicaState, ReplicaStatus
from shardline_cluster.queue.calls import DeadMember, Member, MemberRole
from shardline_cluster.router.router_health import LATE_S, RouterHealth
from shardline_cluster.router.router_telemetry import RouterTelemetry
from tests.cluster.router.router_bench import MODEL, RouterBench, RunningRouter, deployment

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def _watch(router: RunningRouter, service: str) -> Any:
    stub: Any = HealthStub(router.channel)
    return stub.Watch(health_pb2.HealthCheckRequest(service=service))


async def _next(watch: Any) -> Any:
    return (await asyncio.wait_for(watch.read(), 20)).status


async def _register(bench: RouterBench, state: ReplicaState, deployment: str = MODEL) -> None:
    status = ReplicaStatus(deployment=deployment, replica="bytes-1-0", state=state)
    await bench.queue().register(Member(incarnation="leader-1", role=MemberRole.LEADER, status=to_json(status)))


async def _let_leases_end(bench: RouterBench) -> None:
    """Nobody renews them. A leap in time would count as an outage, after which everyone has one more term."""
    terms = bench.server.terms
    for _ in range(terms.lease_ms // terms.sweep_ms + 1):
        bench.skew_ms += terms.sweep_ms
        await bench.queue().sweep(None, ())


async def test_a_model_is_serving_from_its_first_ready_replica_to_the_end_of_its_last(
    bench: RouterBench, router: RunningRouter
) -> None:
    watch = _watch(router, MODEL)
    told = []

    while (first := await _next(watch)) == SERVICE_UNKNOWN:
        pass
    told.append(first)
    await _register(bench, ReplicaState.LOADING)
    await _register(bench, ReplicaState.READY)
    told.append(await _next(watch))
    await bench.queue().sweep(None, [DeadMember("leader-1", had_drained=False)])
    told.append(await _next(watch))

    watch.cancel()
    assert told == [NOT_SERVING, SERVING, NOT_SERVING]


async def test_a_replica_that_steps_no_more_loses_its_lease_and_its_model_is_not_serving(
    bench: RouterBench, router: RunningRouter
) -> None:
    watch = _watch(router, MODEL)
    await _register(bench, ReplicaState.READY)
    while await _next(watch) != SERVING:
        pass

    await _let_leases_end(bench)

    assert await _next(watch) == NOT_SERVING
    watch.cancel()


async def test_without_redis_neither_the_router_nor_a_model_serves(bench: RouterBench, router: RunningRouter) -> None:
    whole, model = _watch(router, ""), _watch(router, MODEL)
    await _register(bench, ReplicaState.READY)
    for watch in (whole, model):
        while await _next(watch) != SERVING:
            pass

    bench.server.go_down()
    bench.store.is_down = True

    assert [await _next(whole), await _next(model)] == [NOT_SERVING, NOT_SERVING]
    assert router.server.health().status == 503
    bench.server.come_up()
    bench.store.is_down = False
    assert [await _next(whole), await _next(model)] == [SERVING, SERVING]
    assert router.server.health().status == 200
    whole.cancel()
    model.cancel()


class _Directory:
    """Deployments without anything behind them."""

    def __init__(self, *names: str) -> None:
        self.available = True
        self.names = names

    def deployments(self) -> dict[str, Deployment]:
        return {name: deployment(name) for name in self.names}

    def served(self, _deployment: Deployment) -> None:
        return None


def _health(directory: Any, clock: Callable[[], float] = lambda: 0.0) -> RouterHealth:
    return RouterHealth(directory, ("",), RouterTelemetry().metrics, clock=clock)


async def _status(health: RouterHealth, service: str) -> Any:
    context: Any = None  # not looked at where the service is known
    answer: Any = await health.servicer.Check(health_pb2.HealthCheckRequest(service=service), context)
    return answer.status


async def test_a_model_whose_files_this_router_has_not_is_not_serving_and_unknown_once_it_is_deployed_no_more() -> None:
    directory = _Directory("one", "two")
    health = _health(directory)

    await health.look_at_models()
    deployed = await _status(health, "one")
    directory.names = ("two",)
    await health.look_at_models()

    assert deployed == NOT_SERVING
    assert await _status(health, "one") == SERVICE_UNKNOWN
    assert await _status(health, "two") == NOT_SERVING


async def test_a_router_whose_loop_hangs_is_not_well() -> None:
    now_s = [0.0]
    health = _health(_Directory(), lambda: now_s[0])
    await health.look()
    well = health.health()

    now_s[0] += LATE_S + 1

    assert well.status == 200
    assert "silent for 6 s" in health.health().failing
