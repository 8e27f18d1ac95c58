"""Orders reach the engine with the next turn, from its own thread, in their order."""

import dataclasses

import pytest

from shardline_cluster.replica.engine_driver import EngineDriver
from shardline_cluster.replica.progress_watch import ProgressWatch
from shardline_workers.engine import Capacity, EngineRequest, Sampling
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
    before = (driven.engine.has_work(), driven.driver.starting, driven.driver.has_orders)
    turn = await driven.driver.turn(step=True)

    assert before == (False, (REQUEST,), True)
    assert (driven.driver.starting, driven.driver.has_orders) == ((), False)
    assert len(turn.result.sequences) == 1
    assert driven.driver.capacity == Capacity(1, 20 - 7)
    assert driven.driver.has_work


async def test_a_request_dropped_before_its_turn_never_runs() -> None:
    driven = DrivenEngine()

    driven.driver.start(REQUEST)
    driven.driver.cancel("a")
    turn = await driven.driver.turn(step=True)

    assert driven.driver.starting == ()
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
