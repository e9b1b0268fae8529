"""Time behind one name, so that a ten-minute outage can be tested in a moment."""

from __future__ import annotations

import asyncio
import time


class Clock:
    """The real clock. Seconds from an arbitrary start, and waiting."""

    def now(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
