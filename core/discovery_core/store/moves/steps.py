"""Steps of a flow that the operator makes, each within a transaction that its caller opens.

Every step locks the flow, and does nothing where it finds itself made already.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from ...actions import Register
from ...durations import parse_retention
from ...phases import FIRST_PHASE
from ...resource import DiscoveryFlowSpec
from ...snapshots import FlowSnapshot
from ...states import FlowState, Occurrence, RunState, Trigger, is_ended
from ..database import database_now
from ..ledger.snapshot import flow_snapshot
from ..ledger.transition import (
    append_event,
    end_live_run,
    live_run,
    lock_flow,
    open_request,
    transition,
)
from ..schema import DiscoveryFlowRow, MasterFlow, Tenant
from . import rounds

ACTOR = "operator"
# who made a resource that names nobody
NOBODY = "kubernetes"


def stored_spec(spec: DiscoveryFlowSpec) -> dict[str, object]:
    """The spec without the answer, which is an event and not configuration."""
    return spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"approval"})


async def register(
    session: AsyncSession,
    cluster_id: UUID,
    action: Register,
    *,
    flow_id: UUID,
    tenant_id: UUID,
    namespace: str,
    name: str,
    created_at: datetime | None = None,
) -> FlowSnapshot:
    """Creates master flow, flow and first history row together, or finds them there.

    The order of flows is that in which their resources were created (`created_at`), which does
    not depend on when the operator saw them.
    """
    spec = action.spec
    existing = await flow_snapshot(session, flow_id)
    if existing is not None:
        return existing
    await session.execute(
        insert(Tenant)
        .values(id=tenant_id, cluster_id=cluster_id, namespace=namespace)
        .on_conflict_do_nothing()
    )
    session.add(
        MasterFlow(
            tenant_id=tenant_id,
            flow_id=flow_id,
            name=name,
            engagement=spec.engagement,
            requested_by=spec.requested_by,
            **({} if created_at is None else {"created_at": created_at}),
        )
    )
    await session.flush()
    flow = DiscoveryFlowRow(
        tenant_id=tenant_id,
        flow_id=flow_id,
        spec=stored_spec(spec),
        generation=action.generation,
        phase=FIRST_PHASE,
        state=FlowState.PENDING,
        reason=Trigger.CREATED,
        round=1,
        version=0,
        event_sequence=0,
        last_fence=0,
        # a copy of an old resource may still carry a request for a round that was another flow's
        rerun_ids=[spec.rerun.id] if spec.rerun else [],
        retention_seconds=parse_retention(spec.retention or ""),
    )
    session.add(flow)
    await session.flush()
    actor = spec.requested_by or NOBODY
    await append_event(session, flow, Trigger.CREATED, actor=actor, from_state=None)
    created = await flow_snapshot(session, flow_id)
    assert created is not None  # noqa: S101 - written two lines above
    return created


async def update_spec(
    session: AsyncSession, flow_id: UUID, spec: DiscoveryFlowSpec, generation: int
) -> None:
    """Stores a newer spec; llm, retries and timeouts apply from the next attempt on."""
    flow = await lock_flow(session, flow_id)
    if flow.generation >= generation:
        return
    flow.generation = generation
    stored = stored_spec(spec)
    changed = sorted(
        k for k in stored.keys() | flow.spec.keys() if stored.get(k) != flow.spec.get(k)
    )
    flow.spec = stored
    flow.retention_seconds = parse_retention(spec.retention or "")
    if flow.reason == Occurrence.ENDPOINT_AWAITED and "llm" in changed:
        flow.not_before = None
    await append_event(
        session,
        flow,
        Occurrence.SPEC_CHANGED,
        actor=ACTOR,
        from_state=flow.state,
        details={"generation": generation, "changed": changed},
    )


async def step(
    session: AsyncSession, flow_id: UUID, trigger: Trigger, only_from: FlowState
) -> None:
    """A step without anything else to it, from the one state that it makes sense in."""
    flow = await lock_flow(session, flow_id)
    if flow.state == only_from:
        await transition(session, flow, trigger, actor=ACTOR)


async def reference_missing(session: AsyncSession, flow_id: UUID, missing: list[str]) -> None:
    """→ Waiting, or a changed list of what a Waiting flow waits for."""
    flow = await lock_flow(session, flow_id)
    message = "missing: " + "; ".join(missing)
    if flow.state == FlowState.WAITING:
        if flow.missing == missing:
            return
        flow.missing, flow.message = missing, message
        await append_event(
            session,
            flow,
            Occurrence.REFERENCES_CHANGED,
            actor=ACTOR,
            from_state=flow.state,
            message=message,
        )
        return
    run = await live_run(session, flow)
    if run is not None and run.state == RunState.RUNNING:
        # what was missing when the operator looked has appeared: the pod is at work
        return
    await transition(session, flow, Trigger.REFERENCE_MISSING, actor=ACTOR, message=message)
    flow.missing = missing


async def suspend(session: AsyncSession, flow_id: UUID) -> None:
    """→ Suspended. The live attempt is superseded; an open request stays open."""
    flow = await lock_flow(session, flow_id)
    if flow.state == FlowState.SUSPENDED or is_ended(flow.state):
        return
    await end_live_run(session, flow, RunState.SUPERSEDED, "the flow was suspended")
    flow.resume_state = flow.state
    await transition(session, flow, Trigger.SUSPENDED, actor=ACTOR)


async def resume(session: AsyncSession, flow_id: UUID) -> None:
    """Suspended → AwaitingApproval where a request is open, else → Queued.

    A request's deadline moves by the time that the flow was suspended.
    """
    flow = await lock_flow(session, flow_id)
    if flow.state != FlowState.SUSPENDED:
        return
    request = await open_request(session, flow)
    if request is None:
        await transition(session, flow, Trigger.RESUMED, actor=ACTOR)
        return
    request.expires_at += await database_now(session) - flow.state_since
    await transition(session, flow, Trigger.APPROVAL_REQUESTED, actor=ACTOR)


async def cancel(session: AsyncSession, flow_id: UUID) -> None:
    """→ Cancelled, for good."""
    flow = await lock_flow(session, flow_id)
    if not is_ended(flow.state):
        await rounds.close_everything(session, flow, "the flow was cancelled")
        await transition(session, flow, Trigger.CANCELLED, actor=ACTOR)


async def mark_deleted(session: AsyncSession, flow_id: UUID) -> None:
    """The resource is gone: ends the flow.

    Its rows leave the inventory and its files go later, in steps that hold no flow's lock: see
    `maintenance.deleted`.
    """
    flow = await lock_flow(session, flow_id)
    master = await session.get_one(MasterFlow, (flow.tenant_id, flow.flow_id))
    if master.deleted_at is not None:
        return
    master.deleted_at = await database_now(session)
    if is_ended(flow.state):
        await append_event(session, flow, Trigger.DELETED, actor=ACTOR, from_state=flow.state)
    else:
        await rounds.close_everything(session, flow, "the resource was deleted")
        await transition(
            session, flow, Trigger.DELETED, actor=ACTOR, message="the resource was deleted"
        )
