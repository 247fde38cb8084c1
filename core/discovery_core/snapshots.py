"""Read-only pictures of database rows, free of any database library.

`decide` and the status writer are pure functions over these; the store makes them. All times
are UTC and come from the database's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from .phases import Phase
from .resource import DiscoveryFlowSpec
from .resource_gate import ApprovalPolicy
from .states import FlowState, RunState
from .wire.results import TargetDescription


@dataclass(frozen=True)
class RunSnapshot:
    """The latest attempt of the flow's current phase.

    `deadline` is when the attempt counts as lost: for its launch until a pod claims it, for its
    work afterwards. `heartbeat_deadline` is set from the claim on. `llm_fallback` is why the
    built-in planner judges although the spec names a language model. `retry_after` are the seconds
    for which the language model has asked to be left alone.
    """

    run_id: UUID
    round: int
    phase: Phase
    attempt: int
    state: RunState
    job_name: str
    job_uid: str | None
    pod_name: str | None
    deadline: datetime
    heartbeat_deadline: datetime | None = None
    error_code: str | None = None
    error_message: str | None = None
    progress_done: int | None = None
    progress_total: int | None = None
    progress_message: str = ""
    llm_fallback: str = ""
    retry_after: float | None = None


@dataclass(frozen=True)
class RequestSnapshot:
    """The open approval request. `policy` is the one frozen when it opened.

    `lowest_confidence` is that of the least certain mapping, `required_unmapped` are required
    fields without a column; `findings` say what the values have against the proposal.
    """

    request_id: UUID
    artefact_digest: str
    mappings: int
    policy: ApprovalPolicy
    opened_at: datetime
    expires_at: datetime
    targets: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    fields: tuple[TargetDescription, ...] = ()
    lowest_confidence: float = 0.0
    required_unmapped: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class AttemptRecord:
    """One try of a phase for people; `usage` is `discovery_core.wire.Usage` as stored."""

    round: int
    phase: str
    attempt: int
    state: str
    claimed_at: datetime | None
    finished_at: datetime | None
    error_code: str | None
    error_message: str | None
    usage: dict[str, Any] | None


@dataclass(frozen=True)
class Spent:
    """What a flow's attempts have used of a language model so far, failed ones included."""

    tokens: int = 0
    cost: float = 0.0


@dataclass(frozen=True)
class FlowSnapshot:
    """One flow as the database knows it.

    `failed_attempts` counts the failures of the current phase in this round that count towards
    `retries.maxAttempts`; `last_attempt` is the highest attempt number used so far. `not_before`
    ends a retry delay. `source_pinned` tells that the bytes of the source are stored,
    `upload_missing` that the spec names an uploaded file that is not there.
    `missing` names the objects that a Waiting flow waits for. `resume_state` is what a
    Suspended flow goes back to. `answered_requests` are requests of this flow that have been
    closed, so that their answers are recognised as late. `purged`: its data is gone for good, and
    it goes on no more. `spent` is known where the spec has a
    budget. `rerun_ids` are the reruns that were followed or refused.
    """

    flow_id: UUID
    tenant_id: UUID
    namespace: str
    name: str
    engagement: str | None
    spec: DiscoveryFlowSpec
    generation: int
    round: int
    phase: Phase
    state: FlowState
    version: int
    state_since: datetime
    message: str
    reason: str
    created_at: datetime
    not_before: datetime | None = None
    source_pinned: bool = False
    upload_missing: bool = False
    missing: tuple[str, ...] = ()
    deleted: bool = False
    purged: bool = False
    failed_attempts: int = 0
    last_attempt: int = 0
    run: RunSnapshot | None = None
    request: RequestSnapshot | None = None
    answered_requests: frozenset[UUID] = frozenset()
    rerun_ids: frozenset[str] = frozenset()
    answer_note: str = ""
    records_imported: int | None = None
    records_rejected: int | None = None
    assets: int | None = None
    planner: str | None = None
    spent: Spent | None = None

    @property
    def told(self) -> str:
        """What people are told: the latest note, or why the flow stands where it does.

        Of a failed flow both: what was refused since must not hide what has to be mended.
        """
        if self.state is FlowState.FAILED:
            return "; ".join(part for part in (self.message, self.answer_note) if part)
        return self.answer_note or self.message


@dataclass(frozen=True)
class Capacity:
    """Live attempts now, against the caps; `turn` tells whether nobody comes before this flow."""

    running: int
    running_in_tenant: int
    max_running: int
    max_running_per_tenant: int
    turn: bool = True

    @property
    def free(self) -> bool:
        """Whether another attempt may start for this flow."""
        return (
            self.turn
            and self.running < self.max_running
            and self.running_in_tenant < self.max_running_per_tenant
        )


@dataclass(frozen=True)
class FlowEvent:
    """A row of the history: append-only, `sequence` without gaps per flow."""

    sequence: int
    at: datetime
    actor: str
    trigger: str
    from_state: str | None
    to_state: str
    phase: str | None
    round: int
    attempt: int | None
    message: str
    details: dict[str, Any] = field(default_factory=dict)
