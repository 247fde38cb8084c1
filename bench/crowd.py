"""Many flows at once: crews that take their time, and the people who start and answer flows.

The crews are the worker of `tests.faults.worker`, the execution API is the product's own process,
and people see what `kubectl get --watch` shows.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
from discovery_core.states import FlowState, is_ended
from discovery_core.store.ledger.snapshot import HEARTBEAT_SECONDS
from discovery_core.wire.protocol import Heartbeat

from tests.faults.control_plane import Api, ApiError, ControlPlane, Raw, free_ports
from tests.faults.worker import PAUSE, Attempt, Crew, Worker
from tests.faults.world import FLOWS, SPEC, ExecutionApi, StuckError
from tests.postgres import DatabaseUrls


@dataclass
class Crews(Worker):
    """A worker whose attempts each take a random time between `least` and `most` seconds."""

    least: float = 0.0
    most: float = 0.0

    async def _hold(self, attempt: Attempt, crew: Crew) -> None:
        del attempt
        ends = monotonic() + random.uniform(self.least, self.most)
        while (left := ends - monotonic()) > 0:
            await asyncio.sleep(min(left, HEARTBEAT_SECONDS))
            if left > HEARTBEAT_SECONDS:
                beat = Heartbeat(fence=crew.fence, done=int(ends), message="at work")
                await crew.call("POST", "heartbeat", content=beat.model_dump_json(by_alias=True))


@dataclass
class ExecutionProcess:
    """The execution API as a process of its own, with its own settings. `pid` once it serves."""

    folder: Path
    pid: int = 0

    def serves(self) -> ExecutionApi:
        """For `open_world`."""
        return self._serve

    @asynccontextmanager
    async def _serve(self, plane: ControlPlane, urls: DatabaseUrls) -> AsyncIterator[str]:
        (port,) = free_ports(1)
        settings = {
            "DISCOVERY_HOST": "127.0.0.1",
            "DISCOVERY_PORT": str(port),
            "DISCOVERY_DATABASE_URL": urls.execution,
            "DISCOVERY_KUBERNETES_URL": plane.server,
            "DISCOVERY_KUBERNETES_CA_FILE": str(plane.authority.certificate("ca")),
            "DISCOVERY_KUBERNETES_TOKEN_FILE": str(await plane.token_file()),
            "DISCOVERY_LOG_LEVEL": "warning",
        }
        with (self.folder / "execution.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "discovery_api.execution"),
                env=os.environ | settings,
                stdout=log,
                stderr=log,
            )
        self.pid = process.pid
        address = f"http://127.0.0.1:{port}"
        try:
            await _answers(f"{address}/healthz", process)
            yield address
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


async def _answers(url: str, process: asyncio.subprocess.Process) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        while process.returncode is None:
            with contextlib.suppress(httpx.TransportError):
                await client.get(url)
                return
            await asyncio.sleep(PAUSE)
    raise StuckError("the execution API did not start; see execution.log")


Decision = Callable[[str], str]


def approve(name: str) -> str:
    """Everybody is content."""
    del name
    return "Approve"


@dataclass
class People:
    """Start flows in namespaces of their own, and answer or cancel each when it asks.

    `decision` says what becomes of a flow by its name: Approve, Reject, Cancel or Delete.
    `states` is what the resources show, `created` counts flows.
    """

    api: Api
    namespaces: Sequence[str]
    decision: Decision = approve
    states: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    created: int = 0

    def __post_init__(self) -> None:
        self._answered: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Ends the watch."""
        for task in (self._watching, *self._tasks):
            task.cancel()
        await asyncio.gather(self._watching, *self._tasks, return_exceptions=True)

    async def leave(self) -> None:
        """Ends the watch and leaves no flow for another lane's operator."""
        await self.stop()
        for namespace in self.namespaces:
            for path in (_path(namespace), f"/api/v1/namespaces/{namespace}"):
                with contextlib.suppress(ApiError, httpx.TransportError):
                    await self.api.call("DELETE", path)

    async def settle(self) -> None:
        """Makes the namespaces with the file that the flows read."""
        for namespace in self.namespaces:
            await self.api.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
            await self.api.call(
                "POST",
                f"/api/v1/namespaces/{namespace}/configmaps",
                {"metadata": {"name": "servers"}, "data": {"servers.csv": "name\nweb01\n"}},
            )

    async def start(self) -> str:
        """Creates the next flow, in the next namespace; ten share an engagement."""
        number, self.created = self.created, self.created + 1
        namespace = self.namespaces[number % len(self.namespaces)]
        name = f"flow-{number:05}"
        manifest = {
            "apiVersion": "discoveryflow.dev/v1alpha1",
            "kind": "DiscoveryFlow",
            "metadata": {"name": name},
            "spec": SPEC | {"engagement": f"group-{number // (10 * len(self.namespaces))}"},
        }
        await self.api.call("POST", _path(namespace), manifest)
        return name

    def in_flight(self) -> int:
        """Flows that have not ended, as their resources show."""
        return sum(1 for state in self.states.values() if not _is_over(state))

    async def _watch(self) -> None:
        path = f"{FLOWS}/discoveryflows"
        while True:
            try:
                listed = await self.api.call("GET", path)
                present = listed.get("items") or []
                for raw in present:
                    self._look(raw)
                for name in self.states.keys() - {raw["metadata"]["name"] for raw in present}:
                    self.states[name] = "Deleted"
                version = listed["metadata"]["resourceVersion"]
                async for event in self.api.watch(path, version):
                    if event["type"] == "DELETED":
                        self.states[event["object"]["metadata"]["name"]] = "Deleted"
                    else:
                        self._look(event["object"])
            except (ApiError, httpx.TransportError):
                await asyncio.sleep(PAUSE)

    def _look(self, raw: Raw) -> None:
        status, name = raw.get("status") or {}, raw["metadata"]["name"]
        self.states[name] = status.get("state") or "Pending"
        request = status.get("approvalRequest")
        if request is None or request["requestId"] in self._answered:
            return
        self._answered.add(request["requestId"])
        task = asyncio.create_task(self._decide(raw, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _decide(self, raw: Raw, request: Raw) -> None:
        path = _path(raw["metadata"]["namespace"], raw["metadata"]["name"])
        decision = self.decision(raw["metadata"]["name"])
        answer = {
            "requestId": request["requestId"],
            "artefactDigest": request["artefactDigest"],
            "decision": decision,
            "decidedBy": "admin",
        }
        change: Any = {"state": "Cancel"} if decision == "Cancel" else {"approval": answer}
        try:
            if decision == "Delete":
                await self.api.call("DELETE", path)
            else:
                await self.api.call("PATCH", path, {"spec": change})
        except (ApiError, httpx.TransportError) as error:
            self.errors.append(f"{path}: {error}")


def _is_over(state: str) -> bool:
    return state == "Deleted" or is_ended(FlowState(state))


def _path(namespace: str, name: str = "") -> str:
    path = f"{FLOWS}/namespaces/{namespace}/discoveryflows"
    return f"{path}/{name}" if name else path
