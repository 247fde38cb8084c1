"""Snapshots and observations for tests of the operator's decisions."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from discovery_core.phases import Phase
from discovery_core.resource import DiscoveryFlowSpec
from discovery_core.resource_gate import ApprovalPolicy
from discovery_core.snapshots import Capacity, FlowSnapshot, RequestSnapshot, RunSnapshot
from discovery_core.states import FlowState, RunState
from discovery_operator.manifests.names import job_name
from discovery_operator.observed import (
    Guard,
    JobState,
    JobView,
    Observed,
    PodView,
    Presence,
    ResourceView,
)

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
FLOW_ID = UUID("11111111-2222-4333-8444-555555555555")
TENANT = UUID("99999999-2222-4333-8444-555555555555")
RUN_ID = UUID("22222222-2222-4333-8444-555555555555")
REQUEST = UUID("33333333-2222-4333-8444-555555555555")
OTHER = UUID("44444444-2222-4333-8444-555555555555")
DIGEST = "sha256:" + "a" * 64
OTHER_DIGEST = "sha256:" + "b" * 64
JOB_UID = "55555555-2222-4333-8444-555555555555"
FREE = Capacity(0, 0, 20, 5)
FULL = Capacity(20, 5, 20, 5)


def at(seconds: float) -> datetime:
    """A moment so many seconds after NOW."""
    return NOW + timedelta(seconds=seconds)


def spec(**changes: Any) -> DiscoveryFlowSpec:
    """A spec; keywords are fields as in YAML."""
    return DiscoveryFlowSpec.model_validate(
        {"source": {"configMap": {"name": "servers", "key": "servers.csv"}}, **changes}
    )


def answer(**changes: Any) -> dict[str, Any]:
    """spec.approval that matches the open request."""
    return {
        "requestId": str(REQUEST),
        "artefactDigest": DIGEST,
        "decision": "Approve",
        "decidedBy": "ann",
        **changes,
    }


def run(**changes: Any) -> RunSnapshot:
    """A claimed attempt with time left."""
    known: dict[str, Any] = {
        "run_id": RUN_ID,
        "round": 1,
        "phase": Phase.DATA_IMPORT,
        "attempt": 1,
        "state": RunState.RUNNING,
        "job_name": job_name("servers", FLOW_ID, round=1, phase=Phase.DATA_IMPORT, attempt=1),
        "job_uid": JOB_UID,
        "pod_name": "pod-1",
        "deadline": at(600),
        "heartbeat_deadline": at(60),
    }
    known.update(changes)
    if known["state"] is not RunState.RUNNING and "heartbeat_deadline" not in changes:
        known["heartbeat_deadline"] = None
    if known["state"] is RunState.CREATED and "job_uid" not in changes:
        known["job_uid"] = None
    return RunSnapshot(**known)


def request(**changes: Any) -> RequestSnapshot:
    """An open request with an hour left."""
    known: dict[str, Any] = {
        "request_id": REQUEST,
        "artefact_digest": DIGEST,
        "mappings": 12,
        "policy": ApprovalPolicy(),
        "opened_at": at(-10),
        "expires_at": at(3600),
    }
    return RequestSnapshot(**{**known, **changes})


def flow(state: FlowState = FlowState.QUEUED, **changes: Any) -> FlowSnapshot:
    """A flow in that state, with what such a flow has."""
    known: dict[str, Any] = {
        "flow_id": FLOW_ID,
        "tenant_id": TENANT,
        "namespace": "team-a",
        "name": "servers",
        "engagement": None,
        "spec": spec(),
        "generation": 1,
        "round": 1,
        "phase": Phase.DATA_IMPORT,
        "state": state,
        "version": 3,
        "state_since": at(-30),
        "message": "",
        "reason": "Admitted",
        "created_at": at(-60),
    }
    if state is FlowState.RUNNING:
        known.update(run=run(), last_attempt=1, reason="AttemptStarted")
    if state is FlowState.AWAITING_APPROVAL:
        known.update(request=request(), phase=Phase.FIELD_MAPPING, source_pinned=True)
        known.update(reason="ApprovalRequested")
    return FlowSnapshot(**{**known, **changes})


def resource(**changes: Any) -> ResourceView:
    """The resource of that flow."""
    known: dict[str, Any] = {
        "uid": FLOW_ID,
        "namespace": "team-a",
        "name": "servers",
        "generation": 1,
        "resource_version": "100",
        "spec": spec(),
    }
    return ResourceView(**{**known, **changes})


def job(state: JobState = JobState.ACTIVE, **changes: Any) -> JobView:
    """The Job of the current attempt."""
    known: dict[str, Any] = {
        "name": run().job_name,
        "uid": JOB_UID,
        "state": state,
        "attempt_key": ("1", "data_import", "1"),
        "owner_uid": str(FLOW_ID),
    }
    return JobView(**{**known, **changes})


def pod(**changes: Any) -> PodView:
    """Its pod, running."""
    return PodView(**{"name": "pod-1", "phase": "Running", **changes})


def observed(state: FlowState | None = FlowState.QUEUED, **changes: Any) -> Observed:
    """A consistent picture of a flow in that state; `flow_` keywords change the row."""
    row = {key[5:]: changes.pop(key) for key in list(changes) if key.startswith("flow_")}
    snapshot = None if state is None else flow(state, **row)
    known: dict[str, Any] = {"now": NOW, "resource": resource(), "flow": snapshot}
    if snapshot is not None:
        known["resource"] = resource(spec=snapshot.spec, generation=snapshot.generation)
    if state in (FlowState.PENDING, FlowState.QUEUED, FlowState.WAITING):
        known["missing"] = ()
    if state is FlowState.QUEUED:
        known["capacity"] = FREE
    if state in (FlowState.QUEUED, FlowState.RUNNING):
        known["crew_guard"] = Guard("discoveryflow-crews", Presence.PRESENT)
    live = snapshot.run if snapshot is not None and state is FlowState.RUNNING else None
    if live is not None and live.job_uid is not None:
        known.update(job=job(), job_presence=Presence.PRESENT, pod=pod(), jobs=(job(),))
    return Observed(**{**known, **changes})


def answered(**changes: Any) -> Observed:
    """AwaitingApproval with an answer in the resource and the policy in force."""
    given = changes.pop("answer", answer())
    presence = changes.pop("presence", Presence.PRESENT)
    picture = observed(FlowState.AWAITING_APPROVAL, **changes)
    guard = None if presence is None else Guard("discoveryflow-approval", presence)
    return replace(picture, resource=resource(spec=spec(approval=given)), guard=guard)
