"""What a tenant's people decided for headers before, and taking such a lesson back.

A lesson wins over all evidence the next time, so a wrong one must be seen and removed. Whoever may
approve mappings may also unlearn them.
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from discovery_core.errors import NotFoundError
from discovery_core.wire import ApprovedMapping
from fastapi import APIRouter, Query, Request, Response

from ..auth import Token
from ..caller import acting_as
from ..problems import ProblemError
from ..visible import state_of, visible

router = APIRouter(prefix="/api/v1/discovery/flows/{flow_id}/lessons", tags=["lessons"])
VERB = "approve"


@router.get("", response_model=list[ApprovedMapping], response_model_by_alias=False)
async def list_lessons(request: Request, flow_id: UUID, token: Token) -> list[ApprovedMapping]:
    """The lessons of the flow's namespace, the latest first; `target` null is "not mapped"."""
    store, settings = state_of(request)
    async with acting_as(settings, token) as caller:
        location, _ = await visible(request, store, caller, flow_id)
    return await store.lessons(location.tenant_id)


@router.delete("", status_code=204)
async def remove_lesson(
    request: Request,
    flow_id: UUID,
    token: Token,
    header: Annotated[str, Query(min_length=1, max_length=512)],
) -> Response:
    """Takes the lesson for a header back; needs the verb `approve` on the flow."""
    store, settings = state_of(request)
    async with acting_as(settings, token) as caller:
        location, _ = await visible(request, store, caller, flow_id)
        await caller.require(location.namespace, location.name, VERB)
        user = await caller.user_name()
    request.state.log |= {"user": user, "lesson": header}
    try:
        await store.remove_lesson(location.tenant_id, " ".join(header.lower().split()), user)
    except NotFoundError as error:
        raise ProblemError(404, "not-found", "Not found", str(error)) from error
    return Response(status_code=204)
