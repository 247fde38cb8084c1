"""What sources of an engagement disagree on, and what people decide about it.

The engagement is the flow's. Whoever may approve mappings may decide; every decision rebuilds the
inventory at once.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated
from uuid import UUID

from discovery_core.errors import NotFoundError
from discovery_core.store import ApiStore
from discovery_core.store.assets import Changes, Choice, Conflict
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field, StringConstraints

from ..auth import Token
from ..caller import acting_as
from ..problems import ProblemError
from ..visible import state_of, visible

router = APIRouter(prefix="/api/v1/discovery/flows/{flow_id}", tags=["inventory"])
VERB = "approve"
Identity = Annotated[str, StringConstraints(min_length=1, max_length=512)]
FieldName = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class Decision(BaseModel):
    """What to do about one field of one asset."""

    identity: Identity
    field: FieldName
    choice: Choice = Field(description="keep the oldest value, replace it by the newest, or merge")


class Precedence(BaseModel):
    """Names of the engagement's flows, the one whose values count first at the beginning."""

    flows: list[Annotated[str, StringConstraints(min_length=1, max_length=253)]] = Field(
        max_length=200
    )


@router.get("/conflicts", response_model=list[Conflict])
async def list_conflicts(request: Request, flow_id: UUID, token: Token) -> list[Conflict]:
    """Fields whose sources disagree, the undecided first; at most 1000."""
    store, settings = state_of(request)
    async with acting_as(settings, token) as caller:
        location, _ = await visible(request, store, caller, flow_id)
    flow = await store.flow(location.tenant_id, flow_id)
    return await store.conflicts(location.tenant_id, flow.engagement)


@router.put("/conflicts", response_model=Changes)
async def decide_conflict(request: Request, flow_id: UUID, token: Token, body: Decision) -> Changes:
    """Decides a field; the decision stays, also when newer imports say something else."""
    store, tenant_id, engagement, user = await _allowed(request, flow_id, token)
    return await _found(
        store.decide_conflict(
            tenant_id,
            engagement,
            identity=body.identity,
            field=body.field,
            choice=body.choice,
            decided_by=user,
        )
    )


@router.delete("/conflicts", response_model=Changes)
async def undo_decision(
    request: Request,
    flow_id: UUID,
    token: Token,
    identity: Annotated[Identity, Query()],
    field: Annotated[FieldName, Query()],
) -> Changes:
    """Takes a decision back; precedence and the latest flow count again."""
    store, tenant_id, engagement, _ = await _allowed(request, flow_id, token)
    return await _found(store.undo_decision(tenant_id, engagement, identity=identity, field=field))


@router.get("/source-precedence", response_model=Precedence)
async def get_precedence(request: Request, flow_id: UUID, token: Token) -> Precedence:
    """Whose values count first in the flow's engagement; empty: the latest flow's."""
    store, settings = state_of(request)
    async with acting_as(settings, token) as caller:
        location, _ = await visible(request, store, caller, flow_id)
    flow = await store.flow(location.tenant_id, flow_id)
    return Precedence(flows=await store.precedence(location.tenant_id, flow.engagement))


@router.put("/source-precedence", response_model=Changes)
async def set_precedence(
    request: Request, flow_id: UUID, token: Token, body: Precedence
) -> Changes:
    """Says whose values count first; flows that are not named come after, the latest first."""
    store, tenant_id, engagement, _ = await _allowed(request, flow_id, token)
    return await store.set_precedence(tenant_id, engagement, body.flows)


async def _allowed(
    request: Request, flow_id: UUID, token: str
) -> tuple[ApiStore, UUID, str | None, str]:
    """Store, tenant and engagement of the flow, and who the caller is, once that may decide."""
    store, settings = state_of(request)
    async with acting_as(settings, token) as caller:
        location, _ = await visible(request, store, caller, flow_id)
        await caller.require(location.namespace, location.name, VERB)
        user = await caller.user_name()
    request.state.log |= {"user": user}
    flow = await store.flow(location.tenant_id, flow_id)
    return store, location.tenant_id, flow.engagement, user


async def _found(work: Awaitable[Changes]) -> Changes:
    """Raises ProblemError 404 where nothing is there to decide."""
    try:
        return await work
    except NotFoundError as error:
        raise ProblemError(404, "not-found", "Not found", str(error)) from error
