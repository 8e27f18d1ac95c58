"""One lane in Redis. Every method is one script; what it means stands in docs/protocol.md and in the script's head."""

import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

from shardline_cluster.errors import InvalidCallError, ShardlineError
from shardline_cluster.queue.answers import (
    ClaimAnswer,
    CommitAnswer,
    Ended,
    ForgetCode,
    Gone,
    LaneFull,
    LaneView,
    OnHold,
    RestoreAnswer,
    RestoreCode,
    Snapshot,
    SubmitAnswer,
)
from shardline_cluster.queue.call_encoding import (
    read_restore_answer,
    read_snapshot,
    read_submit_answer,
    read_usage,
    read_view,
    restore_pages,
)
from shardline_cluster.queue.calls import ClaimCall, CommitCall, DeadMember, LaneBounds, Member, RestoreCall
from shardline_cluster.queue.lane_names import LaneNames
from shardline_cluster.queue.lane_scripts import LaneScript, load_lane_scripts
from shardline_cluster.queue.published import QueueMessage
from shardline_cluster.queue.record_encoding import (
    join_logs,
    pack_offsets,
    pack_submission,
)
from shardline_cluster.queue.records import Grant, Submission
from shardline_cluster.queue.redis_connection import RedisAddress, RedisConnections, parse_info
from shardline_cluster.queue.redis_subscription import listen_to_lane
from shardline_cluster.queue.request_queue import Reply
from shardline_cluster.queue.step_encoding import (
    check_nonce,
    pack_entries,
    pack_grants,
    read_claim_answer,
    read_commit_answer,
)
from shardline_cluster.queue.tenant_usage import TenantUsage
from shardline_cluster.queue.terms import QueueTerms

T = TypeVar("T")
U = TypeVar("U")
NUM_CALL_CONNECTIONS = 4  # beside the one that is kept for commits
MEMORY_RETRY_MS = 1_000  # asked of a client that met a full server


