"""A flow's data goes before its time, on a person's word, and the record of it stays.

The request is written down here; the leading operator carries it out in small steps, so a large
flow holds no request open and nothing is lost with a pod of the API.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from discovery_core.store.maintenance.retention import PurgeRecord
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from ..context import Visited

router = APIRouter(prefix="/api/v1/discovery/flows/{flow_id}", tags=["flows"])
VERB = "purge"


class Purge(BaseModel):
    """A removal of the flow's data: who wanted it, and what became of it."""

    purge_id: UUID
    reason: Literal["Command", "Retention", "NamespaceDeleted"]
    requested_by: str
    requested_at: datetime
    inventory: bool = Field(description="whether its rows leave the inventory as well")
    outcome: Literal["Running", "Done", "Refused"]
    problem: str = Field(description="why it was refused")
    finished_at: datetime | None
    removed: dict[str, int] = Field(description="rows by table")
    summary: dict[str, Any] = Field(description="what there was: state, source, who decided what")

    @classmethod
    def of(cls, record: PurgeRecord) -> Purge:
        """As it is told."""
        return cls.model_validate(asdict(record))


@router.get("/purges", response_model=list[Purge])
async def list_purges(visited: Visited) -> list[Purge]:
    """The removals of the flow's data, the oldest first."""
    found = await visited.store.purges(visited.tenant_id, visited.flow_id)
    return [Purge.of(record) for record in found]


@router.delete(
    "/data",
    status_code=202,
    response_model=Purge,
    responses={
        403: {"description": "this needs the verb `purge` on the flow"},
        409: {"description": "the flow has not ended, or its data was purged already"},
    },
)
async def purge_data(
    visited: Visited,
    inventory: Annotated[
        Literal["keep", "remove"],
        Query(description="remove: the flow's rows leave the engagement's inventory, too"),
    ] = "keep",
) -> Purge:
    """Removes the data of an ended flow for good; asked again meanwhile, it is the same removal."""
    await visited.require(VERB)
    user = await visited.user_name(purge=inventory)
    record = await visited.store.request_purge(
        visited.tenant_id, visited.flow_id, by=user, inventory=inventory == "remove"
    )
    return Purge.of(record)
