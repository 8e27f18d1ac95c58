"""Rank processes that wait for something to compute: children of this process, or some that come by themselves.

One pool serves one model after the other, in any shape that it has enough processes for.
"""

import threading
import time
from collections.abc import Mapping, Sequence

from shardline_workers.gang.child_ranks import ChildRanks
from shardline_workers.gang.gang_address import GangAddress
from shardline_workers.gang.gang_error import GangError
from shardline_workers.gang.gang_limits import GangLimits
from shardline_workers.gang.gang_watch import GangWatch
from shardline_workers.gang.rank_listener import Arrival, RankListener
from shardline_workers.gang.rank_member import RankMember, Report
from shardline_workers.gang.seats import seat_ranks

LOOPBACK = "127.0.0.1"
_LOOK_S = 0.2  # for children that have ended


class RankPool:
    """The leader's end of all of them. A process that is lost ends the whole pool: see `watch`."""

    def __init__(self, *, host: str = LOOPBACK, limits: GangLimits | None = None, report: Report) -> None:
        """Listens; no process is started.

        Args:
            host: this host's address by which rank processes reach it. Let no others reach it.
            limits: how patient to be.
            report: gets a line for each thing that a user should know, in any thread.

        Raises:
            OSError: there is no such address here.
        """
        self.limits = limits or GangLimits()
        self.watch = GangWatch(self._kill)
        self._report = report
        self._children: list[ChildRanks] = []
        self._members: dict[bytes, RankMember] = {}
        self._changed = threading.Condition()
        self._is_closed = False
        self._listener = RankListener(host, limits=self.limits, arrived=self._arrived, refused=report)

    @property
    def address(self) -> GangAddress:
        """Where rank processes connect: `rank_process.serve_leader`, or that module as a program."""
        return self._listener.address

    def start_children(self, count: int, *, environment: Mapping[str, str]) -> None:
        """Starts rank processes on this host. They die with this process, however it ends.

        Args:
            count: how many.
            environment: theirs.
        """
        children = ChildRanks(count, self.address, environment=environment)
        with self._changed:
            self._children.append(children)

    def members(self, num_ranks: int) -> Mapping[int, RankMember]:
        """Rank processes for every rank but 0; waits for them.

        Raises:
            GangError: some did not come within the limit; the text says which.
            RankLostError: one came and is lost.
        """
        deadline = time.monotonic() + self.limits.join_s
        with self._changed:
            while missing := [rank for rank in range(1, num_ranks) if rank not in self._seats(num_ranks)]:
                self.watch.check()
                ended = [text for children in self._children for text in children.ends()]
                left_s = deadline - time.monotonic()
                if ended or left_s <= 0:
                    raise GangError(self._missing(missing, num_ranks, ended))
                self._changed.wait(min(left_s, _LOOK_S))
            return self._seats(num_ranks)

    def close(self) -> None:
        """Lets all processes end, which should have released their model. Children are gone when it returns.

        May be called again.
        """
        with self._changed:
            if self._is_closed:
                return
            self._is_closed = True
            members, children = tuple(self._members.values()), tuple(self._children)
        self._listener.close()
        for member in members:
            member.dismiss()
        for member in members:
            member.close()
        for group in children:
            group.close()

    def _seats(self, num_ranks: int) -> Mapping[int, RankMember]:
        members = tuple(self._members.values())
        return seat_ranks(members, [member.only_rank for member in members], num_ranks=num_ranks)

    def _missing(self, missing: Sequence[int], num_ranks: int, ended: Sequence[str]) -> str:
        ranks = f"rank{'s' if len(missing) > 1 else ''} {', '.join(map(str, missing))} of {num_ranks}"
        if ended:
            return f"{ranks} cannot come: {'; '.join(ended)} before it connected to {self.address}; its output says why"
        here = ", ".join(member.name for member in self._members.values()) or "none"
        return (
            f"{ranks} did not connect to {self.address} within {self.limits.join_s:g} s; there are: {here}. Look"
            " whether their processes run and reach this address"
        )

    def _arrived(self, arrival: Arrival) -> None:
        if arrival.is_for_steps:
            self._members[arrival.member].attach(arrival.connection.detach())
            return
        member = RankMember(arrival.claims, talk=arrival.connection, limits=self.limits, exit_code=self._exit_code)
        with self._changed:
            self._members[arrival.member] = member
            member.start(self.watch.note, self._report)
            self._changed.notify_all()
            is_late = self._is_closed
        if is_late:
            member.close()

    def _exit_code(self, pid: int) -> int | None:
        codes = (children.exit_code(pid) for children in tuple(self._children))
        return next((code for code in codes if code is not None), None)

    def _kill(self) -> None:
        for member in tuple(self._members.values()):
            member.kill()
        for children in tuple(self._children):
            children.kill()
