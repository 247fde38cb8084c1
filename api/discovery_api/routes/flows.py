"""One flow: how it stands, and the answer to its question.

The database says how it stands; Kubernetes says whether the caller may know, and takes the answer.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Response
from fastapi.responses import JSONResponse

from ..context import Visited
from ..decisions import approval_edits, decide
from ..views import (
    ANSWERS,
    Answer,
    ApproveMappings,
    AskAgain,
    DecisionView,
    FlowView,
)

router = APIRouter(prefix="/api/v1/discovery/flows", tags=["flows"])


@router.get("/{flow_id}", response_model=FlowView, responses={304: {"description": "unchanged"}})
async def get_flow(
    visited: Visited,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """How the flow stands; while it waits for approval, with the mappings in question."""
    flow = await visited.flow()
    permissions = await visited.permissions()
    headers = {"ETag": f'"{flow.version}-{permissions.tag}"', "Cache-Control": "private, no-cache"}
    if _matches(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    mappings = (
        await visited.store.mappings(visited.tenant_id, flow.request.request_id)
        if flow.request
        else []
    )
    view = FlowView.of(flow, mappings, permissions)
    return JSONResponse(view.model_dump(mode="json", by_alias=True), headers=headers)


def _matches(if_none_match: str | None, entity_tag: str) -> bool:
    """Weak comparison with any of the tags, as RFC 9110 (13.1.2) has it."""
    given = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return entity_tag in given or given == ["*"]


@router.post("/{flow_id}/approve-mappings", response_model=DecisionView, responses=ANSWERS)
async def approve_mappings(visited: Visited, body: ApproveMappings) -> Response:
    """Approves the proposed mappings, as they are or changed."""
    return _answered(await decide(visited, body, "Approve", approval_edits(body)))


@router.post("/{flow_id}/reject-mappings", response_model=DecisionView, responses=ANSWERS)
async def reject_mappings(visited: Visited, body: Answer) -> Response:
    """Rejects the proposed mappings; the flow ends as Rejected."""
    return _answered(await decide(visited, body, "Reject"))


@router.post("/{flow_id}/ask-again", response_model=DecisionView, responses=ANSWERS)
async def ask_again(visited: Visited, body: AskAgain) -> Response:
    """Has the mapping done once more, with a hint; then the question is asked anew."""
    return _answered(await decide(visited, body, "AskAgain", hint=body.hint))


def _answered(view: DecisionView) -> JSONResponse:
    return JSONResponse(view.model_dump(mode="json"), status_code=200 if view.committed else 202)
