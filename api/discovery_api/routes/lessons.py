"""What a tenant's people decided for headers before, and taking such a lesson back.

A lesson wins over all evidence the next time, so a wrong one must be seen and removed. Whoever may
approve mappings may also unlearn them.
"""

from __future__ import annotations

from typing import Annotated

from discovery_core.wire.protocol import ApprovedMapping
from fastapi import APIRouter, Query, Response

from ..context import Visited

router = APIRouter(prefix="/api/v1/discovery/flows/{flow_id}/lessons", tags=["lessons"])
VERB = "approve"


@router.get("", response_model=list[ApprovedMapping], response_model_by_alias=False)
async def list_lessons(visited: Visited) -> list[ApprovedMapping]:
    """The lessons of the flow's namespace, the latest first; `target` null is "not mapped"."""
    return await visited.store.lessons(visited.tenant_id)


@router.delete("", status_code=204)
async def remove_lesson(
    visited: Visited, header: Annotated[str, Query(min_length=1, max_length=512)]
) -> Response:
    """Takes the lesson for a header back; needs the verb `approve` on the flow."""
    await visited.require(VERB)
    user = await visited.user_name(lesson=header)
    await visited.store.remove_lesson(visited.tenant_id, " ".join(header.lower().split()), user)
    return Response(status_code=204)
