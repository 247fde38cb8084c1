"""Ending background tasks for certain, so that no shutdown waits for ever.

One `cancel` is not enough: where it arrives in the moment in which an awaited wait ends, library
code may lose it (before Python 3.12 `asyncio.wait_for` did), and a loop that never ends goes on.
The product's own waits use `asyncio.timeout`, which loses nothing; ruff refuses `wait_for`.
"""

from __future__ import annotations

import asyncio
from typing import Any

# longer than an ended task needs to tidy up, which asking again would break off
ASK_AGAIN_SECONDS = 8.0


async def end(*tasks: asyncio.Task[Any], ask_again: float | None = None) -> None:
    """Cancels tasks, again and again, and returns when all have ended, however they did."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=ask_again or ASK_AGAIN_SECONDS)
