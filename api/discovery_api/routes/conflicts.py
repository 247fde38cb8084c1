"""What sources of an engagement disagree on, and what people decide about it.

The engagement is the flow's. Whoever may approve mappings may decide; every decision rebuilds the
inventory at once.
"""

from __future__ import annotations

from typing import Annotated

from discovery_core.store.inventory.assets import Changes
from discovery_core.store.inventory.conflicts import Choice, Conflict
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, StringConstraints

from ..context import Visit, Visited

router = APIRouter(prefix="/api/v1/discovery/flows/{flow_id}", tags=["inventory"])
VERB = "approve"
Identity = Annotated[str, StringConstraints(min_length=1, max_length=512)]
FieldName = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class Decision(BaseModel):
    """What to do about one field of one asset, or about one key that several machines share."""

    identity: Identity
    field: FieldName
    choice: Choice = Field(
        description="keep the oldest value, replace it by the newest, or merge; of a key "
        "(field `(identity)`) whether its machines are the same or different"
    )


class Precedence(BaseModel):
    """Names of the engagement's flows, the one whose values count first at the beginning."""

    flows: list[Annotated[str, StringConstraints(min_length=1, max_length=253)]] = Field(
        max_length=200
    )


@router.get("/conflicts", response_model=list[Conflict])
async def list_conflicts(visited: Visited) -> list[Conflict]:
    """Keys that several machines share, fields whose sources disagree; the undecided first."""
    flow = await visited.flow()
    return await visited.store.conflicts(visited.tenant_id, flow.engagement)


@router.put("/conflicts", response_model=Changes)
async def decide_conflict(visited: Visited, body: Decision) -> Changes:
    """Decides a field; the decision stays, also when newer imports say something else."""
    engagement, user = await _allowed(visited)
    return await visited.store.decide_conflict(
        visited.tenant_id,
        engagement,
        identity=body.identity,
        field=body.field,
        choice=body.choice,
        decided_by=user,
    )


@router.delete("/conflicts", response_model=Changes)
async def undo_decision(
    visited: Visited,
    identity: Annotated[Identity, Query()],
    field: Annotated[FieldName, Query()],
) -> Changes:
    """Takes a decision back; precedence and the latest flow count again."""
    engagement, _ = await _allowed(visited)
    return await visited.store.undo_decision(
        visited.tenant_id, engagement, identity=identity, field=field
    )


@router.get("/source-precedence", response_model=Precedence)
async def get_precedence(visited: Visited) -> Precedence:
    """Whose values count first in the flow's engagement; empty: the latest flow's."""
    flow = await visited.flow()
    return Precedence(flows=await visited.store.precedence(visited.tenant_id, flow.engagement))


@router.put("/source-precedence", response_model=Changes)
async def set_precedence(visited: Visited, body: Precedence) -> Changes:
    """Says whose values count first; flows that are not named come after, the latest first."""
    engagement, _ = await _allowed(visited)
    return await visited.store.set_precedence(visited.tenant_id, engagement, body.flows)


async def _allowed(visited: Visit) -> tuple[str | None, str]:
    """The flow's engagement and who the caller is, once that may decide."""
    await visited.require(VERB)
    user = await visited.user_name()
    return (await visited.flow()).engagement, user
