"""What was tried in a flow: each attempt with what was judged in it, by whom, and what it cost."""

from __future__ import annotations

from uuid import UUID

from discovery_core.snapshots import AttemptRecord
from fastapi import APIRouter, Request

from ..auth import Token
from ..caller import acting_as
from ..visible import state_of, visible

router = APIRouter(prefix="/api/v1/discovery/flows/{flow_id}/attempts", tags=["flows"])


@router.get("", response_model=list[AttemptRecord])
async def list_attempts(request: Request, flow_id: UUID, token: Token) -> list[AttemptRecord]:
    """All attempts of the flow, the oldest first."""
    store, settings = state_of(request)
    async with acting_as(settings, token) as caller:
        location, _ = await visible(request, store, caller, flow_id)
    return await store.attempts(location.tenant_id, flow_id)
