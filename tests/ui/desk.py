"""The application on a port, on a loop of its own, and a browser's window before it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID, uuid4

import uvicorn
from discovery_api.app import create_app
from discovery_api.server import Server
from discovery_api.settings import ApiSettings
from discovery_core.resource_gate import MappingEdit
from playwright.sync_api import Page

from tests.api.kubernetes import FakeKubernetes
from tests.postgres import DatabaseUrls, Stores, close_stores, open_stores
from tests.store.flows import SPEC, Flow

T = TypeVar("T")
TOKEN = "token-ann"


@dataclass
class Desk:
    """Runs the application in a thread. `do` runs store code there."""

    loop: asyncio.AbstractEventLoop
    stores: Stores
    kubernetes: FakeKubernetes
    address: str
    tenant_id: UUID | None = None

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of something asynchronous."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def flow(
        self, name: str = "servers", *, to_gate: bool = True, engagement: str | None = None
    ) -> Flow:
        """A flow that Kubernetes' stand-in knows, and that takes answers as the operator does.

        It belongs to `tenant_id`, or else to a tenant of its own.
        """
        spec: dict[str, object] = SPEC | ({"engagement": engagement} if engagement else {})
        flow = Flow(self.stores, spec=spec, tenant_id=self.tenant_id or uuid4(), name=name)
        # the resource is there before the database knows of it
        self.kubernetes.flow_uid = str(flow.flow_id)
        self.do(flow.to_gate() if to_gate else flow.queue())
        self.show(flow)

        async def take(value: dict[str, Any], user: str) -> None:
            await flow.answer(
                value["decision"],
                by=user,
                edits=[MappingEdit.model_validate(edit) for edit in value["edits"]],
                reason=value["reason"],
                hint=value.get("hint"),
            )

        self.kubernetes.on_answer = take
        return flow

    def show(self, flow: Flow) -> None:
        """Makes the stand-in show the flow as it is now."""
        now = self.do(flow.load())
        request = None
        if now.request is not None:
            request = {
                "requestId": str(now.request.request_id),
                "mappings": now.request.mappings,
                "expiresAt": now.request.expires_at.isoformat(),
            }
        self.kubernetes.flow_uid = str(flow.flow_id)
        self.kubernetes.request_id = request["requestId"] if request else ""  # type: ignore[assignment]
        self.kubernetes.resources = [
            {
                "metadata": {
                    "uid": str(flow.flow_id),
                    "name": flow.name,
                    "namespace": "migration",
                    "creationTimestamp": "2026-01-01T00:00:00Z",
                },
                "spec": {},
                "status": {"state": str(now.state), "phase": str(now.phase)}
                | ({"approvalRequest": request} if request else {}),
            }
        ]


@contextmanager
def open_desk(urls: DatabaseUrls, **settings: Any) -> Iterator[Desk]:
    """The application over a fresh database, until the block ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    kubernetes = FakeKubernetes(cluster_viewers={"ann"})

    async def begin() -> tuple[Stores, uvicorn.Server, asyncio.Task[None]]:
        stores = await open_stores(urls)
        configured = ApiSettings(
            host="127.0.0.1",
            database_url=urls.api,
            kubernetes_url=await kubernetes.start(),
            decision_wait_seconds=1,
            **settings,
        )
        app = create_app(stores.api.db, configured)
        server = Server(
            uvicorn.Config(
                app, host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=3
            ),
            app.state.live.close,
        )
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - it has no event for that
            await asyncio.sleep(0.02)
        return stores, server, serving

    stores, server, serving = asyncio.run_coroutine_threadsafe(begin(), loop).result(60)
    (listening,) = server.servers[0].sockets
    port = listening.getsockname()[1]
    desk = Desk(loop, stores, kubernetes, f"http://localhost:{port}")
    try:
        yield desk
    finally:
        server.should_exit = True

        async def end() -> None:
            await serving
            await kubernetes.stop()
            await close_stores(stores)

        asyncio.run_coroutine_threadsafe(end(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def sign_in(page: Page, address: str, token: str = TOKEN) -> None:
    """Through the sign-in page, as a person does."""
    page.goto(f"{address}/sign-in")
    page.fill("#token", token)
    page.click("text=Sign in >> nth=-1")
    page.wait_for_url(f"{address}/")
