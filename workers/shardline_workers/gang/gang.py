"""The leader's side of one model on many ranks: assigned → loaded → built → released. Rank 0 is this process."""

import dataclasses
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from shardline_protos import gang_pb2
from shardline_workers.collectives.errors import CommunicatorError, RankLostError
from shardline_workers.collectives.rank_groups import RankGroups
from shardline_workers.communicator import GroupLimits
from shardline_workers.engine_config import EngineConfig
from shardline_workers.gang.assignment import Assignment, StoreAddress
from shardline_workers.gang.assignment_encoding import decode_share, encode_assignment, encode_limits
from shardline_workers.gang.gang_error import GangError
from shardline_workers.gang.group_joining import GroupMeans, join_groups
from shardline_workers.gang.group_plan import invite
from shardline_workers.gang.host_identity import host_identity
from shardline_workers.gang.loaded_share import LoadedShare
from shardline_workers.gang.loss_verdict import LossKind, LossSign
from shardline_workers.gang.rank_member import RankMember, Report
from shardline_workers.gang.rank_pool import RankPool
from shardline_workers.gang.step_channel import PeerLateError, PeerLostError, StepChannelError, StepReceiver
from shardline_workers.gang.step_encoding import encode_stop
from shardline_workers.gang.step_ends import LeaderEnd, open_leader_end, ring_seats
from shardline_workers.gang.torch_store import host_store
from shardline_workers.kernels.native_library import NativeLibrary, NativeUnavailableError, load_native_library
from shardline_workers.memory_budget import HostResources
from shardline_workers.parallel.rank_position import RankPosition
from shardline_workers.scheduling.scheduler_limits import SchedulerLimits

_GANG_BYTES = 12


