"""The operator as a process of its own that starts in milliseconds and can really be killed.

A fork server has imported everything once; each operator is a fork of it. What runs is the
product's own `main.run`, kopf's watches included.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import aiohttp
import discovery_operator.main  # the fork server has it ready
import kopf
import psycopg
from discovery_core.logging import configure_logging
from discovery_operator.settings import OperatorSettings
from kubernetes.config import kube_config as synchronous
from kubernetes_asyncio.config import kube_config as asynchronous

from tests.faults.effects import Effects, Fault, install

__all__ = ["OperatorProcess"]
_PARTS = (aiohttp, kopf, psycopg)

Prepare = Callable[[], None]


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    # a child runs the module that was started with -m anew, and what that imports takes seconds
    context.set_forkserver_preload(
        ["tests.faults.operator_process", "tests.faults.outcome", "tests.postgres"]
    )
    return context


def _run(
    settings: dict[str, Any],
    kubeconfig: str,
    log: str,
    record: str | None,
    fault: Fault | None,
    prepare: Prepare | None,
) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ["KUBECONFIG"] = kubeconfig
    # both clients have read the variable when they were imported
    asynchronous.KUBE_CONFIG_DEFAULT_LOCATION = kubeconfig
    synchronous.KUBE_CONFIG_DEFAULT_LOCATION = kubeconfig
    if record is not None:
        install(Effects(Path(record), fault))
    if prepare is not None:
        prepare()
    configure_logging("operator", settings.get("log_level", "info"))
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    asyncio.run(discovery_operator.main.run(OperatorSettings(**settings)))


class OperatorProcess:
    """One operator. `log` receives its output; `record` the names of its writes.

    `prepare`, a function of a module, is called in its process before it runs (`stepped_clock`,
    `leaks`).
    """

    def __init__(
        self,
        settings: dict[str, Any],
        *,
        kubeconfig: Path,
        log: Path,
        record: Path | None = None,
        fault: Fault | None = None,
        prepare: Prepare | None = None,
    ) -> None:
        self.process: ForkServerProcess = _context().Process(
            target=_run,
            args=(settings, str(kubeconfig), str(log), record and str(record), fault, prepare),
            daemon=True,
        )
        self.process.start()

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.is_alive()

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal, by its own pid."""
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, number)

    async def end(self, number: signal.Signals = signal.SIGKILL, wait: float = 20.0) -> int | None:
        """Signals it and waits until it is gone. Returns its exit code."""
        self.send(number)
        await asyncio.to_thread(self.process.join, wait)
        if self.process.is_alive():
            self.process.kill()
            await asyncio.to_thread(self.process.join, wait)
        return self.process.exitcode
