"""One run of a scenario: a database, a namespace, an execution API and a worker of its own.

A lane's control plane is used by one world after the other, because an operator looks after all
flows of its cluster. Timers are milliseconds, by the product's own settings.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import uvicorn
from discovery_api.execution.app import create_app
from discovery_api.server import Server
from discovery_api.settings import ExecutionSettings
from discovery_core.store import Database

from tests.faults.control_plane import Api, ApiError, ControlPlane, Raw
from tests.faults.effects import Fault
from tests.faults.operator_process import OperatorProcess, Prepare
from tests.faults.worker import Script, Worker, always_succeeds
from tests.postgres import DatabaseUrls

FLOWS = "/apis/discoveryflow.dev/v1alpha1"
# long, because nothing may depend on how busy the machine is; only what is stuck waits for it
PATIENCE = 120.0
FAST: dict[str, Any] = {
    "crew_image": "crews:none",
    "execution_url": "https://execution.invalid:8443",
    "health_host": "127.0.0.1",
    "health_port": 0,
    "sweep_seconds": 0.3,
    "resync_seconds": 1.0,
    "leader_ttl_seconds": 1.5,
    "database_pool_size": 4,
    "allow_automatic_approval": True,
}
SPEC: Raw = {
    "source": {"configMap": {"name": "servers", "key": "servers.csv"}},
    "retries": {"maxAttempts": 3, "initialDelay": "50ms", "maxDelay": "200ms"},
}


ExecutionApi = Callable[[ControlPlane, DatabaseUrls], AbstractAsyncContextManager[str]]


class StuckError(Exception):
    """What was waited for did not come in time."""


@dataclass
class World:
    """The parts of one run. `namespace` is where its flows live."""

    plane: ControlPlane
    urls: DatabaseUrls
    folder: Path
    namespace: str
    execution_url: str
    worker: Worker
    settings: dict[str, Any]
    operators: list[OperatorProcess] = field(default_factory=list)

    @property
    def api(self) -> Api:
        """The API server as the administrator."""
        return self.plane.api

    @property
    def log(self) -> Path:
        """What its operators print."""
        return self.folder / "operator.log"

    def operator(
        self,
        *,
        record: Path | None = None,
        fault: Fault | None = None,
        prepare: Prepare | None = None,
        **changes: Any,
    ) -> OperatorProcess:
        """Starts an operator over this world's database."""
        kubeconfig = changes.pop("kubeconfig", self.plane.kubeconfig)
        started = OperatorProcess(
            self.settings | changes,
            kubeconfig=kubeconfig,
            log=self.log,
            record=record,
            fault=fault,
            prepare=prepare,
        )
        self.operators.append(started)
        return started

    # -- what people do ------------------------------------------------------------------------

    def path(self, name: str) -> str:
        """The address of a flow."""
        return f"{FLOWS}/namespaces/{self.namespace}/discoveryflows/{name}"

    async def apply(self, name: str = "servers", **spec: Any) -> str:
        """Creates a flow; returns its uid."""
        made = await self.api.call(
            "POST",
            f"{FLOWS}/namespaces/{self.namespace}/discoveryflows",
            {
                "apiVersion": "discoveryflow.dev/v1alpha1",
                "kind": "DiscoveryFlow",
                "metadata": {"name": name},
                "spec": SPEC | spec,
            },
        )
        return str(made["metadata"]["uid"])

    async def change(self, name: str = "servers", **spec: Any) -> None:
        """Merges fields into the spec."""
        await self.api.call("PATCH", self.path(name), {"spec": spec})

    async def delete(self, name: str = "servers") -> None:
        """Deletes the resource."""
        await self.api.call("DELETE", self.path(name))

    async def answer(self, name: str = "servers", decision: str = "Approve", **more: Any) -> None:
        """Answers the open request as a person with kubectl does."""
        raw = await self.api.call("GET", self.path(name))
        request = raw["status"]["approvalRequest"]
        answer = {
            "requestId": request["requestId"],
            "artefactDigest": request["artefactDigest"],
            "decision": decision,
            "decidedBy": "admin",
        }
        await self.change(name, approval=answer | more)

    # -- what can be seen ----------------------------------------------------------------------

    async def flow(self, name: str = "servers") -> Raw | None:
        """The resource."""
        return await self.api.find(self.path(name))

    async def until(
        self,
        wanted: Callable[[Raw], bool],
        name: str = "servers",
        *,
        patience: float = PATIENCE,
        what: str = "",
    ) -> Raw:
        """The status once `wanted` holds of it. Raises StuckError with what is there instead."""
        deadline = time.monotonic() + patience
        status: Raw = {}
        while time.monotonic() < deadline:
            raw = await self.flow(name)
            status = (raw or {}).get("status") or {}
            if raw is not None and wanted(status):
                return status
            await asyncio.sleep(0.03)
        raise StuckError(
            f"{what or 'the wanted status'} did not come in {patience:.0f} s: {status}"
        )

    async def until_state(self, *states: str, name: str = "servers", **options: Any) -> Raw:
        """The status once its state is one of these."""
        return await self.until(
            lambda status: status.get("state") in states, name, what="/".join(states), **options
        )

    async def until_row(self, state: str, *, patience: float = PATIENCE) -> None:
        """Waits for a state in the database: of a flow whose resource is gone."""
        deadline = time.monotonic() + patience
        found: object = None
        while time.monotonic() < deadline:
            async with await psycopg.AsyncConnection.connect(self.urls.superuser) as connection:
                row = await (
                    await connection.execute("SELECT state FROM discovery_flows")
                ).fetchone()
            found = row[0] if row else None
            if found == state:
                return
            await asyncio.sleep(0.05)
        raise StuckError(f"{state} did not come in {patience:.0f} s: {found}")

    async def jobs(self) -> list[Raw]:
        """All Jobs of the namespace."""
        return await self.api.items(f"/apis/batch/v1/namespaces/{self.namespace}/jobs")


