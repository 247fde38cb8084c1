"""What the user API answers and accepts.

`flow_id` and its neighbours are snake_case, by contract; what is copied from the resource
(requestId, artefactDigest) keeps the resource's spelling.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from discovery_core.phases import progress
from discovery_core.resource_gate import ApprovalPolicy, MappingEdit
from discovery_core.snapshots import FlowSnapshot
from discovery_core.states import STATES, FlowState
from discovery_core.store import RequestRow
from discovery_core.wire import FieldMapping, MappingCandidate
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
    """What a page shows now."""

    show_approval_ui: bool
    mappings_to_approve: list[MappingToApprove]


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

    @classmethod
    def of(cls, flow: FlowSnapshot, mappings: list[FieldMapping]) -> FlowView:
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
                "message": flow.answer_note or flow.message,
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
                ),
            }
        )


class FinalMapping(BaseModel):
    """One line of a complete final list."""

    column: Column
    target: Annotated[str, StringConstraints(max_length=128)] | None


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
