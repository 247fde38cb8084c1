"""What the user API answers and accepts.

`flow_id` and its neighbours are snake_case, by contract; what is copied from the resource
(requestId, artefactDigest) keeps the resource's spelling.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from discovery_core.phases import progress
from discovery_core.resource_gate import ApprovalPolicy, MappingEdit, Transform
from discovery_core.snapshots import FlowSnapshot
from discovery_core.states import STATES, FlowState
from discovery_core.store import RequestRow
from discovery_core.wire.results import FieldMapping, MappingCandidate, TargetDescription
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

Column = Annotated[str, StringConstraints(min_length=1, max_length=512)]
PhaseStatus = Literal["pending", "running", "awaiting_approval", "completed", "failed"]


class MappingToApprove(BaseModel):
    """One proposed mapping; `target` null means that the column is not mapped."""

    column: str
    target: str | None
    role: str
    confidence: float
    reason: str
    samples: list[str]
    candidates: list[MappingCandidate]
    transform: str | None = None
    decided_by: str

    @classmethod
    def of(cls, mapping: FieldMapping) -> MappingToApprove:
        """From a proposal."""
        return cls.model_validate(mapping.model_dump())


class UiState(BaseModel):
    """What a page shows now; `findings` are what to look at before approval, the worst first."""

    show_approval_ui: bool
    mappings_to_approve: list[MappingToApprove]
    findings: list[str] = Field(default_factory=list)


class OpenRequest(BaseModel):
    """The open question; both ids go into the answer."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    request_id: UUID
    artefact_digest: str
    opened_at: datetime
    expires_at: datetime
    policy: ApprovalPolicy = Field(description="as it was when the request opened")
    mappings: int = Field(description="how many mappings are proposed")
    targets: list[str] = Field(description="every target that an answer may name")
    fields: list[TargetDescription] = Field(description="what the targets mean")


class Permissions(BaseModel):
    """What RBAC lets the caller do with the flow: answer, change, delete it."""

    approve: bool
    update: bool
    delete: bool

    @property
    def tag(self) -> str:
        """A part of the entity tag."""
        return "".join(str(int(may)) for may in (self.approve, self.update, self.delete))


class FlowView(BaseModel):
    """One flow."""

    flow_id: UUID
    name: str
    namespace: str
    engagement: str | None
    state: str
    current_phase: str
    phase_status: PhaseStatus
    progress: str
    round: int
    attempt: int
    message: str
    planner: str | None
    records_imported: int | None
    records_rejected: int | None
    assets: int | None
    created_at: datetime
    state_since: datetime
    approval_request: OpenRequest | None
    ui_state: UiState
    permissions: Permissions

    @classmethod
    def of(
        cls, flow: FlowSnapshot, mappings: list[FieldMapping], permissions: Permissions
    ) -> FlowView:
        """From what the database knows."""
        request = flow.request
        asking = flow.state is FlowState.AWAITING_APPROVAL and request is not None
        opened = None
        if request is not None:
            opened = OpenRequest(
                request_id=request.request_id,
                artefact_digest=request.artefact_digest,
                opened_at=request.opened_at,
                expires_at=request.expires_at,
                policy=request.policy,
                mappings=request.mappings,
                targets=list(request.targets),
                fields=list(request.fields),
            )
        return cls.model_validate(
            {
                "flow_id": flow.flow_id,
                "name": flow.name,
                "namespace": flow.namespace,
                "engagement": flow.engagement,
                "state": flow.state,
                "current_phase": flow.phase,
                "phase_status": STATES[flow.state].phase_status,
                "progress": progress(flow.phase, finished=flow.state is FlowState.SUCCEEDED),
                "round": flow.round,
                "attempt": flow.last_attempt,
                "message": flow.told,
                "planner": flow.planner,
                "records_imported": flow.records_imported,
                "records_rejected": flow.records_rejected,
                "assets": flow.assets,
                "created_at": flow.created_at,
                "state_since": flow.state_since,
                "approval_request": opened,
                "ui_state": UiState(
                    show_approval_ui=asking,
                    mappings_to_approve=[MappingToApprove.of(m) for m in mappings]
                    if asking
                    else [],
                    findings=list(request.findings) if asking and request is not None else [],
                ),
                "permissions": permissions,
            }
        )