class Gang:
    """Ranks of one plan. After a loss only `close` is of use, and the pool is lost too."""

    def __init__(
        self,
        config: EngineConfig,
        pool: RankPool,
        *,
        host: HostResources,
        environment: Mapping[str, str],
        report: Report,
    ) -> None:
        """Waits for enough rank processes, and makes their groups.

        Args:
            config: what to load, and in which shape.
            pool: has the processes, or will have.
            host: this one.
            environment: says where compiler and cache of native kernels are.
            report: gets a line for each thing that a user should know.

        Raises:
            GangError: ranks are missing, or serve another model still.
            RankLostError: one was lost.
            ValueError: a rank cannot do what is asked; the text says which, and why.
        """
        self._pool = pool
        self._members = _free_members(pool, config.plan.num_ranks)
        for rank, member in self._members.items():
            member.rank = rank
        self._name = secrets.token_hex(_GANG_BYTES)
        self._hosts = [host_identity(), *(self._members[r].claims.host_identity for r in sorted(self._members))]
        self._library = _library(config, environment, report)
        self._store: TCPStore | None = None
        self._is_stepping = False
        self._configs = [_of_rank(config, self._hosts, rank) for rank in range(config.plan.num_ranks)]
        self._seats = ring_seats(self._hosts, has_native_code=self._library is not None, name=f"{self._name}-steps")
        try:
            self.groups, self.steps = self._join(host)
        except Exception as error:
            raise self.fail(error) from error

    @property
    def config(self) -> EngineConfig:
        """What rank 0 is to load."""
        return self._configs[0]

    def shares(self) -> list[LoadedShare]:
        """What all ranks but 0 have loaded; waits for it.

        Raises:
            ValueError, RankLostError: see `Gang`.
        """
        told = self._replies("loaded")
        return [
            decode_share(told[rank].loaded, rank_name=self._members[rank].name, position=self._position(rank))
            for rank in sorted(told)
        ]

    def begin_build(self, limits: SchedulerLimits) -> None:
        """Lets all other ranks allocate their KV caches."""
        for member in self._members.values():
            member.order(encode_limits(limits))

    def begin_steps(self) -> None:
        """Waits until all other ranks are ready for steps.

        Raises:
            ValueError, RankLostError: see `Gang`.
        """
        self._replies("ready")
        self._is_stepping = True
        for member in self._members.values():
            member.expect_steps(are_coming=True)

    def receiver(self, rank: int) -> StepReceiver:
        """Answers of another rank."""
        return self.steps.receivers[rank - 1]

    def check(self) -> None:
        """Raises RankLostError when a rank was lost; the text says which, and how it ended."""
        self._pool.watch.check()

    def explain(self, error: Exception) -> Exception:
        """Why this rank could not go on, where another one is to blame: what its loss brings about may come first."""
        limits = self._pool.limits
        is_another_ranks = isinstance(error, CommunicatorError | PeerLostError | PeerLateError)
        patience_s = limits.silence_s + 2 * limits.beat_s if is_another_ranks else limits.beat_s
        if not self._pool.watch.has_failed(patience_s):
            return error
        try:
            self.check()
        except RankLostError as loss:
            return loss
        return error

    def fail(self, error: Exception) -> Exception:
        """Ends all ranks after an error in the middle of a step: some may wait for what will not come.

        Returns:
            Whichever error is to blame; see `explain`.
        """
        cause, watch = self.explain(error), self._pool.watch
        if not watch.has_failed(0.0):
            watch.note(LossSign(LossKind.FAILED, f"rank 0 (the leader) failed: {type(error).__name__}: {error}"))
            watch.has_failed(self._pool.limits.beat_s)
        return cause

    def close(self) -> None:
        """Lets the ranks free their model and wait for another one.

        Raises:
            GangError: one does not within the limit; all ranks end.
        """
        self.groups.close()
        try:
            if not self._pool.watch.has_failed(0.0):
                self._release()
        finally:
            self.steps.close()

    def abandon(self) -> None:
        """The same, where something else has failed already: what goes wrong here is told by nobody."""
        with suppress(GangError, RankLostError, StepChannelError):
            self.close()

    def _release(self) -> None:
        if self._is_stepping:
            self.steps.send(encode_stop())
        else:
            self._order_all(gang_pb2.Order(release=gang_pb2.Release()))
        for member in self._members.values():
            self._released(member)
            member.rank = None

    def _join(self, host: HostResources) -> tuple[RankGroups, LeaderEnd]:
        mine, *others = [self._assignment(rank) for rank in range(len(self._configs))]
        for assignment in others:
            self._members[assignment.position.rank].order(encode_assignment(assignment))
        self._replies("prepared")
        self._order_all(gang_pb2.Order(load=gang_pb2.Load()))
        connections = [self._members[assignment.position.rank].take_steps() for assignment in others]
        with ExitStack() as failure:
            groups = join_groups(mine.invitations, self._means(mine, host))
            failure.callback(groups.close)
            steps = open_leader_end(connections, self._seats[1:], self._library, join_s=self._pool.limits.join_s)
            failure.pop_all()
        return groups, steps

    def _assignment(self, rank: int) -> Assignment:
        config, limits = self._configs[rank], self._pool.limits
        invitations = invite(
            config.plan, rank, hosts=self._hosts, shares_memory=self._library is not None, gang=self._name
        )
        if invitations.need_store and self._store is None:
            self._store = host_store(self._pool.address.host, limit_s=limits.join_s)
        return Assignment(
            position=self._position(rank),
            device_index=self._hosts[:rank].count(self._hosts[rank]),
            config=config,
            invitations=invitations,
            limits=GroupLimits(join_s=limits.join_s, wait_s=limits.wait_s),
            store=self._store_address() if invitations.need_store else None,
            ring=self._seats[rank],
        )

    def _means(self, mine: Assignment, host: HostResources) -> GroupMeans:
        config = mine.config
        return GroupMeans(
            device=torch.device(config.device),
            library=self._library,
            store=self._hosted_store,
            num_cores=host.num_cores // config.replicas_on_host,
            ranks_on_host=config.ranks_on_host,
            limits=mine.limits,
            own_host=self._pool.address.host,
        )

    def _hosted_store(self) -> TCPStore:
        assert self._store is not None, "it is hosted where a group is torch's"
        return self._store

    def _store_address(self) -> StoreAddress:
        return StoreAddress(host=self._pool.address.host, port=self._hosted_store().port)

    def _position(self, rank: int) -> RankPosition:
        return RankPosition.of(self._configs[0].plan, rank)

    def _order_all(self, order: gang_pb2.Order) -> None:
        for member in self._members.values():
            member.order(order)

    def _replies(self, kind: str) -> dict[int, gang_pb2.Reply]:
        """One of each other rank; the first refusal is raised."""
        return {rank: self._reply(member, kind) for rank, member in self._members.items()}

    def _reply(self, member: RankMember, kind: str) -> gang_pb2.Reply:
        reply = member.reply(self.check)
        said = reply.WhichOneof("kind")
        if said == kind:
            return reply
        if said != "failed":
            raise GangError(f"{member.name} said {said!r} where it should have said {kind!r}")
        text = f"{member.name}: {reply.failed.text}"
        raise ValueError(text) if reply.failed.is_refusal else GangError(text)

    def _released(self, member: RankMember) -> None:
        limit_s = self._pool.limits.release_s
        try:
            while member.reply(self.check, limit_s=limit_s).WhichOneof("kind") != "released":
                pass  # what it said before it heard
        except TimeoutError as error:
            text = f"{member.name} has not freed its model within {limit_s:g} s"
            self._pool.watch.note(LossSign(LossKind.SILENT, text))
            raise GangError(text) from error
        member.expect_steps(are_coming=False)


def _free_members(pool: RankPool, num_ranks: int) -> Mapping[int, RankMember]:
    members = pool.members(num_ranks)
    pool.watch.check()
    if busy := [member.name for member in members.values() if member.rank is not None]:
        raise GangError(f"rank processes serve another model still, whose engine must be closed: {', '.join(busy)}")
    return members


def _of_rank(config: EngineConfig, hosts: Sequence[str], rank: int) -> EngineConfig:
    return dataclasses.replace(config, ranks_on_host=Counter(hosts)[hosts[rank]])


def _library(config: EngineConfig, environment: Mapping[str, str], report: Report) -> NativeLibrary | None:
    """Code to share memory with, for tensors that lie there."""
    if torch.device(config.device).type != "cpu":
        return None
    try:
        return load_native_library(environment, report)
    except NativeUnavailableError as error:
        report(f"ranks exchange by gloo: {error}")
        return None
