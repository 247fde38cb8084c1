"""What the operator may do to a flow. Each action is a value that is carried out, once or again.

`Move`s only touch the database: the store applies them. The others touch Kubernetes as well, which
is the operator's. Every action is idempotent: the store re-reads under its lock, Job names are
deterministic and deletes carry a uid, so one that was cut off half way is simply asked for again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from .errors import ErrorCode
from .phases import Phase
from .resource import DiscoveryFlowSpec
from .resource_gate import Approval, Rerun
from .states import WaitsFor


@dataclass(frozen=True)
class Register:
    """Write master flow and flow: the resource is new."""

    spec: DiscoveryFlowSpec
    generation: int


@dataclass(frozen=True)
class UpdateSpec:
    """Store a newer generation of the spec."""

    spec: DiscoveryFlowSpec
    generation: int


@dataclass(frozen=True)
class MarkDeleted:
    """The resource is gone (or on its way, which cannot be undone)."""


@dataclass(frozen=True)
class Admit:
    """Everything that the spec names is there: Pending → Queued."""


@dataclass(frozen=True)
class ReferenceMissing:
    """Something that the spec names is not there: → Waiting, told by name."""

    missing: tuple[str, ...]


@dataclass(frozen=True)
class ReferenceFound:
    """Waiting → Queued."""


@dataclass(frozen=True)
class StartAttempt:
    """Commit the intent to run a Job, create it, record it."""

    round: int
    phase: Phase
    attempt: int
    job_name: str
    launch_timeout: float


@dataclass(frozen=True)
class LaunchJob:
    """The intent is committed, the Job is not recorded yet: create or adopt it, record it."""

    run_id: UUID
    round: int
    phase: Phase
    attempt: int
    job_name: str


@dataclass(frozen=True)
class FailAttempt:
    """End the current attempt. `retry_delay` in seconds; None makes the failure final."""

    run_id: UUID
    code: ErrorCode
    message: str
    retry_delay: float | None
    counted: bool = True


@dataclass(frozen=True)
class DeleteJob:
    """Stop a Job that no longer is the current attempt's. `uid` guards against a namesake."""

    name: str
    uid: str


@dataclass(frozen=True)
class TakeAnswer:
    """Decide the open request as spec.approval says."""

    approval: Approval


@dataclass(frozen=True)
class RefuseAnswer:
    """Do not take the answer; ask again under a new request id, and say why."""

    request_id: UUID
    problems: tuple[str, ...]
    decided_by: str


@dataclass(frozen=True)
class Note:
    """Say once why an answer was not taken."""

    message: str


@dataclass(frozen=True)
class ExpireRequest:
    """The open request's deadline has passed: apply its frozen policy."""

    request_id: UUID


@dataclass(frozen=True)
class ApproveByPolicy:
    """The frozen policy is AutoApprove, and nothing speaks against it."""

    request_id: UUID


@dataclass(frozen=True)
class StartRound:
    """spec.rerun asks for another round and has not been followed yet."""

    rerun: Rerun


@dataclass(frozen=True)
class Suspend:
    """spec.state is Suspend."""


@dataclass(frozen=True)
class Resume:
    """spec.state is Run again."""


@dataclass(frozen=True)
class Cancel:
    """spec.state is Cancel."""


GateMove = TakeAnswer | RefuseAnswer | Note | ExpireRequest | ApproveByPolicy
Move = (
    GateMove
    | UpdateSpec
    | MarkDeleted
    | Admit
    | ReferenceMissing
    | ReferenceFound
    | FailAttempt
    | StartRound
    | Suspend
    | Resume
    | Cancel
)
Action = Move | Register | StartAttempt | LaunchJob | DeleteJob


@dataclass(frozen=True)
class Decision:
    """What to do now, and when to look again at the latest.

    Without actions, `waits_for` says why the flow is not stuck and `requeue_at` (database
    clock) is when to look again if nothing happens before.
    """

    actions: tuple[Action, ...] = ()
    requeue_at: datetime | None = None
    waits_for: WaitsFor = WaitsFor.TIMER