class RedisRequestQueue:
    """`RequestQueue` over one Redis or Valkey server. Belongs to one event loop."""

    def __init__(
        self,
        url: str,
        lane: str,
        *,
        prefix: str,
        terms: QueueTerms,
        scripts: Mapping[str, LaneScript] | None = None,
    ) -> None:
        self._address = RedisAddress.parse(url)
        self._names = LaneNames(prefix, lane)
        self._terms = terms
        self._scripts = scripts or load_lane_scripts()
        timeout_s = terms.call_timeout_ms / 1000
        self._calls = RedisConnections(self._address, size=NUM_CALL_CONNECTIONS, timeout_s=timeout_s)
        self._commits = RedisConnections(self._address, size=1, timeout_s=timeout_s)
        self._packed_terms = _packed(terms, hold_ms=terms.hold_ms)

    @property
    def lane(self) -> str:
        """Name of the lane."""
        return self._names.lane

    @property
    def terms(self) -> QueueTerms:
        """The periods by which this lane lives."""
        return self._terms

    # --- calling -------------------------------------------------------------------------------------------------

    async def _call(
        self, name: str, *arguments: str | bytes | int, connections: RedisConnections | None = None
    ) -> Reply[bytes]:
        """Runs a script by this lane's terms."""
        return await self._run(name, self._packed_terms, *arguments, through=connections or self._calls)

    async def _run(self, name: str, *arguments: str | bytes | int, through: RedisConnections) -> Reply[bytes]:
        """Runs a script; loads it where the server does not have it."""
        script = self._scripts[name]
        command = ("EVALSHA", script.sha, 1, self._names.lane_key, *arguments)
        try:
            try:
                answer = await through.execute(*command)
            except NoScriptError:
                await through.execute("SCRIPT", "LOAD", script.text)
                answer = await through.execute(*command)
        except OutOfMemoryError:
            raise
        except ResponseError as error:
            raise _script_error(name, error) from error
        identity, in_hold, now_ms, body = answer
        return Reply(identity.decode(), bool(in_hold), int(now_ms), body)

    async def _order(self, name: str, *arguments: str | bytes | int) -> Reply[None]:
        return _with_value(await self._call(name, *arguments), None)

    # --- members and bounds --------------------------------------------------------------------------------------

    async def register(self, member: Member) -> Reply[None]:
        """Gives a leader or router its lease, or renews it."""
        m = member
        said = (m.numerics_id, m.max_slots, m.max_tokens, m.status)
        return await self._order("register", m.incarnation, m.role.value, *said)

    async def configure(self, bounds: LaneBounds) -> Reply[None]:
        """Sets what the lane takes in."""
        b = bounds
        largest = "" if b.largest_request_tokens is None else b.largest_request_tokens
        weights = [part for tenant, weight in b.tenant_weights for part in (tenant, repr(weight))]
        limits = (b.max_waiting_requests, b.max_waiting_tokens, b.max_waiting_bytes)
        return await self._order("configure", *limits, largest, *weights)

    # --- for routers ---------------------------------------------------------------------------------------------

    async def submit(self, router: str, listener_number: int, submission: Submission) -> Reply[SubmitAnswer]:
        """Accepts a request, with `router` listening unless it is a background request."""
        try:
            reply = await self._call("submit", router, listener_number, pack_submission(submission))
        except OutOfMemoryError:
            return await self._memory_is_full()
        return _with_value(reply, read_submit_answer(reply.value, submission))

    async def _memory_is_full(self) -> Reply[SubmitAnswer]:
        """The server did not run the script, so that identity and clock are asked with one that it runs."""
        reply = await self._call("view")
        info = parse_info(await self._calls.execute("INFO", "memory"))
        return _with_value(reply, LaneFull("memory", int(info.get("maxmemory", 0)), MEMORY_RETRY_MS))

    async def cancel(self, request_id: str, tenant: str) -> Reply[Ended | OnHold | Gone]:
        """Ends a request now, or tells the end that it has."""
        reply = await self._read(await self._call("cancel", request_id, tenant), request_id, tenant)
        found = reply.value
        if not isinstance(found, Snapshot):
            return _with_value(reply, found)
        assert found.end is not None, "a cancelled request has an end"
        return _with_value(reply, Ended(found.info, found.end, found.logs))

    async def attach(
        self, router: str, listener_number: int, request_id: str, tenant: str, *, held: Sequence[int] = ()
    ) -> Reply[Snapshot | OnHold | Gone]:
        """Registers a listener, then reads record and logs, with nothing falling between."""
        reply = await self._call("attach", router, listener_number, request_id, tenant, pack_offsets(held))
        return await self._read(reply, request_id, tenant, held=held)

    async def look(self, request_id: str, tenant: str) -> Reply[Snapshot | OnHold | Gone]:
        """Reads record and logs without listening."""
        return await self._look(request_id, tenant, held=())

    async def _look(self, request_id: str, tenant: str, *, held: Sequence[int]) -> Reply[Snapshot | OnHold | Gone]:
        reply = await self._call("look", request_id, tenant, pack_offsets(held))
        return await self._read(reply, request_id, tenant, held=held)

    async def _read(
        self, reply: Reply[bytes], request_id: str, tenant: str, *, held: Sequence[int] = ()
    ) -> Reply[Snapshot | OnHold | Gone]:
        """Opens a snapshot of what comes after `held`, and reads the pages that did not fit into the reply."""
        found, lengths = read_snapshot(reply.value)
        while isinstance(found, Snapshot):
            begins = held or (0,) * len(found.logs)
            read = [begin + log.num_tokens for begin, log in zip(begins, found.logs, strict=True)]
            if all(offset >= length for offset, length in zip(read, lengths, strict=True)):
                break
            page = await self._call("look", request_id, tenant, pack_offsets(read))
            more, lengths = read_snapshot(page.value)
            if page.identity != reply.identity or not isinstance(more, Snapshot):
                return await self._look(request_id, tenant, held=held)  # another server, or gone meanwhile: once more
            joined = tuple(join_logs(log, rest) for log, rest in zip(found.logs, more.logs, strict=True))
            reply, found = page, replace(more, logs=joined)
        return _with_value(reply, found)

    async def detach(self, router: str, listener_number: int, request_id: str) -> Reply[None]:
        """Takes a listener away; ignored where a newer attach of this router has a higher number."""
        return await self._order("detach", router, listener_number, request_id)

    async def forget(self, request_id: str, tenant: str) -> Reply[ForgetCode]:
        """Deletes an ended request before its retention is over."""
        reply = await self._call("forget", request_id, tenant)
        return _with_value(reply, ForgetCode(reply.value.decode()))

    # --- for leaders ---------------------------------------------------------------------------------------------

    async def claim(self, call: ClaimCall) -> Reply[ClaimAnswer]:
        """Grants waiting requests to a leader; renews its lease; sweeps a little."""
        room = (max(0, call.free_slots), max(0, call.free_tokens), call.inbox_seen)
        reply = await self._call("claim", call.incarnation, call.number, check_nonce(call.nonce), *room)
        return _with_value(reply, read_claim_answer(reply.value))

    async def commit(self, call: CommitCall) -> Reply[CommitAnswer]:
        """Appends a step's tokens, publishes them, renews the lease. Never waits behind another call."""
        arguments = (call.incarnation, call.inbox_seen, int(call.list_held), pack_entries(call.entries))
        reply = await self._call("commit", *arguments, connections=self._commits)
        return _with_value(reply, read_commit_answer(reply.value, call.entries))

    async def release(self, incarnation: str, grants: Sequence[tuple[str, Grant]]) -> Reply[None]:
        """Hands requests back with the tokens that they have. Counts nothing."""
        return await self._order("release", incarnation, pack_grants(grants))

    # --- for everybody -------------------------------------------------------------------------------------------

    async def sweep(self, router: str | None, dead: Sequence[DeadMember] = ()) -> Reply[None]:
        """Ends what is over: leases, deadlines, graces, waits, retentions. Renews the router's lease."""
        seen = [part for member in dead for part in (member.incarnation, int(member.had_drained))]
        return await self._order("sweep", router or "", *seen)

    async def restore(self, call: RestoreCall) -> Reply[RestoreAnswer]:
        """Gives a server back what it may have forgotten, in pages where the logs are long."""
        info = call.info
        deadline = "" if info.deadline_ms is None else info.deadline_ms
        head = (call.incarnation, pack_submission(info.submission), info.submitted_ms, deadline)
        refused: Reply[RestoreAnswer] | None = None
        for page in restore_pages(call):
            reply = await self._call("restore", *head, page.logs, page.grant, page.end)
            answer = read_restore_answer(reply.value)
            if answer.code is RestoreCode.REFUSED:
                refused = _with_value(reply, answer)
            elif answer.code is not RestoreCode.OK:
                break
        return refused or _with_value(reply, answer)

    async def drain(self, incarnation: str) -> Reply[None]:
        """Puts a drain message into a leader's inbox."""
        return await self._order("drain", incarnation)

    async def open(self) -> None:
        """Makes the lane, and with it a hold, where it is not there."""
        await self._call("view")

    async def open_on_new_server(self) -> None:
        """Makes the lane without a hold; one that is there stays as it is.

        Only for a server that was started a moment ago on an empty folder, and that nobody has written to: it cannot
        have forgotten anything. When it is started again it has another identity, and holds like any other.
        """
        await self._run("view", _packed(self._terms, hold_ms=0), through=self._calls)

    async def view(self) -> Reply[LaneView]:
        """Counters and members of the lane, for people and the controller."""
        reply = await self._call("view")
        return _with_value(reply, read_view(reply.value, reply.now_ms))

    async def usage(self) -> Reply[tuple[TenantUsage, ...]]:
        """What the lane's ended requests have used, in order of tenants."""
        reply = await self._call("usage")
        return _with_value(reply, read_usage(reply.value))

    def listen(self, incarnation: str) -> AsyncIterator[QueueMessage]:
        """Messages for a leader or router; reconnects by itself."""
        return listen_to_lane(self._address, self._names, incarnation, terms=self._terms)

    async def close(self) -> None:
        """Closes connections."""
        await self._calls.close()
        await self._commits.close()


def _packed(terms: QueueTerms, *, hold_ms: int) -> bytes:
    """Terms as scripts read them."""
    return struct.pack(
        "<6I",
        *(terms.lease_ms, hold_ms, terms.sweep_ms, terms.unstored_ms),
        *(terms.max_crashes, terms.max_fruitless_claims),
    )


def _with_value(reply: Reply[bytes] | Reply[T], value: U) -> Reply[U]:
    return Reply(reply.identity, reply.in_hold, reply.now_ms, value)


def _script_error(name: str, error: ResponseError) -> ShardlineError:
    """A script's own refusal, or what else stopped it. Nothing was written: scripts check everything first."""
    message = str(error)
    if message.startswith("INVALID "):
        return InvalidCallError(message.removeprefix("INVALID "))
    return ShardlineError(f"the script {name} of the queue failed, which is a fault in Shardline: {message}")
