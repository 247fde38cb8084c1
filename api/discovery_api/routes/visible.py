"""How every route about a flow begins: find it, ask Kubernetes whether the caller may see it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from discovery_core.store import ApiStore, Location
from fastapi import Request

from ..auth import Caller, not_found
from ..settings import ApiSettings


def state_of(request: Request) -> tuple[ApiStore, ApiSettings]:
    """The application's store and settings."""
    return request.app.state.store, request.app.state.settings


async def visible(
    request: Request, store: ApiStore, caller: Caller, flow_id: UUID
) -> tuple[Location, dict[str, Any]]:
    """Where the flow is, and its resource, once Kubernetes has shown that to the caller."""
    request.state.log["flow"] = str(flow_id)
    location = await store.locate(flow_id)
    if location is None:
        # an unknown token must not learn that this flow does not exist
        await caller.user_name()
        raise not_found()
    resource = await caller.flow(location.namespace, location.name)
    if resource["metadata"]["uid"] != str(flow_id):
        raise not_found()
    request.state.log |= {"tenant": str(location.tenant_id), "namespace": location.namespace}
    return location, resource
