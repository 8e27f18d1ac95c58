"""The first end counts, and whatever else is waited for ends with it."""

import asyncio

import pytest

from shardline_cluster.processes.first_end import first_end


async def test_the_first_to_end_ends_the_wait_and_the_others() -> None:
    never = asyncio.create_task(asyncio.Event().wait())

    await first_end(asyncio.sleep(0), never)

    assert never.cancelled()


async def test_what_the_first_one_raised_is_raised_once_the_others_have_ended() -> None:
    cleaned = asyncio.Event()

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("first")

    async def clean_up() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    with pytest.raises(ValueError, match="first"):
        await first_end(fail(), clean_up())

    assert cleaned.is_set()


async def test_whoever_waits_is_cancelled_with_all_that_he_waits_for() -> None:
    never = asyncio.create_task(asyncio.Event().wait())
    waiting = asyncio.create_task(first_end(never))
    await asyncio.sleep(0)

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    assert waiting.cancelled()
    assert never.cancelled()
