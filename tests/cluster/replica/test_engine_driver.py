"""Orders reach the engine with the next turn, from its own thread, in their order."""

import asyncio
import dataclasses
from threading import Event

import pytest

from shardline_cluster.replica.engine_driver import EngineDriver, EngineFailedError
from shardline_cluster.replica.progress_watch import ProgressWatch
from shardline_cluster.replica.step_thread import DaemonStepThread
from shardline_workers.engine import Capacity, EngineRequest, Sampling, StepResult
from shardline_workers.simulated_engine import SimulatedEngine, SimulatedEngineConfig, SimulatedStepTimes
from tests.cluster.replica.virtual_time import VirtualStepThread

REQUEST = EngineRequest(request_id="a", prompt_ids=(1, 2, 3), sampling=Sampling(max_tokens=4))
CONFIG = SimulatedEngineConfig(max_num_seqs=2, max_model_len=10, times=SimulatedStepTimes(step_s=0.0))


class DrivenEngine:
    """A driver with what is around it."""

    def __init__(self, config: SimulatedEngineConfig = CONFIG) -> None:
        thread = VirtualStepThread()
        self.watch = ProgressWatch(least_limit_s=5.0)
        self.engine = SimulatedEngine(config, sleep=thread.sleep)
        self.driver = EngineDriver(self.engine, thread, self.watch)


async def test_a_start_waits_for_the_next_turn_and_is_counted_until_then() -> None:
    driven = DrivenEngine()

    driven.driver.start(REQUEST)
    before = (driven.engine.has_work(), driven.driver.room[1], driven.driver.has_orders)
    turn = await driven.driver.turn(step=True)

    assert before == (False, (REQUEST,), True)
    assert not driven.driver.has_orders
    assert len(turn.result.sequences) == 1
    assert driven.driver.room == (Capacity(1, 20 - 7), ())
    assert driven.driver.has_work


async def test_a_request_dropped_before_its_turn_never_runs() -> None:
    driven = DrivenEngine()

    driven.driver.start(REQUEST)
    driven.driver.cancel("a")
    turn = await driven.driver.turn(step=True)

    assert driven.driver.room[1] == ()
    assert (turn.result.sequences, turn.has_work) == ((), False)


async def test_a_request_that_does_not_fit_is_told_and_the_others_run() -> None:
    driven = DrivenEngine()

    driven.driver.start(dataclasses.replace(REQUEST, request_id="huge", sampling=Sampling(max_tokens=99)))
    driven.driver.start(REQUEST)
    turn = await driven.driver.turn(step=True)

    ((request_id, reason),) = turn.refused
    assert (request_id, [s.request_id for s in turn.result.sequences]) == ("huge", ["a"])
    assert "this engine holds 10" in reason


async def test_without_a_step_only_the_orders_are_carried_out() -> None:
    driven = DrivenEngine()

    driven.driver.start(REQUEST)
    turn = await driven.driver.turn(step=False)

    assert (turn.result.sequences, turn.has_work) == ((), True)


async def test_a_stopped_sequence_frees_its_room() -> None:
    driven = DrivenEngine()
    driven.driver.start(REQUEST)
    await driven.driver.turn(step=True)

    driven.driver.stop_sequence("a", 0)
    turn = await driven.driver.turn(step=True)

    assert (turn.has_work, turn.capacity.free_slots) == (False, 2)


async def test_the_watch_learns_what_the_step_should_take_and_when_it_is_over() -> None:
    driven = DrivenEngine(dataclasses.replace(CONFIG, times=SimulatedStepTimes(step_s=0.26)))
    driven.driver.start(REQUEST)

    await driven.driver.turn(step=True)

    assert driven.watch.limit_s == pytest.approx(5.2)
    assert driven.watch.deadline() is None


async def test_warming_up_leaves_nothing_behind() -> None:
    driven = DrivenEngine()

    await driven.driver.warm_up()

    assert not driven.engine.has_work()
    assert driven.engine.capacity() == Capacity(2, 20)


async def test_turns_begun_at_once_run_one_after_the_other_and_orders_wait_for_none_of_the_loops_doing() -> None:
    driven = DrivenEngine()
    driven.driver.start(REQUEST)

    first, second = driven.driver.turn(step=True), driven.driver.turn(step=True)
    steps = [len(turn.result.sequences) for turn in (await first, await second)]

    assert steps == [1, 1]


async def test_a_second_turn_carries_out_orders_that_came_after_it_was_begun() -> None:
    thread, gate = DaemonStepThread(), Event()
    engine = SimulatedEngine(CONFIG, sleep=lambda _: None)
    driver = EngineDriver(engine, thread, ProgressWatch(least_limit_s=5.0))
    blocked = thread.run(gate.wait)
    turn = driver.turn(step=True)

    driver.start(REQUEST)
    gate.set()

    assert await blocked
    assert [step.request_id for step in (await turn).result.sequences] == ["a"]
    assert driver.room == (Capacity(1, 20 - 7), ())
    thread.close()


async def test_requests_that_a_running_turn_adds_are_counted_as_starting() -> None:
    thread, entered, gate = DaemonStepThread(), Event(), Event()

    def wait(_: float) -> None:
        entered.set()
        gate.wait(10)

    engine = SimulatedEngine(CONFIG, sleep=wait)
    driver = EngineDriver(engine, thread, ProgressWatch(least_limit_s=5.0))
    driver.start(REQUEST)
    turn = driver.turn(step=True)

    await asyncio.to_thread(entered.wait, 10)
    during = (driver.room[1], driver.has_orders)
    gate.set()
    await turn

    assert during == ((REQUEST,), False)
    assert driver.room[1] == ()
    thread.close()


async def test_no_turn_touches_an_engine_that_failed_in_the_turn_before() -> None:
    class Failing(SimulatedEngine):
        def step(self) -> StepResult:
            raise RuntimeError("the device is gone")

    thread = VirtualStepThread()
    driver = EngineDriver(Failing(CONFIG, sleep=thread.sleep), thread, ProgressWatch(least_limit_s=5.0))
    driver.start(REQUEST)
    first, second = driver.turn(step=True), driver.turn(step=True)

    with pytest.raises(RuntimeError, match="the device is gone"):
        await first
    with pytest.raises(EngineFailedError, match="the engine failed in the turn before"):
        await second
