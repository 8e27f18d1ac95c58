"""Which sequences wait and which run, and the slots of those that run. Pure bookkeeping."""

from bisect import insort
from collections.abc import Sequence
from heapq import heappop, heappush

from shardline_workers.scheduling.request import SequenceState, SequenceStatus


def arrival(state: SequenceState) -> int:
    """The order of both queues."""
    return state.arrival


class SequenceQueues:
    """Every living sequence is in one of the two."""

    def __init__(self, num_slots: int) -> None:
        self._num_slots = num_slots
        self._free_slots = list(range(num_slots))  # a heap: the lowest first
        self._waiting: list[SequenceState] = []  # by arrival
        self._running: list[SequenceState] = []  # by arrival

    @property
    def waiting(self) -> Sequence[SequenceState]:
        """By arrival."""
        return self._waiting

    @property
    def running(self) -> Sequence[SequenceState]:
        """By arrival; each has a slot."""
        return self._running

    @property
    def num_free_slots(self) -> int:
        """Sequences that could run besides."""
        return len(self._free_slots)

    def add(self, state: SequenceState) -> None:
        """A new sequence waits."""
        self._waiting.append(state)

    def start(self, state: SequenceState) -> None:
        """A waiting sequence runs, in the lowest free slot."""
        self._waiting.remove(state)
        state.status = SequenceStatus.RUNNING
        state.slot = heappop(self._free_slots)
        insort(self._running, state, key=arrival)

    def send_back(self, state: SequenceState) -> None:
        """A running sequence waits again, before all that arrived after it."""
        self._leave_slot(state)
        state.status = SequenceStatus.WAITING
        insort(self._waiting, state, key=arrival)

    def remove(self, state: SequenceState) -> None:
        """A sequence has ended."""
        if state.status is SequenceStatus.RUNNING:
            self._leave_slot(state)
        else:
            self._waiting.remove(state)
        state.status = SequenceStatus.ENDED

    def check_integrity(self, alive: Sequence[SequenceState]) -> None:
        """Raises AssertionError where the books differ from `alive`, all sequences that live."""
        assert sorted(map(arrival, alive)) == sorted(map(arrival, self._waiting + self._running)), (
            "a living sequence is in no queue or in two"
        )
        slots = [state.slot for state in self._running if state.slot is not None] + self._free_slots
        assert sorted(slots) == list(range(self._num_slots)), f"slots are used twice or lost: {sorted(slots)}"
        for state in self._waiting:
            assert not state.block_ids, f"{state.key} waits and holds {len(state.block_ids)} blocks"

    def _leave_slot(self, state: SequenceState) -> None:
        assert state.slot is not None, "a running sequence has a slot"
        self._running.remove(state)
        heappush(self._free_slots, state.slot)
        state.slot = None
