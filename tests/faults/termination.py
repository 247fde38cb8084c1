"""SIGTERM ends what runs on a control plane as orderly as Ctrl-C does.

Without it the process is gone at once, and etcd, API server and PostgreSQL go on running.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
EXIT_TERMINATED = 128 + signal.SIGTERM


def run(work: Coroutine[Any, Any, T]) -> T:
    """As `asyncio.run`; SIGTERM cancels the work and, once it has tidied up, exits with 143."""

    async def watched() -> T:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        return asyncio.run(watched())
    except asyncio.CancelledError:
        sys.exit(EXIT_TERMINATED)
