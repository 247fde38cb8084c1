"""An answer to the open question, whichever door for people it came through.

It is written into the resource with the caller's own token, so that RBAC and the admission policy
judge it like `kubectl patch`; then the database is asked what became of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

from discovery_core.errors import InvalidAnswerError, NotFoundError, ProblemError
from discovery_core.mapping_edits import apply_edits
from discovery_core.resource_gate import NO_TRANSFORM, MappingEdit
from discovery_core.snapshots import FlowSnapshot
from discovery_core.states import FlowState
from discovery_core.store import RequestRow
from discovery_core.store.ledger.requests import OUTCOMES
from discovery_core.wire.results import FieldMapping

from .context import Visit
from .problems import AnsweredError, UnavailableError
from .views import Answer, ApproveMappings, DecisionView, FinalMapping

SHOWN_SECONDS = 3.0
SHOWN_POLL_SECONDS = 0.1


class PreconditionRequiredError(ProblemError):
    """An answer that does not say to what."""

    status = 428
    kind = "precondition-required"
    title = "Say what you answer"


class StaleError(ProblemError):
    """An answer about other bytes than are asked about now."""

    status = 409
    kind = "stale"
    title = "The mappings have changed"


EditsOf = Callable[[FlowSnapshot, list[FieldMapping]], list[MappingEdit]]


def approval_edits(body: ApproveMappings) -> EditsOf:
    """The changes that an approval asks for, checked. Raises InvalidAnswerError when called."""

    def edits(flow: FlowSnapshot, proposed: list[FieldMapping]) -> list[MappingEdit]:
        assert flow.request is not None  # noqa: S101 - checked by decide
        wanted = body.edits or []
        if body.mappings is not None:
            if body.edits is not None:
                raise InvalidAnswerError(["send either mappings or edits, not both"])
            wanted = _edits_of(body.mappings, proposed)
        apply_edits(proposed, wanted, list(flow.request.targets), flow.request.fields)
        return wanted

    return edits


def no_edits(flow: FlowSnapshot, proposed: list[FieldMapping]) -> list[MappingEdit]:
    """For answers that change no mapping."""
    del flow, proposed
    return []


async def decide(
    visit: Visit,
    body: Answer,
    decision: str,
    edits_of: EditsOf = no_edits,
    hint: str | None = None,
) -> DecisionView:
    """Writes the answer as the caller, and waits a little for the decision.

    Raises ProblemError 401, 403, 404, 409, 428 or 503, and InvalidAnswerError.
    """
    request_id, digest = _asked(body)
    flow = await visit.flow()
    await _check_open(visit, flow, request_id, digest)
    edits = edits_of(flow, await visit.store.mappings(visit.tenant_id, request_id))
    user = await visit.user_name(decision=decision)
    approval = {
        "requestId": str(request_id),
        "artefactDigest": digest,
        "decision": decision,
        "edits": [edit.model_dump(mode="json", by_alias=True, exclude_none=True) for edit in edits],
        "reason": body.reason,
        "decidedBy": user,
    }
    if hint is not None:
        approval["hint"] = hint
    await _shown(visit, request_id)
    try:
        await visit.set_spec("approval", approval)
    except ProblemError as refused:
        # whoever was faster may be the reason
        row = await visit.store.request(visit.tenant_id, request_id)
        _check_ours(row, decision, user)
        # written, and only the confirmation was lost
        if refused.status != 503 or row.state == "Open":
            raise
    row = await visit.store.wait_for_decision(
        visit.tenant_id, request_id, visit.settings.decision_wait_seconds
    )
    _check_ours(row, decision, user)
    view = DecisionView.of(row)
    if not view.committed:
        view.message = _why_not_yet(await visit.flow())
    return view


async def _shown(visit: Visit, request_id: UUID) -> None:
    """Waits until the resource shows the request, because admission compares an answer with it.

    The database knows a request some milliseconds earlier. Raises ProblemError 503.
    """
    deadline = asyncio.get_running_loop().time() + SHOWN_SECONDS
    resource = visit.resource
    while True:
        shown = (resource.get("status") or {}).get("approvalRequest") or {}
        if shown.get("requestId") == str(request_id):
            return
        if asyncio.get_running_loop().time() >= deadline:
            raise UnavailableError(
                "the resource does not show this request yet; is the operator running? Try again"
            )
        await asyncio.sleep(SHOWN_POLL_SECONDS)
        resource = await visit.look()


def _why_not_yet(flow: FlowSnapshot) -> str:
    """Why a written answer is not a decision yet, as far as is known."""
    if flow.answer_note:
        return flow.answer_note
    if flow.state is FlowState.SUSPENDED:
        return "the answer is written and counts as soon as the flow is resumed (spec.state: Run)"
    return "the answer is written and not yet a decision; ask for the flow again in a moment"


def _asked(body: Answer) -> tuple[UUID, str]:
    """Which question the answer is about. Raises ProblemError 428 where it does not say."""
    if body.request_id is None or body.artefact_digest is None:
        raise PreconditionRequiredError(
            "send requestId and artefactDigest of the approval request that you looked at",
        )
    return body.request_id, body.artefact_digest


async def _check_open(visit: Visit, flow: FlowSnapshot, request_id: UUID, digest: str) -> None:
    """Raises ProblemError 409 where another request is open, or none, or about other bytes."""
    current = flow.request
    if current is None or current.request_id != request_id:
        detail = f"this flow has no open request of that id; it is {flow.state}"
        with suppress(NotFoundError):
            row = await visit.store.request(visit.tenant_id, request_id)
            if row.flow_id == flow.flow_id:
                detail = _outcome(row)
        raise AnsweredError(detail, title="The request is not open")
    if current.artefact_digest != digest:
        raise StaleError(f"the request is about {current.artefact_digest}; look at it again")


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
    if row.state != OUTCOMES[decision] or row.decided_by != user:
        raise AnsweredError(_outcome(row))


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
        MappingEdit(column=mapping.column, target=mapping.target or "", transform=mapping.transform)
        for mapping in final
        if (mapping.target or None) != known[mapping.column].target
        or _other_unit(mapping, known[mapping.column])
    ]


def _other_unit(mapping: FinalMapping, proposed: FieldMapping) -> bool:
    if mapping.transform is None:
        return False
    return mapping.transform != (proposed.transform or NO_TRANSFORM)
