"""Leaders and routers of a lane in memory: their leases, mail and last claims."""

from dataclasses import dataclass, field

from shardline_cluster.queue.answers import InboxEntry, InboxKind, LeaderView
from shardline_cluster.queue.calls import Member, MemberRole


@dataclass(slots=True)
class MemoryLeader:
    """One incarnation of a leader. It stays known after its lease, so that its late calls are understood."""

    member: Member
    lease_ends_ms: int | None = None  # None: it has no lease
    renewed_ms: int = 0  # instant of its own last renewal; a hold's rewrite of the leases is none
    claim_number: int = 0
    claim_nonce: bytes = b""
    idle: bool = False  # its last claim brought nothing though it had room
    inbox: list[InboxEntry] = field(default_factory=list)
    last_message: int = 0

    def renew(self, now_ms: int, lease_ms: int) -> None:
        """Prolongs the lease on the leader's own word."""
        self.lease_ends_ms = now_ms + lease_ms
        self.renewed_ms = now_ms

    def put(self, kind: InboxKind, request_id: str, now_ms: int) -> None:
        """Adds a message. Numbers follow the clock, so that they rise over a rollback too."""
        self.last_message = max(self.last_message + 1, now_ms)
        self.inbox.append(InboxEntry(self.last_message, kind, request_id))

    def take_inbox(self, seen: int) -> tuple[InboxEntry, ...]:
        """Drops what was read and returns the rest."""
        self.inbox = [entry for entry in self.inbox if entry.number > seen]
        return tuple(self.inbox)


@dataclass(slots=True)
class MemoryMembers:
    """All members of a lane."""

    leaders: dict[str, MemoryLeader] = field(default_factory=dict)
    routers: dict[str, int] = field(default_factory=dict)  # incarnation → instant at which its lease ends

    def leader(self, incarnation: str) -> MemoryLeader:
        """The leader of this name; one that the server forgot, or never knew, is known from now on."""
        if incarnation not in self.leaders:
            self.leaders[incarnation] = MemoryLeader(Member(incarnation=incarnation, role=MemberRole.LEADER))
        return self.leaders[incarnation]

    def with_lease(self) -> dict[str, MemoryLeader]:
        """Leaders that have a lease, over or not."""
        return {name: leader for name, leader in self.leaders.items() if leader.lease_ends_ms is not None}

    def rewrite_leases(self, ends_ms: int) -> None:
        """Gives every lease the same end: at a hold's begin, since two hosts' clocks differ."""
        for leader in self.with_lease().values():
            leader.lease_ends_ms = ends_ms
        self.routers = dict.fromkeys(self.routers, ends_ms)

    def extend_leases(self, ends_ms: int) -> None:
        """Lets no lease end before this instant."""
        for leader in self.with_lease().values():
            leader.lease_ends_ms = max(leader.lease_ends_ms or 0, ends_ms)
        self.routers = {name: max(ends, ends_ms) for name, ends in self.routers.items()}

    def expired_leaders(self, now_ms: int) -> list[str]:
        """Leaders whose lease is over."""
        return [name for name, leader in self.with_lease().items() if (leader.lease_ends_ms or 0) <= now_ms]

    def expired_routers(self, now_ms: int) -> list[str]:
        """Routers whose lease is over."""
        return [name for name, ends in self.routers.items() if ends <= now_ms]

    def take_idle(self) -> str | None:
        """A leader with room and nothing to do, which is taken for busy from now on."""
        for name, leader in self.with_lease().items():
            if leader.idle:
                leader.idle = False
                return name
        return None

    def drop_long_gone(self, now_ms: int, keep_ms: int) -> None:
        """Forgets leaders without a lease of whom nothing was heard for `keep_ms`."""
        for name, leader in list(self.leaders.items()):
            last_ms = max(leader.renewed_ms, leader.last_message)  # mail for one that is yet to come is kept too
            if leader.lease_ends_ms is None and last_ms + keep_ms <= now_ms:
                del self.leaders[name]

    def view(self, incarnation: str, num_held: int) -> LeaderView:
        """A leader with a lease as people see it."""
        leader = self.leaders[incarnation]
        return LeaderView(
            incarnation, leader.lease_ends_ms or 0, num_held, leader.member.numerics_id, leader.member.status
        )
