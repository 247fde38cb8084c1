"""How every route about a flow begins: find it, ask Kubernetes whether the caller may see it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from discovery_core.logging import bind
from discovery_core.snapshots import FlowSnapshot
from discovery_core.store import ApiStore, Location
from fastapi import Depends, Request, WebSocket

from .auth import Token
from .caller import Caller, acting_as, not_found
from .settings import ApiSettings
from .views import Permissions


def state_of(request: Request | WebSocket) -> tuple[ApiStore, ApiSettings]:
    """The application's store and settings."""
    return request.app.state.store, request.app.state.settings


def log_of(request: Request | WebSocket) -> dict[str, object]:
    """What the request's log line will say; a WebSocket has none."""
    about: dict[str, object] = getattr(request.state, "log", {})
    return about


async def visible(
    request: Request | WebSocket, store: ApiStore, caller: Caller, flow_id: UUID
) -> tuple[Location, dict[str, Any]]:
    """Where the flow is, and its resource, once Kubernetes has shown that to the caller."""
    about = log_of(request)
    about["flow"] = str(flow_id)
    bind(flow=str(flow_id))
    location = await store.locate(flow_id)
    if location is None:
        # an unknown token must not learn that this flow does not exist
        await caller.user_name()
        raise not_found()
    resource = await caller.flow(location.namespace, location.name)
    if resource["metadata"]["uid"] != str(flow_id):
        raise not_found()
    whose = {"tenant": str(location.tenant_id), "namespace": location.namespace}
    about |= whose
    bind(**whose)
    return location, resource


async def permissions_of(caller: Caller, location: Location) -> Permissions:
    """What RBAC lets the caller do with the flow; the admission policy may still say no."""
    verbs = ("approve", "patch", "update", "delete")
    allowed = await asyncio.gather(
        *(caller.may(verb, location.namespace, location.name) for verb in verbs)
    )
    approve, patch, update, delete = allowed
    return Permissions(approve=approve and patch, update=update and patch, delete=delete)


@dataclass(frozen=True)
class Visit:
    """A caller who may see a flow: what most routes begin with."""

    store: ApiStore
    settings: ApiSettings
    caller: Caller
    location: Location
    resource: dict[str, Any]
    flow_id: UUID

    @property
    def tenant_id(self) -> UUID:
        """Whose the flow is."""
        return self.location.tenant_id

    async def flow(self) -> FlowSnapshot:
        """How the flow stands."""
        return await self.store.flow(self.tenant_id, self.flow_id)


async def begin_visit(connection: Request | WebSocket, caller: Caller, flow_id: UUID) -> Visit:
    """Finds the flow and asks Kubernetes whether the caller may see it. Raises ProblemError."""
    store, settings = state_of(connection)
    location, resource = await visible(connection, store, caller, flow_id)
    return Visit(store, settings, caller, location, resource, flow_id)


async def visit(request: Request, flow_id: UUID, token: Token) -> AsyncIterator[Visit]:
    """Finds the flow and asks Kubernetes whether the caller may see it."""
    async with acting_as(state_of(request)[1], token) as caller:
        yield await begin_visit(request, caller, flow_id)


Visited = Annotated[Visit, Depends(visit)]
