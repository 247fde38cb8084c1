"""What a bench of many flows runs on: control plane, database, the product's processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import structlog

from bench import meters
from bench.crowd import Crews, Decision, ExecutionProcess, People, approve
from tests.faults.control_plane import ControlPlane, free_ports
from tests.faults.operator_process import OperatorProcess
from tests.faults.world import StuckError, World, open_world
from tests.postgres import DatabaseUrls, fresh_database, make_template, running_server

# the product's own, where the worlds of the crash points have milliseconds
PACE: dict[str, Any] = {
    "sweep_seconds": 5.0,
    "resync_seconds": 60.0,
    "leader_ttl_seconds": 3.0,
    "database_pool_size": 10,
    "log_level": "info",
}


@dataclass(frozen=True)
class Load:
    """How the lane is used: namespaces, the seconds of a crew's work, what people decide."""

    namespaces: int = 10
    least: float = 0.0
    most: float = 0.0
    decision: Decision = approve


@dataclass
class Lane:
    """The parts. `metrics_port` is the operator's."""

    world: World
    people: People
    crews: Crews
    execution: ExecutionProcess
    metrics_port: int

    async def operator(self, **changes: Any) -> OperatorProcess:
        """Starts the operator and waits until it is ready."""
        started = self.world.operator(health_port=self.metrics_port, **changes)
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            while started.alive:
                with contextlib.suppress(httpx.TransportError):
                    answer = await client.get(f"http://127.0.0.1:{self.metrics_port}/readyz")
                    if answer.status_code == 200:
                        return started
                await asyncio.sleep(0.2)
        raise StuckError(f"the operator did not start; see {self.world.log}")

    def cpu(self, operator: OperatorProcess) -> dict[str, float]:
        """CPU seconds so far, by process and of the whole machine."""
        plane = self.world.plane.processes
        return {
            "operator": meters.usage(operator.process.pid or 0).cpu,
            "execution API": meters.usage(self.execution.pid).cpu,
            "PostgreSQL": meters.cpu_of_children(meters.postmaster(self.world.urls.superuser)),
            "API server": meters.usage(plane.pid("apiserver") or 0).cpu,
            "etcd": meters.usage(plane.pid("etcd") or 0).cpu,
            "load generator": meters.usage(os.getpid()).cpu,
            "whole machine": meters.busy_seconds(),
        }


@asynccontextmanager
async def open_lane(load: Load, **settings: Any) -> AsyncIterator[Lane]:
    """A lane of its own with `settings` of the operator, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="discovery-bench-") as temporary:
        folder = Path(temporary)
        with running_server() as server:
            template = make_template(server)
            with fresh_database(server, template) as urls:
                async with (
                    ControlPlane(folder / "plane") as plane,
                    lane_on(plane, urls, folder, load, **settings) as lane,
                ):
                    yield lane


@asynccontextmanager
async def lane_on(
    plane: ControlPlane, urls: DatabaseUrls, folder: Path, load: Load, **settings: Any
) -> AsyncIterator[Lane]:
    """A lane on a control plane and a database that are there."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    execution = ExecutionProcess(folder)
    async with (
        open_world(
            plane,
            urls,
            folder / "world",
            execution=execution.serves(),
            worker=partial(Crews, least=load.least, most=load.most),
            **PACE | settings,
        ) as world,
        _people(world, load) as people,
    ):
        assert isinstance(world.worker, Crews)
        (port,) = free_ports(1)
        yield Lane(world, people, world.worker, execution, port)


@asynccontextmanager
async def _people(world: World, load: Load) -> AsyncIterator[People]:
    names = [f"{world.namespace}-{number}" for number in range(load.namespaces)]
    people = People(world.api, names, load.decision)
    try:
        await people.settle()
        yield people
    finally:
        await people.leave()
