"""The gate: one open request per flow, bound to a digest, decided once.

An answer is one compare-and-set on the open request under the flow's lock, whichever door it
came through. A bad answer is refused as a whole; what was approved becomes an artefact of its
own, which is what the inventory phase reads.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from ...durations import parse_duration
from ...errors import (
    DiscoveryError,
    ErrorCode,
    NotFoundError,
    SupersededError,
)
from ...mapping_edits import apply_edits
from ...resource_gate import ApprovalPolicy, MappingEdit
from ...states import Trigger
from ...wire.results import FieldMapping, MappingResult, TargetDescription
from ..artefacts import blobs
from ..database import database_now
from ..schema import (
    ApprovalRequestRow,
    DiscoveryFlowRow,
    FieldMappingRow,
    PhaseRun,
)
from .lessons import remember
from .snapshot import spec_of

MAPPINGS_MEDIA_TYPE = "application/json"
OUTCOMES = {"Approve": "Approved", "Reject": "Rejected", "AskAgain": "AskedAgain"}


def _document(mappings: list[FieldMapping]) -> bytes:
    """The same mappings always give the same bytes, and so the same digest."""
    return json.dumps(
        [mapping.model_dump(mode="json", by_alias=True) for mapping in mappings],
        ensure_ascii=False,
        sort_keys=True,
        separators=(",", ":"),
    ).encode()


async def open_approval_request(
    session: AsyncSession, flow: DiscoveryFlowRow, run: PhaseRun, result: MappingResult
) -> ApprovalRequestRow:
    """Opens the question about a mapping result, with the policy as it is now."""
    columns = [mapping.column for mapping in result.mappings]
    unknown = {m.target for m in result.mappings if m.target is not None} - set(result.targets)
    if len(set(columns)) != len(columns) or unknown:
        raise DiscoveryError(
            ErrorCode.INVALID_RESULT,
            f"mappings name a column twice or unknown targets {sorted(unknown)}",
        )
    digest = await blobs.put_blob(
        session,
        tenant_id=flow.tenant_id,
        flow_id=flow.flow_id,
        run_id=run.id,
        name="proposedMappings",
        data=_document(result.mappings),
        media_type=MAPPINGS_MEDIA_TYPE,
    )
    return await _insert_request(
        session,
        flow,
        run_id=run.id,
        digest=digest,
        targets=result.targets,
        fields=[field.model_dump(mode="json", by_alias=True) for field in result.fields],
        mappings=result.mappings,
        policy=policy_of_round(flow),
    )


def policy_of_round(flow: DiscoveryFlowRow) -> ApprovalPolicy:
    """The policy to freeze. Where a person asked for the question, a person answers it."""
    policy = spec_of(flow).approval_policy
    asked = flow.round_info.get("trigger") in (Trigger.ASKED_AGAIN, Trigger.REOPENED)
    return policy.model_copy(update={"mode": "Always"}) if asked else policy


async def _insert_request(
    session: AsyncSession,
    flow: DiscoveryFlowRow,
    *,
    run_id: UUID,
    digest: str,
    targets: list[Any],
    fields: list[Any],
    mappings: list[FieldMapping],
    policy: ApprovalPolicy,
) -> ApprovalRequestRow:
    now = await database_now(session)
    request = ApprovalRequestRow(
        tenant_id=flow.tenant_id,
        id=uuid4(),
        flow_id=flow.flow_id,
        round=flow.round,
        run_id=run_id,
        artefact_digest=digest,
        state="Open",
        policy=policy.model_dump(mode="json", by_alias=True),
        targets=list(targets),
        fields=list(fields),
        opened_at=now,
        expires_at=now + timedelta(seconds=parse_duration(policy.timeout)),
    )
    session.add(request)
    await session.flush()
    session.add_all(
        FieldMappingRow(
            tenant_id=flow.tenant_id,
            request_id=request.id,
            position=position,
            source_column=mapping.column,
            proposal=mapping.model_dump(mode="json", by_alias=True),
        )
        for position, mapping in enumerate(mappings)
    )
    await session.flush()
    return request


async def proposals(session: AsyncSession, request_id: UUID) -> list[FieldMapping]:
    """The proposed mappings of a request, in the order of the columns."""
    rows = await session.scalars(
        select(FieldMappingRow.proposal)
        .where(FieldMappingRow.request_id == request_id)
        .order_by(FieldMappingRow.position)
    )
    return [FieldMapping.model_validate(row) for row in rows]


async def decide_request(
    session: AsyncSession,
    flow: DiscoveryFlowRow,
    request: ApprovalRequestRow,
    *,
    decision: str,
    edits: list[MappingEdit],
    reason: str,
    decided_by: str,
    via: str,
) -> None:
    """Closes an open request with a decision: Approve, Reject or AskAgain.

    Raises InvalidAnswerError and SupersededError.
    """
    if request.state != "Open":
        raise SupersededError(f"request {request.id} has been answered already")
    now = await database_now(session)
    if decision == "Approve":
        await _approve(session, flow, request, edits, decided_by=decided_by)
    request.state = OUTCOMES[decision]
    request.decided_at = now
    request.decided_by = decided_by
    request.decided_via = via
    request.reason = reason
    request.edits = [edit.model_dump(mode="json", by_alias=True) for edit in edits]
    await session.flush()


async def _approve(
    session: AsyncSession,
    flow: DiscoveryFlowRow,
    request: ApprovalRequestRow,
    edits: list[MappingEdit],
    *,
    decided_by: str,
) -> None:
    mappings = await proposals(session, request.id)
    fields = [TargetDescription.model_validate(field) for field in request.fields]
    final = apply_edits(mappings, edits, request.targets, fields)
    request.approved_digest = await blobs.put_blob(
        session,
        tenant_id=flow.tenant_id,
        flow_id=flow.flow_id,
        run_id=request.run_id,
        name="mappings",
        data=_document(final),
        media_type=MAPPINGS_MEDIA_TYPE,
    )
    # a later round may approve otherwise; these bytes stay what this request approved
    await blobs.refer(
        session,
        tenant_id=flow.tenant_id,
        flow_id=flow.flow_id,
        run_id=request.run_id,
        name=f"approved/{request.id}",
        digest=request.approved_digest,
    )
    edited = {edit.column for edit in edits}
    targets = {mapping.column: mapping.target for mapping in final}
    rows = await session.scalars(
        select(FieldMappingRow).where(FieldMappingRow.request_id == request.id)
    )
    for row in rows:
        row.approved_target = targets[row.source_column]
        row.edited = row.source_column in edited
    await remember(session, flow, final, decided_by)


async def reopen_refused(
    session: AsyncSession,
    flow: DiscoveryFlowRow,
    request: ApprovalRequestRow,
    *,
    problems: list[str],
    decided_by: str,
) -> ApprovalRequestRow:
    """Closes a request whose answer was refused and opens it anew under another id.

    The resource keeps the first answer to a request, so a corrected one needs a new request. The
    deadline stays.
    """
    mappings = await proposals(session, request.id)
    request.state = "Refused"
    request.decided_at = await database_now(session)
    request.decided_by = decided_by
    request.problems = list(problems)
    await session.flush()
    renewed = await _insert_request(
        session,
        flow,
        run_id=request.run_id,
        digest=request.artefact_digest,
        targets=request.targets,
        fields=request.fields,
        mappings=mappings,
        policy=ApprovalPolicy.model_validate(request.policy),
    )
    renewed.expires_at = request.expires_at
    await session.flush()
    return renewed


async def reopen_latest(
    session: AsyncSession, flow: DiscoveryFlowRow, run_id: UUID
) -> ApprovalRequestRow:
    """Asks again about the latest mappings of a run, with all columns written anew.

    Raises NotFoundError where nothing was asked about them.
    """
    latest = await session.scalar(
        select(ApprovalRequestRow)
        .where(ApprovalRequestRow.flow_id == flow.flow_id, ApprovalRequestRow.run_id == run_id)
        .order_by(ApprovalRequestRow.opened_at.desc())
        .limit(1)
    )
    if latest is None:
        raise NotFoundError("nothing was asked about these mappings")
    return await _insert_request(
        session,
        flow,
        run_id=run_id,
        digest=latest.artefact_digest,
        targets=latest.targets,
        fields=latest.fields,
        mappings=await proposals(session, latest.id),
        policy=policy_of_round(flow),
    )
