"""Every queue that the shared tests run on."""

from tests.cluster.queue.lane_harness import HarnessKind
from tests.cluster.queue.memory_lane_harness import open_memory_harness
from tests.cluster.queue.redis_lane_harness import redis_harness_kinds

HARNESS_KINDS = (HarnessKind("memory", open_memory_harness), *redis_harness_kinds())
