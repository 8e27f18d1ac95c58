"""Background tasks end together, and only failures that belong to nobody are logged."""

import asyncio

import pytest

from shardline_cluster.router.background_tasks import BackgroundTasks


async def _fail() -> None:
    raise ValueError("broken")


async def test_a_failure_is_logged_with_its_owner_unless_it_belongs_to_a_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tasks = BackgroundTasks("lane x")

    begun = [tasks.spawn(_fail(), for_client=True), tasks.spawn(_fail())]
    await asyncio.wait(begun)
    await asyncio.sleep(0)

    assert [record.getMessage() for record in caplog.records] == ["a task of lane x failed"]


async def test_all_tasks_have_ended_when_they_were_cancelled() -> None:
    tasks = BackgroundTasks("lane x")
    begun = [tasks.spawn(asyncio.sleep(1000)) for _ in range(3)]

    await tasks.cancel_all()

    assert all(task.cancelled() for task in begun)
