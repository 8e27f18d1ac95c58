"""A leader of a few lines: claims what waits and commits the ids that a test names."""

from collections.abc import Sequence

from shardline_cluster.queue.answers import CommitCode, GrantedRequest
from shardline_cluster.queue.calls import ClaimCall, CommitCall, CommitEntry, Member, MemberRole, SequenceCommit
from shardline_cluster.queue.log_encoding import pack_ids
from shardline_cluster.queue.records import SequenceFinish
from shardline_cluster.queue.request_queue import RequestQueue

STOP = SequenceFinish("stop")
LENGTH = SequenceFinish("length")


class ScriptedLeader:
    """Holds what it claimed, by request id."""

    def __init__(self, queue: RequestQueue, incarnation: str = "leader-1") -> None:
        self._queue = queue
        self._incarnation = incarnation
        self._claims = 0
        self.held: dict[str, GrantedRequest] = {}
        self.lengths: dict[tuple[str, int], int] = {}

    async def register(self) -> None:
        await self._queue.register(Member(incarnation=self._incarnation, role=MemberRole.LEADER))

    async def claim(self) -> Sequence[GrantedRequest]:
        """Claims everything that waits."""
        self._claims += 1
        nonce = f"{self._incarnation[-1]}{self._claims:07d}".encode()
        call = ClaimCall(
            incarnation=self._incarnation,
            number=self._claims,
            nonce=nonce,
            free_slots=1000,
            free_tokens=10**9,
            inbox_seen=0,
        )
        granted = (await self._queue.claim(call)).value.granted
        for request in granted:
            self.held[request.info.id] = request
            for sequence, log in enumerate(request.logs):
                self.lengths[request.info.id, sequence] = log.num_tokens
        return granted

    async def commit(
        self,
        request_id: str,
        ids: Sequence[int] = (),
        *,
        sequence: int = 0,
        finish: SequenceFinish | None = None,
        logprobs: bytes = b"",
    ) -> CommitCode:
        """Appends to one sequence of a claimed request."""
        offset = self.lengths[request_id, sequence]
        run = SequenceCommit(sequence, offset, pack_ids(ids), logprobs, finish)
        entry = CommitEntry(request_id, self.held[request_id].grant, (run,))
        answer = await self._queue.commit(CommitCall(incarnation=self._incarnation, inbox_seen=0, entries=(entry,)))
        code = answer.value.results[0].code
        if code in (CommitCode.OK, CommitCode.HELD):
            self.lengths[request_id, sequence] += len(ids)
        return code

    def length(self, request_id: str, sequence: int = 0) -> int:
        """Tokens that the log holds, as far as this leader knows."""
        return self.lengths[request_id, sequence]

    async def release(self, request_id: str) -> None:
        """Hands a request back; of one that is not its own this does nothing."""
        held = self.held.pop(request_id)
        await self._queue.release(self._incarnation, [(request_id, held.grant)])