@asynccontextmanager
async def open_world(
    plane: ControlPlane,
    urls: DatabaseUrls,
    folder: Path,
    *,
    script: Script = always_succeeds,
    execution: ExecutionApi | None = None,
    worker: Callable[[Api, str, Script], Worker] = Worker,
    **settings: Any,
) -> AsyncIterator[World]:
    """A world over a control plane and a database, until the block ends.

    `execution` serves the execution API, by default in this process; `worker` makes the worker.
    """
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    namespace = f"flows-{uuid4().hex[:8]}"
    await plane.api.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    await plane.api.call(
        "POST",
        f"/api/v1/namespaces/{namespace}/configmaps",
        {"metadata": {"name": "servers"}, "data": {"servers.csv": "name\nweb01\n"}},
    )
    async with (execution or execution_api)(plane, urls) as address:
        world = World(
            plane=plane,
            urls=urls,
            folder=folder,
            namespace=namespace,
            execution_url=address,
            worker=worker(plane.node, address, script),
            settings=FAST | {"database_url": urls.operator} | settings,
        )
        try:
            yield world
        finally:
            await asyncio.gather(*(one.end(signal.SIGKILL) for one in world.operators))
            await world.worker.stop()
            await _clear(plane.api, namespace)


async def _clear(api: Api, namespace: str) -> None:
    """Leaves nothing that another world's operator would see."""
    for path in (
        f"{FLOWS}/namespaces/{namespace}/discoveryflows",
        f"/apis/batch/v1/namespaces/{namespace}/jobs?propagationPolicy=Background",
        f"/api/v1/namespaces/{namespace}/pods?gracePeriodSeconds=0",
        f"/api/v1/namespaces/{namespace}",
    ):
        with contextlib.suppress(ApiError):
            await api.call("DELETE", path)


@asynccontextmanager
async def execution_api(plane: ControlPlane, urls: DatabaseUrls) -> AsyncIterator[str]:
    """The execution API on a port; yields its address."""
    settings = ExecutionSettings(
        host="127.0.0.1",
        database_url=urls.execution,
        kubernetes_url=plane.server,
        kubernetes_ca_file=plane.authority.certificate("ca"),
        kubernetes_token_file=await plane.token_file(),
    )
    database = Database(urls.execution, application_name="execution", pool_size=5)
    app = create_app(database, settings)
    server = Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=1),
        lambda: None,
    )
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - it has no event for that
        await asyncio.sleep(0.01)
    (listening,) = server.servers[0].sockets
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
