"""Waiting for the first of several things to end."""

import asyncio
from collections.abc import Awaitable
from typing import Any


async def first_end(*waits: Awaitable[Any]) -> None:
    """Waits until one of them has ended, cancels the others, and raises what the first one raised."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
