"""Stop, go on, end, and once more from a phase: changes to the spec in the caller's name."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import uuid4

from discovery_core.resource_gate import FromPhase, Rerun
from fastapi import APIRouter, Header
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from ..context import Visit, Visited

router = APIRouter(prefix="/api/v1/discovery/flows/{flow_id}", tags=["flows"])

REFUSED: dict[int | str, dict[str, Any]] = {
    403: {"description": "this needs the verb `update`; `detail` has Kubernetes' words"},
    409: {"description": "changed by somebody else at the same moment; try again"},
}


class RerunRequest(BaseModel):
    """Another round from a phase on."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    from_phase: FromPhase = Field(
        description="a phase, or `approval`: ask again about the same mappings"
    )
    hint: str | None = Field(default=None, max_length=2000, description="what to do otherwise")


class Changed(BaseModel):
    """What is written into the resource. The flow follows in a moment."""

    flow_id: str
    field: str
    value: Any


@router.post("/suspend", response_model=Changed, responses=REFUSED)
async def suspend(visited: Visited) -> Changed:
    """Stops the flow until it is resumed. Work under way is given up."""
    return await _state(visited, "Suspend")


@router.post("/resume", response_model=Changed, responses=REFUSED)
async def resume(visited: Visited) -> Changed:
    """Goes on where the flow was suspended."""
    return await _state(visited, "Run")


@router.post("/cancel", response_model=Changed, responses=REFUSED)
async def cancel(visited: Visited) -> Changed:
    """Ends the flow for good."""
    return await _state(visited, "Cancel")


@router.post("/rerun", response_model=Changed, responses=REFUSED)
async def rerun(
    visited: Visited,
    body: RerunRequest,
    idempotency_key: Annotated[
        str | None,
        Header(
            max_length=63,
            pattern=r"^[A-Za-z0-9][-A-Za-z0-9_.]*$",
            description="the rerun's id; the same one counts once",
        ),
    ] = None,
) -> Changed:
    """Once more from a phase; results of that phase and of later ones are superseded."""
    wanted = Rerun.model_validate(
        {
            "id": idempotency_key or str(uuid4()),
            "fromPhase": body.from_phase,
            "hint": body.hint,
        }
    )
    value = wanted.model_dump(mode="json", by_alias=True, exclude_none=True)
    return await _set(visited, "rerun", value)


async def _state(visited: Visit, state: str) -> Changed:
    if (visited.resource.get("spec") or {}).get("state") == state:
        await visited.require("update")
        return Changed(flow_id=str(visited.flow_id), field="state", value=state)
    return await _set(visited, "state", state)


async def _set(visited: Visit, field: str, value: Any) -> Changed:
    await visited.set_spec(field, value)
    return Changed(flow_id=str(visited.flow_id), field=field, value=value)
