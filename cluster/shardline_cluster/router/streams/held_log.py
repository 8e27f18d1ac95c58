"""What a router holds of one sequence's log: compared with what the server shows, extended, cut where they differ.

Knows bytes only: no server, no client.
"""

from enum import Enum

from shardline_cluster.queue.calls import SequenceCommit
from shardline_cluster.queue.log_encoding import ID_BYTES
from shardline_cluster.queue.records import SequenceFinish, SequenceLog


class Fit(Enum):
    """How a published run of ids stands to what is held."""

    FITS = "fits"
    GAP = "gap"  # it begins past what is held: something was missed
    DIFFERS = "differs"  # the overlap is not equal


class HeldLog:
    """One sequence from token 0, growing; log-probabilities beside the ids where they are kept."""

    __slots__ = ("_ids", "_logprobs", "finish")

    def __init__(self, log: SequenceLog | None = None) -> None:
        log = log or SequenceLog()
        self._ids = bytearray(log.ids)
        self._logprobs = bytearray(log.logprobs)
        self.finish: SequenceFinish | None = log.finish

    @property
    def num_tokens(self) -> int:
        """Tokens held."""
        return len(self._ids) // ID_BYTES

    def ids(self, begin: int, end: int) -> bytes:
        """Packed ids of the tokens begin … end - 1."""
        return bytes(self._ids[begin * ID_BYTES : end * ID_BYTES])

    def logprobs(self, begin: int, end: int) -> bytes:
        """Packed log-probabilities of the tokens begin … end - 1; empty where none are kept."""
        width = _width(self._ids, self._logprobs)
        return bytes(self._logprobs[begin * width : end * width])

    def as_log(self) -> SequenceLog:
        """A frozen copy, as a restore sends it."""
        return SequenceLog(bytes(self._ids), bytes(self._logprobs), self.finish)

    def append(self, run: SequenceCommit) -> Fit:
        """Takes a published run in; changes nothing unless it fits."""
        if run.offset > self.num_tokens:
            return Fit.GAP
        overlap = self._ids[run.offset * ID_BYTES : run.offset * ID_BYTES + len(run.ids)]
        if not run.ids.startswith(overlap):
            return Fit.DIFFERS
        width = _width(run.ids, run.logprobs)
        self._ids += run.ids[len(overlap) :]
        self._logprobs += run.logprobs[len(overlap) // ID_BYTES * width :]
        if run.finish and run.offset + len(run.ids) // ID_BYTES == self.num_tokens:
            self.finish = run.finish
        return Fit.FITS

    def adopt(self, log: SequenceLog) -> int | None:
        """Takes over the server's log where it is longer or differs; tells the token at which it differs, if any.

        A log that is merely shorter changes nothing: the server may have forgotten its end.
        """
        same = common_tokens(self._ids, log.ids)
        differs = same < min(self.num_tokens, log.num_tokens)
        if differs or log.num_tokens > self.num_tokens:
            self._ids = bytearray(log.ids)
            self._logprobs = bytearray(log.logprobs)
            self.finish = log.finish
        elif log.num_tokens == self.num_tokens:
            self.finish = log.finish or self.finish
        return same if differs else None

    def cut(self, offset: int) -> None:
        """Forgets the tokens from `offset` on."""
        if offset >= self.num_tokens:
            return
        width = _width(self._ids, self._logprobs)
        del self._ids[offset * ID_BYTES :]
        del self._logprobs[offset * width :]
        self.finish = None


def common_tokens(one: bytes | bytearray, other: bytes | bytearray) -> int:
    """How many tokens two packed logs have in common from the start."""
    length = min(len(one), len(other))
    if one[:length] == other[:length]:
        return length // ID_BYTES
    low, high = 0, length // ID_BYTES  # the first `low` tokens are equal, the first `high` are not
    while high - low > 1:
        middle = (low + high) // 2
        if one[: middle * ID_BYTES] == other[: middle * ID_BYTES]:
            low = middle
        else:
            high = middle
    return low


def _width(ids: bytes | bytearray, logprobs: bytes | bytearray) -> int:
    return len(logprobs) // (len(ids) // ID_BYTES) if ids else 0
