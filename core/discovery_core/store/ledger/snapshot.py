"""Makes the pure snapshots of `discovery_core.snapshots` from rows."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from ...durations import parse_duration
from ...phases import Phase
from ...resource import DiscoveryFlowSpec
from ...resource_gate import ApprovalPolicy
from ...snapshots import FlowEvent, FlowSnapshot, RequestSnapshot, RunSnapshot, Spent
from ...states import FlowState, RunState, is_ended
from ...wire.results import TargetDescription
from ..artefacts import blobs
from ..schema import (
    ApprovalRequestRow,
    DiscoveryFlowRow,
    FieldMappingRow,
    FlowEventRow,
    MasterFlow,
    PhaseRun,
    Tenant,
)

# four beats within the timeout; more would say little, and cost a database with 1,000 crews much
HEARTBEAT_SECONDS = 15.0
HEARTBEAT_TIMEOUT = timedelta(seconds=60)
# made once, because a reconciliation asks each of them, and to make one costs as much as to ask it
_FLOW = (
    select(DiscoveryFlowRow, MasterFlow, Tenant, func.clock_timestamp())
    .join(
        MasterFlow,
        (MasterFlow.tenant_id == DiscoveryFlowRow.tenant_id)
        & (MasterFlow.flow_id == DiscoveryFlowRow.flow_id),
    )
    .join(Tenant, Tenant.id == DiscoveryFlowRow.tenant_id)
    .where(DiscoveryFlowRow.flow_id == bindparam("flow_id"))
    .execution_options(populate_existing=True)
)
_RUNS = (
    select(PhaseRun)
    .where(
        PhaseRun.tenant_id == bindparam("tenant_id"),
        PhaseRun.flow_id == bindparam("flow_id"),
        ((PhaseRun.round == bindparam("round")) & (PhaseRun.phase == bindparam("phase")))
        | (PhaseRun.state == RunState.SUCCEEDED),
    )
    .order_by(PhaseRun.attempt.desc())
)
_OF_FLOW = (
    ApprovalRequestRow.tenant_id == bindparam("tenant_id"),
    ApprovalRequestRow.flow_id == bindparam("flow_id"),
)
_REQUESTS = select(ApprovalRequestRow.id, ApprovalRequestRow.state).where(*_OF_FLOW)
_OPEN_REQUEST = select(ApprovalRequestRow).where(*_OF_FLOW, ApprovalRequestRow.state == "Open")
# beside what the attempt has used, because it is as much about the language model
RETRY_AFTER = "retryAfterSeconds"


def spec_of(flow: DiscoveryFlowRow) -> DiscoveryFlowSpec:
    """The spec as last stored."""
    return DiscoveryFlowSpec.model_validate(flow.spec)


def phase_seconds(flow: DiscoveryFlowRow) -> timedelta:
    """Time limit of one attempt."""
    return timedelta(seconds=parse_duration(spec_of(flow).phase_timeout))


def run_snapshot(run: PhaseRun) -> RunSnapshot:
    """One attempt."""
    claimed = run.state == RunState.RUNNING and run.heartbeat_at is not None
    return RunSnapshot(
        run_id=run.id,
        round=run.round,
        phase=Phase(run.phase),
        attempt=run.attempt,
        state=RunState(run.state),
        job_name=run.job_name,
        job_uid=run.job_uid,
        pod_name=run.pod_name,
        deadline=run.deadline,
        heartbeat_deadline=run.heartbeat_at + HEARTBEAT_TIMEOUT
        if claimed and run.heartbeat_at
        else None,
        error_code=run.error_code,
        error_message=run.error_message,
        progress_done=run.progress_done,
        progress_total=run.progress_total,
        progress_message=run.progress_message,
        llm_fallback=run.llm_fallback,
        retry_after=retry_after(run),
    )


def retry_after(run: PhaseRun) -> float | None:
    """For how many seconds the attempt's endpoint has asked to be left alone."""
    asked = (run.usage or {}).get(RETRY_AFTER)
    return None if asked is None else float(asked)


async def _request_snapshot(
    session: AsyncSession, request: ApprovalRequestRow, runs: list[PhaseRun]
) -> RequestSnapshot:
    rows = await session.execute(
        select(
            FieldMappingRow.source_column,
            FieldMappingRow.proposal["confidence"].as_float(),
            FieldMappingRow.proposal["target"].as_string(),
        )
        .where(
            FieldMappingRow.tenant_id == request.tenant_id,
            FieldMappingRow.request_id == request.id,
        )
        .order_by(FieldMappingRow.position)
    )
    columns = rows.tuples().all()
    mapped = {target for _, _, target in columns}
    result = next((run.result for run in runs if run.id == request.run_id), None) or {}
    return RequestSnapshot(
        request_id=request.id,
        artefact_digest=request.artefact_digest,
        mappings=len(columns),
        policy=ApprovalPolicy.model_validate(request.policy),
        opened_at=request.opened_at,
        expires_at=request.expires_at,
        targets=tuple(request.targets),
        columns=tuple(column for column, _, _ in columns),
        fields=tuple(TargetDescription.model_validate(field) for field in request.fields),
        lowest_confidence=min((sure for _, sure, _ in columns), default=1.0),
        required_unmapped=tuple(
            field["name"]
            for field in request.fields
            if field.get("required") and field["name"] not in mapped
        ),
        findings=tuple(result.get("findings", ())),
    )


async def _runs(session: AsyncSession, flow: DiscoveryFlowRow) -> list[PhaseRun]:
    """The attempts of the current phase, the latest first, and all accepted ones."""
    values = {
        "tenant_id": flow.tenant_id,
        "flow_id": flow.flow_id,
        "round": flow.round,
        "phase": flow.phase,
    }
    return list(await session.scalars(_RUNS, values))


