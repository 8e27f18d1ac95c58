"""A step as it was written down: pieces of native operations, cut where something else has to be done between them.

[ embedding ] all_reduce by gloo [ norm · linear · … · linear ] all_reduce by gloo [ norm · … ]
"""

from collections.abc import Callable
from dataclasses import dataclass

from shardline_workers.communicator import Communicator
from shardline_workers.kernels import native_api as api
from shardline_workers.kernels.operations import Operations
from shardline_workers.kernels.step_buffers import StepBuffers

HostCall = Callable[[Operations], None]  # makes calls to the reference's operations, on the program's own buffers


@dataclass(frozen=True, slots=True)
class Recording:
    """What was written down, and everything whose address stands in it."""

    pieces: tuple[tuple[api.Op, ...] | HostCall, ...]
    step: StepBuffers
    groups: tuple[Communicator, ...]  # that native operations call
    kept: tuple[object, ...]

    @property
    def ops(self) -> tuple[api.Op, ...]:
        """All native operations."""
        return tuple(op for piece in self.pieces if isinstance(piece, tuple) for op in piece)


class RecordingPieces:
    """Takes a step down, call by call."""

    def __init__(self) -> None:
        self._pieces: list[list[api.Op] | HostCall] = []
        self._step: StepBuffers | None = None
        self._groups: list[Communicator] = []
        self._kept: list[object] = []

    def add_op(self, step: StepBuffers, op: api.Op) -> None:
        """A native operation comes next."""
        self._take(step)
        if not self._pieces or not isinstance(self._pieces[-1], list):
            self._pieces.append([])
        piece = self._pieces[-1]
        assert isinstance(piece, list), "it was opened above"
        piece.append(op)

    def add_host_call(self, step: StepBuffers, call: HostCall) -> None:
        """A call comes next that native code cannot make."""
        self._take(step)
        self._pieces.append(call)

    def keep(self, kept: object) -> None:
        """Something whose address stands in an operation."""
        self._kept.append(kept)

    def add_group(self, group: Communicator) -> None:
        """A group that an operation calls."""
        self._groups.append(group)

    def finish(self) -> Recording:
        """Everything so far."""
        assert self._step is not None, "a program without operations"
        pieces = tuple(tuple(piece) if isinstance(piece, list) else piece for piece in self._pieces)
        return Recording(pieces, self._step, tuple(dict.fromkeys(self._groups)), tuple(self._kept))

    def _take(self, step: StepBuffers) -> None:
        assert self._step is None or self._step is step, "a program reads one step's buffers"
        self._step = step
