"""One flow: how it stands, and the answer to its question."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Annotated
from uuid import UUID

from discovery_core.errors import InvalidAnswerError, NotFoundError
from discovery_core.resource import MappingEdit
from discovery_core.snapshots import FlowSnapshot
from discovery_core.store import ApiStore, Location, RequestRow
from discovery_core.store.approvals import apply_edits
from discovery_core.wire import FieldMapping
from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse

from ..auth import Caller, acting_as, bearer_token
from ..problems import ProblemError
from ..settings import ApiSettings
from ..views import Answer, ApproveMappings, DecisionView, FinalMapping, FlowView

router = APIRouter(prefix="/api/v1/discovery/flows", tags=["flows"])
Authorization = Annotated[str | None, Header(description="Bearer <Kubernetes token>")]
_NOT_FOUND = ProblemError(404, "not-found", "Not found", "no such flow, or you may not see it")


def _state(request: Request) -> tuple[ApiStore, ApiSettings]:
    return request.app.state.store, request.app.state.settings


async def _visible(store: ApiStore, caller: Caller, flow_id: UUID) -> Location:
    """Where the flow is, once Kubernetes has shown its resource to the caller."""
    location = await store.locate(flow_id)
    if location is None:
        # an unknown token must not learn that this flow does not exist
        await caller.user_name()
        raise _NOT_FOUND
    resource = await caller.flow(location.namespace, location.name)
    if resource["metadata"]["uid"] != str(flow_id):
        raise _NOT_FOUND
    return location


@router.get("/{flow_id}", response_model=FlowView)
async def get_flow(
    request: Request,
    flow_id: UUID,
    authorization: Authorization = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """How the flow stands; while it waits for approval, with the mappings in question."""
    store, settings = _state(request)
    async with acting_as(settings, bearer_token(authorization)) as caller:
        location = await _visible(store, caller, flow_id)
    flow = await store.flow(location.tenant_id, flow_id)
    entity_tag = f'"{flow.version}"'
    if if_none_match == entity_tag:
        return Response(status_code=304, headers={"ETag": entity_tag})
    mappings = (
        await store.mappings(location.tenant_id, flow.request.request_id) if flow.request else []
    )
    view = FlowView.of(flow, mappings)
    return JSONResponse(
        view.model_dump(mode="json", by_alias=True),
        headers={"ETag": entity_tag, "Cache-Control": "no-store"},
    )


@router.post(
    "/{flow_id}/approve-mappings",
    response_model=DecisionView,
    responses={202: {"model": DecisionView, "description": "written, not yet committed"}},
)
async def approve_mappings(
    request: Request, flow_id: UUID, body: ApproveMappings, authorization: Authorization = None
) -> Response:
    """Approves the proposed mappings, as they are or changed."""

    def edits(flow: FlowSnapshot, proposed: list[FieldMapping]) -> list[MappingEdit]:
        assert flow.request is not None  # noqa: S101 - checked by _decide
        wanted = body.edits or []
        if body.mappings is not None:
            if body.edits is not None:
                raise InvalidAnswerError(["send either mappings or edits, not both"])
            wanted = _edits_of(body.mappings, proposed)
        apply_edits(proposed, wanted, list(flow.request.targets))
        return wanted

    return await _decide(request, flow_id, body, "Approve", edits, authorization)


@router.post(
    "/{flow_id}/reject-mappings",
    response_model=DecisionView,
    responses={202: {"model": DecisionView, "description": "written, not yet committed"}},
)
async def reject_mappings(
    request: Request, flow_id: UUID, body: Answer, authorization: Authorization = None
) -> Response:
    """Rejects the proposed mappings; the flow ends as Rejected."""
    return await _decide(request, flow_id, body, "Reject", lambda *_: [], authorization)


EditsOf = Callable[[FlowSnapshot, list[FieldMapping]], list[MappingEdit]]


async def _decide(
    request: Request,
    flow_id: UUID,
    body: Answer,
    decision: str,
    edits_of: EditsOf,
    authorization: str | None,
) -> Response:
    """Writes the answer as the caller, and waits a little for the decision."""
    store, settings = _state(request)
    async with acting_as(settings, bearer_token(authorization)) as caller:
        location = await _visible(store, caller, flow_id)
        request_id, digest = _asked(body)
        flow = await store.flow(location.tenant_id, flow_id)
        await _check_open(store, location.tenant_id, flow, request_id, digest)
        edits = edits_of(flow, await store.mappings(location.tenant_id, request_id))
        user = await caller.user_name()
        approval = {
            "requestId": str(request_id),
            "artefactDigest": digest,
            "decision": decision,
            "edits": [edit.model_dump(mode="json", by_alias=True) for edit in edits],
            "reason": body.reason,
            "decidedBy": user,
        }
        await caller.answer(location.namespace, location.name, approval)
    row = await store.wait_for_decision(
        location.tenant_id, request_id, settings.decision_wait_seconds
    )
    _check_ours(row, decision, user)
    view = DecisionView.of(row)
    return JSONResponse(view.model_dump(mode="json"), status_code=200 if view.committed else 202)


def _asked(body: Answer) -> tuple[UUID, str]:
    """Which question the answer is about. Raises ProblemError 428 where it does not say."""
    if body.request_id is None or body.artefact_digest is None:
        raise ProblemError(
            428,
            "precondition-required",
            "Say what you answer",
            "send requestId and artefactDigest of the approval request that you looked at",
        )
    return body.request_id, body.artefact_digest


async def _check_open(
    store: ApiStore, tenant_id: UUID, flow: FlowSnapshot, request_id: UUID, digest: str
) -> None:
    """Raises ProblemError 409 where another request is open, or none, or about other bytes."""
    current = flow.request
    if current is None or current.request_id != request_id:
        detail = f"this flow has no open request of that id; it is {flow.state}"
        with suppress(NotFoundError):
            row = await store.request(tenant_id, request_id)
            if row.flow_id == flow.flow_id:
                detail = _outcome(row)
        raise ProblemError(409, "answered", "The request is not open", detail)
    if current.artefact_digest != digest:
        raise ProblemError(
            409,
            "stale",
            "The mappings have changed",
            f"the request is about {current.artefact_digest}; look at it again",
        )


def _outcome(row: RequestRow) -> str:
    return f"the request was {row.state.lower()}" + (
        f" by {row.decided_by}" if row.decided_by else ""
    )


def _check_ours(row: RequestRow, decision: str, user: str) -> None:
    """Raises where somebody else's answer was taken, or ours was refused."""
    if row.state == "Open":
        return
    if row.state == "Refused" and row.decided_by == user:
        raise InvalidAnswerError(row.problems)
    wanted = "Approved" if decision == "Approve" else "Rejected"
    if row.state != wanted or row.decided_by != user:
        raise ProblemError(409, "answered", "Answered already", _outcome(row))


def _edits_of(final: list[FinalMapping], proposed: list[FieldMapping]) -> list[MappingEdit]:
    """The changes that turn the proposal into a complete final list.

    Raises InvalidAnswerError where columns are missing, unknown or given twice.
    """
    given = [mapping.column for mapping in final]
    known = {mapping.column: mapping for mapping in proposed}
    problems = [f"column {column!r} is missing" for column in known if column not in given]
    problems += [f"there is no column {column!r}" for column in given if column not in known]
    problems += [
        f"column {column!r} is given {given.count(column)} times"
        for column in dict.fromkeys(given)
        if given.count(column) > 1
    ]
    if problems:
        raise InvalidAnswerError(problems)
    return [
        MappingEdit(column=mapping.column, target=mapping.target or "")
        for mapping in final
        if (mapping.target or None) != known[mapping.column].target
    ]
