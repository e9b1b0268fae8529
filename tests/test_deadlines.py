"""Deadlines of many tasks: each ends in its own time, and a cancel from outside stays one."""

from __future__ import annotations

import asyncio
import time

import pytest

from cai_cli.providers._deadlines import Deadlines


async def after(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


def test_each_task_has_its_own_deadline_whatever_the_order() -> None:
    async def main() -> list[object]:
        deadlines = Deadlines()
        pairs = [(0.05, 60.0), (60.0, 0.2), (60.0, 0.1), (0.3, 30.0), (60.0, 0.15)]
        kept = (deadlines.keep(after(work), seconds) for work, seconds in pairs)
        return list(await asyncio.gather(*kept, return_exceptions=True))

    began = time.monotonic()
    assert [one if isinstance(one, float) else type(one) for one in asyncio.run(main())] == [
        0.05, TimeoutError, TimeoutError, 0.3, TimeoutError,
    ]  # fmt: skip
    assert time.monotonic() - began < 3


def test_a_deadline_later_than_one_that_passed_still_comes() -> None:
    async def main() -> None:
        deadlines = Deadlines()
        first = asyncio.create_task(deadlines.keep(after(60), 0.05))
        second = asyncio.create_task(deadlines.keep(after(60), 0.15))
        for task in (first, second):
            with pytest.raises(TimeoutError):
                await task
            assert not task.cancelled()

    asyncio.run(asyncio.wait_for(main(), 3))


def test_a_cancel_from_outside_is_no_timeout() -> None:
    async def main() -> None:
        deadlines = Deadlines()
        task = asyncio.create_task(deadlines.keep(after(60), 30))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(main(), 3))


def test_what_is_raised_comes_through_and_a_task_may_ask_again() -> None:
    async def fail() -> None:
        raise ZeroDivisionError("a bug")

    async def main() -> float:
        deadlines = Deadlines()
        with pytest.raises(ZeroDivisionError):
            await deadlines.keep(fail(), 30)
        with pytest.raises(TimeoutError):
            await deadlines.keep(after(60), 0.02)
        return await deadlines.keep(after(0.05), 30)

    assert asyncio.run(asyncio.wait_for(main(), 3)) == 0.05