def _attempts(flow: DiscoveryFlowRow, runs: list[PhaseRun]) -> tuple[PhaseRun | None, int, int]:
    """The latest attempt of the current phase, counted failures and the highest number."""
    mine = [run for run in runs if (run.round, run.phase) == (flow.round, flow.phase)]
    failed = sum(1 for run in mine if run.state == RunState.FAILED and run.counted)
    return (mine[0] if mine else None), failed, (mine[0].attempt if mine else 0)


def _results(runs: list[PhaseRun]) -> dict[str, PhaseRun]:
    """The accepted attempt of each phase, in the order in which they ended."""
    accepted = [run for run in runs if run.state == RunState.SUCCEEDED and run.finished_at]
    accepted.sort(key=lambda run: run.finished_at or run.created_at)
    return {run.phase: run for run in accepted}


async def _requests(
    session: AsyncSession, flow: DiscoveryFlowRow
) -> tuple[ApprovalRequestRow | None, frozenset[UUID]]:
    """The open request, and the ids of those that are closed."""
    values = {"tenant_id": flow.tenant_id, "flow_id": flow.flow_id}
    states = dict((await session.execute(_REQUESTS, values)).tuples().all())
    closed = frozenset(number for number, state in states.items() if state != "Open")
    if len(closed) == len(states):
        return None, closed
    return await session.scalar(_OPEN_REQUEST, values), closed


async def spent_by(session: AsyncSession, flow_id: UUID) -> Spent:
    """What the flow's attempts have used of language models."""
    tokens = func.sum(
        PhaseRun.usage["promptTokens"].as_integer()
        + PhaseRun.usage["completionTokens"].as_integer()
    )
    cost = func.sum(PhaseRun.usage["cost"].as_float())
    row = (
        await session.execute(
            select(tokens, cost).where(PhaseRun.flow_id == flow_id, PhaseRun.usage.is_not(None))
        )
    ).one()
    return Spent(int(row[0] or 0), float(row[1] or 0.0))


async def _upload_missing(
    session: AsyncSession, flow: DiscoveryFlowRow, spec: DiscoveryFlowSpec
) -> bool:
    """Whether the spec names an uploaded file that is not there (any more)."""
    uploaded = spec.source.artefact
    if uploaded is None or flow.source_digest is not None or is_ended(flow.state):
        return False
    return not await blobs.is_there(session, flow.tenant_id, uploaded.digest)


async def flow_snapshot(session: AsyncSession, flow_id: UUID) -> FlowSnapshot | None:
    """Everything `decide` needs to know of one flow, or None where the scope shows none."""
    found = await flow_now(session, flow_id)
    return None if found is None else found[1]


async def flow_now(session: AsyncSession, flow_id: UUID) -> tuple[datetime, FlowSnapshot] | None:
    """The database's clock and the flow, in as few questions as it takes."""
    found = (await session.execute(_FLOW, {"flow_id": flow_id})).one_or_none()
    if found is None:
        return None
    flow, master, tenant, now = found
    runs = await _runs(session, flow)
    run, failed, last = _attempts(flow, runs)
    opened, closed = await _requests(session, flow)
    results, spec = _results(runs), spec_of(flow)
    imported = (results["data_import"].result or {}) if "data_import" in results else {}
    inventory = (results["asset_inventory"].result or {}) if "asset_inventory" in results else {}
    latest = next(reversed(results.values()), None)
    snapshot = FlowSnapshot(
        flow_id=flow_id,
        tenant_id=flow.tenant_id,
        namespace=tenant.namespace,
        name=master.name,
        engagement=master.engagement,
        spec=spec,
        generation=flow.generation,
        round=flow.round,
        phase=Phase(flow.phase),
        state=FlowState(flow.state),
        version=flow.version,
        state_since=flow.state_since,
        message=flow.message,
        reason=flow.reason,
        created_at=master.created_at,
        not_before=flow.not_before,
        source_pinned=flow.source_digest is not None,
        upload_missing=await _upload_missing(session, flow, spec),
        missing=tuple(flow.missing),
        deleted=master.deleted_at is not None,
        purged=flow.is_purged,
        failed_attempts=failed,
        last_attempt=last,
        run=run_snapshot(run) if run is not None else None,
        request=await _request_snapshot(session, opened, runs) if opened is not None else None,
        answered_requests=closed,
        rerun_ids=frozenset(flow.rerun_ids),
        answer_note=flow.answer_note,
        records_imported=imported.get("rowsImported"),
        records_rejected=imported.get("rowsRejected"),
        assets=inventory.get("assets"),
        spent=await spent_by(session, flow_id) if spec.llm.budget else None,
        planner=((latest.usage or {}).get("planner") if latest is not None else None),
    )
    return now, snapshot


async def history(session: AsyncSession, flow_id: UUID, after: int = 0) -> list[FlowEvent]:
    """The flow's history after a sequence number, oldest first."""
    rows = await session.scalars(
        select(FlowEventRow)
        .where(FlowEventRow.flow_id == flow_id, FlowEventRow.sequence > after)
        .order_by(FlowEventRow.sequence)
    )
    return [
        FlowEvent(
            sequence=row.sequence,
            at=row.at,
            actor=row.actor,
            trigger=row.trigger,
            from_state=row.from_state,
            to_state=row.to_state,
            phase=row.phase,
            round=row.round,
            attempt=row.attempt,
            message=row.message,
            details=row.details,
        )
        for row in rows
    ]


__all__ = [
    "HEARTBEAT_SECONDS",
    "flow_now",
    "flow_snapshot",
    "history",
    "phase_seconds",
    "retry_after",
    "run_snapshot",
    "spec_of",
    "spent_by",
]
