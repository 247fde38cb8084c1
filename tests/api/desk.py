"""The user API over a real PostgreSQL, with Kubernetes' stand-in: what its tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from discovery_api.app import create_app
from discovery_api.settings import ApiSettings

from tests.api.kubernetes import FakeKubernetes
from tests.postgres import Stores
from tests.store.flows import Flow

ANN = {"Authorization": "Bearer token-ann"}
BOB = {"Authorization": "Bearer token-bob"}
EVE = {"Authorization": "Bearer token-eve"}
API = "/api/v1/discovery"


def url(flow: Flow, action: str = "") -> str:
    """A route about a flow."""
    return f"{API}/flows/{flow.flow_id}{action}"


def resource(flow: Flow, namespace: str = "migration", **status: Any) -> dict[str, Any]:
    """The flow's resource in a list."""
    return {
        "metadata": {"uid": str(flow.flow_id), "name": flow.name, "namespace": namespace},
        "spec": {},
        "status": {"state": "Queued", **status},
    }


@asynccontextmanager
async def serving(
    stores: Stores, kubernetes: FakeKubernetes, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API. Its background listener does not run."""
    configured = ApiSettings(
        host="127.0.0.1",
        database_url=stores.urls.api,
        kubernetes_url=await kubernetes.start(),
        decision_wait_seconds=0.5,
        **settings,
    )
    app = create_app(stores.api.db, configured)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        yield client
    await kubernetes.stop()


@asynccontextmanager
async def signed_in(stores: Stores, kubernetes: FakeKubernetes) -> AsyncIterator[httpx.AsyncClient]:
    """The pages as ann sees them, who has signed in."""
    async with serving(stores, kubernetes) as client:
        assert (await client.post("/sign-in", data={"token": "token-ann"})).status_code == 303
        yield client
