"""How a `LaneWorld` comes to rest: everybody works, every call gets through, until everything has ended."""

from tests.cluster.queue.lane_world import LaneWorld
from tests.cluster.queue.leader_process import LeaderProcess

MOST_ROUNDS = 200  # until everything must have ended


def calm_round(world: LaneWorld) -> None:
    """A tick in which everything goes through at once and everybody does all that there is to do."""
    world.tick()
    if not world.up or world.clock.now_ms <= world.up_at_ms:
        return
    for process in [p for p in world.alive() if not p.paused]:
        world.reconnect(process)
        for call in process.wire.unanswered():
            if call.waiting:
                world.push(process, call)
    for router in world.routers():
        while router.mail and not router.paused:
            router.read_message()
    _seat_clients(world)
    for leader in [p for p in world.leaders() if not p.paused]:
        _work(world, leader)


def finish(world: LaneWorld) -> None:
    """Nothing fails any more; time goes on until everything has ended, and everything is judged.

    Raises:
        ViolationError: something has not ended, or not as it should.
    """
    _heal(world)
    for _ in range(MOST_ROUNDS):
        calm_round(world)
        if _settled(world):
            break
    world.judge.judge_rest()
    world.judge_usage()


def _heal(world: LaneWorld) -> None:
    world.up, world.up_at_ms = True, world.clock.now_ms - 1
    for slot, process in list(world.processes.items()):
        if process is not None:
            process.paused = False
        else:
            world.start(slot)
    world.start("L9")
    world.orphans.clear()


def _seat_clients(world: LaneWorld) -> None:
    for client in world.clients:
        routers = [r for r in world.routers() if not r.paused]
        if routers and client.router is None:
            world.open(client, routers[(client.number + world.num_ticks) % len(routers)])


def _work(world: LaneWorld, leader: LeaderProcess) -> None:
    for held in list(leader.running.values()):
        leader.generate(held)
    if leader.may_commit:
        world.push(leader, leader.commit())
    if leader.may_claim:
        world.push(leader, leader.claim())


def _settled(world: LaneWorld) -> bool:
    shots = world.judge.seen.shots
    ended = all(request_id in shots and shots[request_id].end for request_id in world.judge.accepted)
    satisfied = all(c.over or (c.submission.background and c.info is not None) for c in world.clients)
    return ended and satisfied and not any(p.wire.unanswered() for p in world.alive())
