"""The leader's hand on its engine: everything that it is told waits for the next turn of the step thread."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock

from shardline_cluster.replica.progress_watch import ProgressWatch
from shardline_cluster.replica.step_thread import StepThread
from shardline_workers.engine import (
    Capacity,
    Engine,
    EngineDescription,
    EngineRequest,
    Sampling,
    StepResult,
)

WARM_UP_TOKENS = 2  # a prefill and a decode


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn of the step thread brought."""

    result: StepResult
    capacity: Capacity
    has_work: bool
    refused: tuple[tuple[str, str], ...] = ()  # engine request id and reason
    step_s: float | None = None  # how long the step took; None: there was none, or only a probe


class EngineFailedError(RuntimeError):
    """The engine raised in a turn before, and is not to be used any more."""


@dataclass(slots=True)
class _Orders:
    """What the engine is told at the beginning of the next turn, in order."""

    calls: list[Callable[[Engine], None]] = field(default_factory=list)
    starts: dict[str, EngineRequest] = field(default_factory=dict)
    refused: list[tuple[str, str]] = field(default_factory=list)


class EngineDriver:
    """Turns orders into calls from the step thread, a step behind them.

    Several turns may be begun at once: they run one after the other, and each carries out all orders that are there
    when its time comes. So the engine need not wait for the event loop between two steps.
    """

    def __init__(self, engine: Engine, thread: StepThread, watch: ProgressWatch) -> None:
        self._engine = engine
        self._thread = thread
        self._watch = watch
        self._lock = Lock()  # of the orders: the loop writes, the step thread takes
        self._orders = _Orders()
        self._adding: dict[str, EngineRequest] = {}  # by the turn that runs
        self._capacity = engine.capacity()
        self._description = engine.description
        self._has_work = False
        self._has_failed = False
        self._num_turns = 0

    @property
    def description(self) -> EngineDescription:
        """What was loaded."""
        return self._description

    @property
    def room(self) -> tuple[Capacity, tuple[EngineRequest, ...]]:
        """Room after the last turn, and the requests that it does not count yet, of one instant: turns end any time."""
        with self._lock:
            return self._capacity, (*self._adding.values(), *self._orders.starts.values())

    @property
    def has_orders(self) -> bool:
        """Whether the next turn has something to tell the engine."""
        with self._lock:
            return bool(self._orders.calls)

    @property
    def has_work(self) -> bool:
        """Whether the engine had something to compute after the last turn."""
        return self._has_work

    def start(self, request: EngineRequest) -> None:
        """Has a request added; its id must be new to the engine."""
        with self._lock:
            orders = self._orders
            orders.starts[request.request_id] = request
            orders.calls.append(lambda engine: _add(engine, request, orders.refused))

    def stop_sequence(self, request_id: str, sequence: int) -> None:
        """Has one sequence ended."""
        with self._lock:
            self._orders.calls.append(lambda engine: engine.stop_sequence(request_id, sequence))

    def cancel(self, request_id: str) -> None:
        """Has a request dropped, whether it was added yet or not."""
        with self._lock:
            self._orders.starts.pop(request_id, None)
            self._orders.calls.append(lambda engine: engine.cancel(request_id))

    def turn(self, *, step: bool, probe: bool = False) -> "asyncio.Future[Turn]":
        """Begins a turn: the orders, then a step where there is work; with `probe` a step also without work.

        The future raises whatever the engine raised: it is not to be used any more.
        """
        now = asyncio.get_running_loop().time
        self._num_turns += 1
        number = self._num_turns

        def work() -> Turn:
            self._watch.begin(now(), step=number)
            return self._guarded_turn(step=step, probe=probe)

        turn = self._thread.run(work)
        turn.add_done_callback(lambda _: self._watch.end(number))
        return turn

    async def warm_up(self) -> None:
        """Runs a tiny request, so that the first real one does not pay for compilations and first touches."""
        await self._thread.run(self._warm_up)

    async def close(self) -> None:
        """Closes the engine, in its thread, and ends the thread."""
        await self._thread.run(self._engine.close)
        self._thread.close()

    def _guarded_turn(self, *, step: bool, probe: bool) -> Turn:
        """In the step thread."""
        if self._has_failed:
            raise EngineFailedError("the engine failed in the turn before")
        try:
            turn = self._turn(self._take_orders(), step=step, probe=probe)
        except BaseException:
            self._has_failed = True
            raise
        with self._lock:
            self._capacity, self._has_work, self._adding = turn.capacity, turn.has_work, {}
        return turn

    def _take_orders(self) -> _Orders:
        with self._lock:
            orders, self._orders = self._orders, _Orders()
            self._adding = orders.starts
        return orders

    def _turn(self, orders: _Orders, *, step: bool, probe: bool) -> Turn:
        engine = self._engine
        for call in orders.calls:
            call(engine)
        result, step_s = StepResult(), None
        has_work = engine.has_work()
        if step and (probe or has_work):
            self._watch.expect(engine.expected_step_s())
            began_s = time.perf_counter()
            result = engine.step()
            step_s = time.perf_counter() - began_s if has_work else None
        return Turn(result, engine.capacity(), engine.has_work(), tuple(orders.refused), step_s)

    def _warm_up(self) -> None:
        engine = self._engine
        sampling = Sampling(temperature=0.0, max_tokens=WARM_UP_TOKENS)
        engine.add(EngineRequest(request_id="warm-up", prompt_ids=(0,), sampling=sampling))
        while engine.has_work():
            engine.step()


def _add(engine: Engine, request: EngineRequest, refused: list[tuple[str, str]]) -> None:
    try:
        engine.add(request)
    except ValueError as error:  # RequestTooLargeError, or a request that this engine cannot make sense of
        refused.append((request.request_id, str(error)))
