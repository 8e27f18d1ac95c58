"""Puts a controller together with the Redis that its configuration names. Both of its shells use it."""

from shardline_cluster.controller.controller import Controller
from shardline_cluster.controller.controller_config import ControllerConfig
from shardline_cluster.controller.replica_launcher import ReplicaLauncher
from shardline_cluster.fleet.redis_deployment_store import RedisDeploymentStore
from shardline_cluster.fleet.redis_fleet_report import RedisFleetReportStore
from shardline_cluster.queue.redis_request_queue import RedisRequestQueue


def controller_on_redis(config: ControllerConfig, launcher: ReplicaLauncher) -> Controller:
    """A controller that belongs to the running event loop. Connects with its first round."""
    return Controller(
        config,
        store=RedisDeploymentStore(config.redis_url, prefix=config.prefix),
        reports=RedisFleetReportStore(config.redis_url, prefix=config.prefix),
        launcher=launcher,
        open_queue=lambda lane: RedisRequestQueue(config.redis_url, lane, prefix=config.prefix, terms=config.terms),
    )
