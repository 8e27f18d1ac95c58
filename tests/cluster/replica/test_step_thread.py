"""Work runs in one thread of its own, in order, and what it raises comes back."""

import asyncio
import functools
import threading

import pytest

from shardline_cluster.replica.step_thread import DaemonStepThread


async def test_work_runs_in_order_in_one_other_thread() -> None:
    thread = DaemonStepThread()
    order: list[int] = []

    def work(number: int) -> int:
        order.append(number)
        return threading.get_ident()

    idents = await asyncio.gather(*(thread.run(functools.partial(work, i)) for i in range(20)))

    assert order == list(range(20))
    assert len(set(idents)) == 1
    assert threading.get_ident() not in idents
    thread.close()


async def test_an_error_reaches_the_caller_and_the_thread_lives_on() -> None:
    thread = DaemonStepThread()

    def fail() -> None:
        raise RuntimeError("the device is gone")

    with pytest.raises(RuntimeError, match="the device is gone"):
        await thread.run(fail)
    assert await thread.run(lambda: 3) == 3
    thread.close()


async def test_a_caller_that_gives_up_disturbs_nobody() -> None:
    thread, gate = DaemonStepThread(), threading.Event()
    waiting = thread.run(gate.wait)

    waiting.cancel()
    gate.set()

    assert await thread.run(lambda: 3) == 3
    assert waiting.cancelled()
    thread.close()


def test_a_loop_that_ended_meanwhile_is_left_alone() -> None:
    thread, gate = DaemonStepThread(), threading.Event()

    async def abandon() -> None:
        work = thread.run(gate.wait)
        await asyncio.sleep(0.01)
        work.cancel()

    asyncio.run(abandon())
    gate.set()

    async def go_on() -> int:
        return await thread.run(lambda: 4)

    assert asyncio.run(go_on()) == 4
    thread.close()
