"""The leader's view of one rank process."""

import contextlib
import queue
import socket
from collections.abc import Callable

from google.protobuf.message import DecodeError

from shardline_protos import gang_pb2
from shardline_workers.gang.conversation import Conversation
from shardline_workers.gang.framed_connection import ConnectionLostError, FramedConnection
from shardline_workers.gang.gang_error import GangError
from shardline_workers.gang.gang_limits import GangLimits
from shardline_workers.gang.host_identity import WatchedProcess, end_in_words, host_identity
from shardline_workers.gang.loss_verdict import LossKind, LossSign

_END_S = 0.5  # from a closed connection to the end of its process
_REPLY_POLL_S = 0.1

Report = Callable[[str], None]


class RankMember:
    """One process that has proved itself. Its rank comes with an assignment."""

    def __init__(
        self,
        claims: gang_pb2.Claims,
        *,
        talk: FramedConnection,
        limits: GangLimits,
        exit_code: Callable[[int], int | None],
    ) -> None:
        """Takes its connection over.

        Args:
            claims: what it said that it is.
            talk: its connection.
            limits: how patient to be.
            exit_code: of a child of this process, where its process id is one's that has ended.
        """
        self.claims = claims
        self.rank: int | None = None
        self._exit_code = exit_code
        self._steps: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        self._latest_steps: socket.socket | None = None
        self._replies: queue.SimpleQueue[gang_pb2.Reply] = queue.SimpleQueue()
        self._process = _watched(claims)
        self._conversation = Conversation(
            talk, beat_s=limits.beat_s, silence_s=limits.loading_silence_s, hear=self._hear, lost=self._lose
        )
        self._limits = limits
        self._is_stepping = False
        self._note: Callable[[LossSign], None] = lambda _: None
        self._report: Report = lambda _: None

    @property
    def only_rank(self) -> int | None:
        """The only one that it may become."""
        return self.claims.rank if self.claims.HasField("rank") else None

    @property
    def pid(self) -> int:
        """Of its process, on its host."""
        return self.claims.pid

    @property
    def name(self) -> str:
        """For people."""
        place = f"process {self.claims.pid} on {self.claims.host}"
        return place if self.rank is None else f"rank {self.rank} ({place})"

    def start(self, note: Callable[[LossSign], None], report: Report) -> None:
        """Begins to talk.

        Args:
            note: gets the sign of its loss.
            report: gets lines for the user.
        """
        self._note, self._report = note, report
        self._conversation.start()

    def expect_steps(self, *, are_coming: bool) -> None:
        """Whether it computes steps, or loads a model, which may hold up its signs of life."""
        limits = self._limits
        self._is_stepping = are_coming
        self._conversation.silence_s = limits.silence_s if are_coming else limits.loading_silence_s

    def attach(self, steps: socket.socket) -> None:
        """A connection for the steps of its next assignment has come."""
        self._latest_steps = steps
        self._steps.put(steps)

    def take_steps(self) -> socket.socket:
        """That connection, once the rank has said that it is prepared. It is the caller's.

        Raises:
            GangError: it has not come.
        """
        limit_s = self._limits.handshake_s
        try:
            return self._steps.get(timeout=limit_s)
        except queue.Empty:
            raise GangError(f"{self.name} opened no connection for steps within {limit_s:g} s") from None

    def order(self, order: gang_pb2.Order) -> None:
        """Tells it what to do. A connection that is lost is noted elsewhere."""
        with contextlib.suppress(ConnectionLostError):
            self._conversation.say(order.SerializeToString())

    def reply(self, check: Callable[[], None], *, limit_s: float = float("inf")) -> gang_pb2.Reply:
        """Waits for its answer.

        Args:
            check: raises where waiting is of no use any more.
            limit_s: for the answer.

        Raises:
            TimeoutError: there is none.
        """
        waited_s = 0.0
        while waited_s < limit_s:
            check()
            with contextlib.suppress(queue.Empty):
                return self._replies.get(timeout=_REPLY_POLL_S)
            waited_s += _REPLY_POLL_S
        raise TimeoutError(f"{self.name} has not answered within {limit_s:g} s")

    def kill(self) -> None:
        """Ends its process where that can be reached, and its connections anyway, which ends it elsewhere."""
        if self._process is not None:
            self._process.kill()
        if self._latest_steps is not None:
            with contextlib.suppress(OSError):  # it is closed
                self._latest_steps.shutdown(socket.SHUT_RDWR)

    def dismiss(self) -> None:
        """Lets its process end, which must have released its model."""
        self.order(gang_pb2.Order(dismissal=gang_pb2.Dismissal()))

    def close(self) -> None:
        """Ends all talk."""
        self._conversation.close()
        if self._latest_steps is not None:
            self._latest_steps.close()
        if self._process is not None:
            self._process.close()
            self._process = None

    def _hear(self, message: bytes) -> None:
        try:
            reply = gang_pb2.Reply.FromString(message)
        except DecodeError as error:
            raise ConnectionLostError(f"it said what is no reply: {error}") from error
        kind = reply.WhichOneof("kind")
        if kind == "line":
            self._report(f"rank {self.rank}: {reply.line}")
        elif kind == "failed" and self._is_stepping:
            which = LossKind.FOLLOWED if reply.failed.is_another_ranks else LossKind.FAILED
            self._note(LossSign(which, f"{self.name} failed: {reply.failed.text}"))
        else:
            self._replies.put(reply)

    def _lose(self, why: str) -> None:
        process = self._process
        if process is None:
            self._note(LossSign(LossKind.DIED, f"{self.name} is lost: {why}"))
        elif process.has_ended(_END_S):
            self._note(LossSign(LossKind.DIED, f"{self.name} {end_in_words(self._exit_code(self.claims.pid))}"))
        else:
            state = ", since it is stopped" if process.is_stopped() else ""
            self._note(LossSign(LossKind.SILENT, f"{self.name} is lost: {why}{state}"))


def _watched(claims: gang_pb2.Claims) -> WatchedProcess | None:
    if claims.host_identity != host_identity():
        return None
    try:
        return WatchedProcess(claims.pid)
    except (OSError, AttributeError):  # gone again, which its connection tells; or no Linux
        return None
