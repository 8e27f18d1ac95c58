"""Where desired deployments lie: versioned records by name, so that routers and a restarted controller find them."""

from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.kept_records import KeptRecords
from shardline_cluster.fleet.redis_record_store import RedisRecordStore
from shardline_cluster.queue.lane_names import deployments_key

DeploymentRecords = KeptRecords[Deployment]


def deployments_on_redis(url: str, *, prefix: str, call_timeout_s: float = 1.0) -> DeploymentRecords:
    """The deployments under a prefix. Connects with its first call; belongs to one event loop."""
    key = deployments_key(prefix)
    return KeptRecords(RedisRecordStore(url, key=key, kind=Deployment, call_timeout_s=call_timeout_s))