class FlowSummary(BaseModel):
    """A flow in a list, as its resource shows it; null until the operator has seen it."""

    flow_id: UUID
    name: str
    namespace: str
    engagement: str | None
    state: str
    current_phase: str | None
    phase_status: PhaseStatus
    progress: str | None
    round: int | None
    message: str
    created_at: str
    requested_by: str | None
    records_imported: int | None
    records_rejected: int | None
    assets: int | None
    approval_request: dict[str, Any] | None

    @classmethod
    def of(cls, item: dict[str, Any]) -> FlowSummary:
        """From the resource."""
        meta, spec = item["metadata"], item.get("spec") or {}
        status = item.get("status") or {}
        state = status.get("state") or "Pending"
        return cls.model_validate(
            {
                "flow_id": meta["uid"],
                "name": meta["name"],
                "namespace": meta["namespace"],
                "engagement": spec.get("engagement"),
                "state": state,
                "current_phase": status.get("phase"),
                "phase_status": STATES[FlowState(state)].phase_status,
                "progress": status.get("progress"),
                "round": status.get("round"),
                "message": status.get("message") or "",
                "created_at": meta.get("creationTimestamp") or "",
                "requested_by": spec.get("requestedBy"),
                "records_imported": status.get("recordsImported"),
                "records_rejected": status.get("recordsRejected"),
                "assets": status.get("assets"),
                "approval_request": status.get("approvalRequest"),
            }
        )


class FinalMapping(BaseModel):
    """One line of a complete final list."""

    column: Column
    target: Annotated[str, StringConstraints(max_length=128)] | None
    transform: Transform | None = Field(
        default=None, description="unit of the column's values, such as unit:MiB, or none"
    )


class Answer(BaseModel):
    """An answer to the open request.

    `requestId` and `artefactDigest` say which question, about which bytes, is answered.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    request_id: UUID | None = None
    artefact_digest: str | None = Field(default=None, max_length=100)
    reason: Annotated[str, StringConstraints(max_length=2000)] = ""


class ApproveMappings(Answer):
    """Approval: as proposed, with `edits`, or as the complete final list `mappings`."""

    mappings: list[FinalMapping] | None = Field(default=None, max_length=2000)
    edits: list[MappingEdit] | None = Field(default=None, max_length=1000)


class AskAgain(Answer):
    """The mapping is done once more. Lines such as `Column -> field` are followed to the letter."""

    hint: Annotated[str, StringConstraints(max_length=2000)] = ""


class DecisionView(BaseModel):
    """What became of an answer. `committed` false: it is on its way, ask the flow again."""

    flow_id: UUID
    request_id: UUID
    committed: bool
    decision: str | None = None
    decided_by: str | None = None
    decided_at: datetime | None = None
    reason: str = ""
    message: str = Field(default="", description="why it is not committed yet")

    @classmethod
    def of(cls, row: RequestRow) -> DecisionView:
        """From the request as it is now."""
        return cls(
            flow_id=row.flow_id,
            request_id=row.request_id,
            committed=row.state != "Open",
            decision=None if row.state == "Open" else row.state,
            decided_by=row.decided_by,
            decided_at=row.decided_at,
            reason=row.reason,
        )


ANSWERS: dict[int | str, dict[str, Any]] = {
    202: {"model": DecisionView, "description": "written, not yet committed; `message` says why"},
    403: {"description": "the caller may not answer; `detail` has the admission policy's words"},
    409: {"description": "answered already, or about mappings that have changed since"},
    413: {"description": "the body is too large"},
    428: {"description": "requestId or artefactDigest is missing"},
}
