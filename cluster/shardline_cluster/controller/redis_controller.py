"""Puts a controller together with the Redis that its configuration names. Both of its shells use it."""

from prometheus_client import CollectorRegistry

from shardline_cluster.controller.controller import Controller
from shardline_cluster.controller.controller_config import ControllerConfig
from shardline_cluster.controller.fleet_metrics import FleetMetrics
from shardline_cluster.controller.replica_launcher import ReplicaLauncher
from shardline_cluster.fleet.deployment_records import deployments_on_redis
from shardline_cluster.fleet.redis_controller_lease import RedisControllerLease
from shardline_cluster.fleet.redis_fleet_report import RedisFleetReportStore
from shardline_cluster.queue.redis_request_queue import RedisRequestQueue


def controller_on_redis(
    config: ControllerConfig, launcher: ReplicaLauncher, *, holder: str, registry: CollectorRegistry
) -> Controller:
    """A controller that belongs to the running event loop. Connects with its first round.

    Args:
        config: what it is to do.
        launcher: starts its replicas.
        holder: of its lease: the same for every life of a controller over these replicas, and for no other one.
        registry: where it tells its metrics.
    """
    url, prefix = config.redis_url, config.prefix
    return Controller(
        config,
        deployments=deployments_on_redis(url, prefix=prefix),
        reports=RedisFleetReportStore(url, prefix=prefix),
        lease=RedisControllerLease(url, prefix=prefix, cluster=config.cluster, holder=holder),
        launcher=launcher,
        open_queue=lambda lane: RedisRequestQueue(url, lane, prefix=prefix, terms=config.terms),
        metrics=FleetMetrics(registry),
    )
