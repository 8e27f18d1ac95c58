"""Every queue that the shared tests run on."""

from tests.cluster.queue.lane_harness import HarnessKind
from tests.cluster.queue.memory_lane_harness import open_memory_harness

HARNESS_KINDS = (HarnessKind("memory", open_memory_harness),)
