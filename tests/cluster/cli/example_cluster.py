"""A cluster of memory twins: one deployment with a replica that works, and requests that wait."""

from shardline_cluster.fleet.cluster_status import ClusterStatus, looking_once, observe
from shardline_cluster.fleet.deployment import Deployment
from shardline_cluster.fleet.json_encoding import to_json
from shardline_cluster.fleet.kept_records import KeptRecords
from shardline_cluster.fleet.memory_fleet_report import MemoryFleetReportStore
from shardline_cluster.fleet.memory_record_store import MemoryRecordStore
from shardline_cluster.fleet.replica_state import ReplicaState, ReplicaStatus
from shardline_cluster.queue.calls import ClaimCall, Member, MemberRole
from shardline_cluster.queue.memory_request_queue import MemoryRequestQueue, MemoryServer
from shardline_cluster.queue.records import DisconnectAction, Submission
from shardline_cluster.queue.request_queue import RequestQueue
from tests.cluster.fleet.deploying import deploy
from tests.cluster.queue.lane_calls import a_submission

LANE = "smollm2"
HOLD_MS = 6_000


class ExampleCluster:
    """Store, server and a clock that tests turn; `now_ms` begins long after every hold."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000
        self.server = MemoryServer(now_ms=lambda: self.now_ms)
        self.store = MemoryRecordStore[Deployment]()
        self.reports = MemoryFleetReportStore()

    async def observe(self) -> ClusterStatus:
        """What the command reads of it."""
        return await observe(KeptRecords(self.store), self.reports, looking_once(self.open_lane))

    def open_lane(self, lane: str) -> RequestQueue:
        """Connects to a lane."""
        return MemoryRequestQueue(self.server, lane)

    async def deploy(self, name: str = "smollm2", *, lane: str = LANE, num_replicas: int = 2) -> None:
        """Wants a model."""
        wanted = Deployment(
            name=name,
            model=f"{name}:135m",
            lane=lane,
            weights_digest="d",
            max_model_len=128,
            num_replicas=num_replicas,
        )
        await deploy(self.store, wanted)

    async def start_replica(self, replica: str, state: ReplicaState, *, status: str | None = None) -> None:
        """A leader that registers; `status` overrides what it says of itself."""
        said = ReplicaStatus(deployment="smollm2", replica=replica, state=state, pid=4711, host="node-1")
        await self.open_lane(LANE).register(
            Member(
                incarnation=f"leader-{replica}",
                role=MemberRole.LEADER,
                numerics_id="n",
                max_slots=8,
                max_tokens=1000,
                status=to_json(said) if status is None else status,
            )
        )

    async def start_router(self) -> None:
        """A router that registers."""
        await self.open_lane(LANE).register(Member(incarnation="router-1", role=MemberRole.ROUTER))

    async def submit(self, number: int) -> None:
        """A request that waits."""
        await self.open_lane(LANE).submit("router-1", number, _submission(self.server.identity, number))

    async def claim_one(self, replica: str) -> None:
        """A replica takes the first that waits."""
        call = ClaimCall(
            incarnation=f"leader-{replica}", number=1, nonce=b"n" * 8, free_slots=1, free_tokens=1000, inbox_seen=0
        )
        assert (await self.open_lane(LANE).claim(call)).value.granted


def _submission(identity: str, number: int) -> Submission:
    return a_submission(
        identity, id=f"{LANE}-{number:032x}", max_tokens=20, on_disconnect=DisconnectAction.CONTINUE, grace_ms=0
    )


async def working_cluster() -> ExampleCluster:
    """Two replicas, one of them ready and with a request; two requests wait, the first for 90 s."""
    cluster = ExampleCluster()
    await cluster.deploy()
    await cluster.start_router()
    cluster.now_ms += HOLD_MS + 1
    await cluster.start_router()
    await cluster.start_replica("smollm2-0", ReplicaState.READY)
    await cluster.submit(1)
    await cluster.claim_one("smollm2-0")
    await cluster.submit(2)
    cluster.now_ms += 90_000
    await cluster.start_router()
    await cluster.start_replica("smollm2-0", ReplicaState.READY)
    await cluster.start_replica("smollm2-1", ReplicaState.LOADING)
    await cluster.submit(3)
    cluster.now_ms += 1_000
    return cluster
