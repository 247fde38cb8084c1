"""What was tried in a flow: each attempt with what was judged in it, by whom, and what it cost."""

from __future__ import annotations

from discovery_core.snapshots import AttemptRecord
from fastapi import APIRouter

from ..context import Visited

router = APIRouter(prefix="/api/v1/discovery/flows/{flow_id}/attempts", tags=["flows"])


@router.get("", response_model=list[AttemptRecord])
async def list_attempts(visited: Visited) -> list[AttemptRecord]:
    """All attempts of the flow, the oldest first."""
    return await visited.store.attempts(visited.tenant_id, visited.flow_id)
