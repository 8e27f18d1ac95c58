"""A lane stays configured, whatever its server forgets, and tells what its leaders say."""

from shardline_cluster.controller.lane_watch import LaneWatch
from shardline_cluster.fleet.json_encoding import to_json
from shardline_cluster.fleet.replica_state import ReplicaState
from shardline_cluster.queue.calls import DeadMember, LaneBounds, Member, MemberRole
from shardline_cluster.queue.memory_request_queue import MemoryRequestQueue, MemoryServer
from shardline_cluster.queue.request_queue import Reply
from tests.cluster.controller.fleets import status

BOUNDS = LaneBounds(largest_request_tokens=100)


class _CountingQueue(MemoryRequestQueue):
    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server, "tiny-1")
        self.configured: list[LaneBounds] = []

    async def configure(self, bounds: LaneBounds) -> Reply[None]:
        self.configured.append(bounds)
        return await super().configure(bounds)


async def test_a_lane_is_configured_once_for_each_server_and_each_change() -> None:
    server = MemoryServer()
    queue = _CountingQueue(server)
    watch = LaneWatch(queue)

    for _ in range(3):
        await watch.look(BOUNDS)
    once = len(queue.configured)
    server.rollback(None)
    for _ in range(3):
        await watch.look(BOUNDS)
    wider = LaneBounds(largest_request_tokens=200)
    await watch.look(wider)

    assert once == 1
    assert queue.configured == [BOUNDS, BOUNDS, wider]


async def test_a_lane_to_which_nobody_deploys_is_left_as_it_is() -> None:
    queue = _CountingQueue(MemoryServer())

    await LaneWatch(queue).look(None)

    assert queue.configured == []


async def test_leaders_are_heard_and_those_of_other_versions_are_passed_over() -> None:
    queue = _CountingQueue(MemoryServer())
    loading = status(ReplicaState.LOADING)
    for incarnation, text in (("a", to_json(loading)), ("b", '{"future": 1}'), ("c", "")):
        await queue.register(Member(incarnation=incarnation, role=MemberRole.LEADER, status=text))

    assert (await LaneWatch(queue).look(BOUNDS)).statuses == {"a": loading}


async def test_news_of_a_death_counts_only_outside_a_hold() -> None:
    now_ms = [1_000_000]
    server = MemoryServer(now_ms=lambda: now_ms[0])
    watch = LaneWatch(_CountingQueue(server))

    in_hold = await watch.report_dead([DeadMember("a", had_drained=False)])
    now_ms[0] += server.terms.hold_ms + 1
    afterwards = await watch.report_dead([DeadMember("a", had_drained=False)])

    assert (in_hold, afterwards) == (False, True)
