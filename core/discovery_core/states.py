"""The state table: every legal transition of a flow, as data.

Code, tests and documentation read this one table, so that they cannot disagree. The store
refuses what is not in it; the status writer takes conditions and the API's `phase_status` from
it; a test walks it to prove that every state waits for something that will happen.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FlowState(StrEnum):
    """State of a flow, as written in `status.state` and in the database."""

    PENDING = "Pending"
    QUEUED = "Queued"
    RUNNING = "Running"
    AWAITING_APPROVAL = "AwaitingApproval"
    SUSPENDED = "Suspended"
    WAITING = "Waiting"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    REJECTED = "Rejected"
    CANCELLED = "Cancelled"


class RunState(StrEnum):
    """State of one attempt of a phase.

    Created: the intent is committed, the Job may not exist yet. Launched: the Job's uid is
    recorded. Running: a pod has claimed it. The others are ends.
    """

    CREATED = "Created"
    LAUNCHED = "Launched"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SUPERSEDED = "Superseded"


class Trigger(StrEnum):
    """What moves a flow; written to the history as the reason of the transition."""

    CREATED = "Created"
    ADMITTED = "Admitted"
    REFERENCE_MISSING = "ReferenceMissing"
    REFERENCE_FOUND = "ReferenceFound"
    ATTEMPT_STARTED = "AttemptStarted"
    CLAIMED = "Claimed"
    PHASE_SUCCEEDED = "PhaseSucceeded"
    APPROVAL_REQUESTED = "ApprovalRequested"
    FLOW_SUCCEEDED = "FlowSucceeded"
    ATTEMPT_FAILED = "AttemptFailed"
    ATTEMPTS_EXHAUSTED = "AttemptsExhausted"
    APPROVED = "Approved"
    REJECTED = "Rejected"
    EXPIRED_APPROVED = "ExpiredApproved"
    EXPIRED_REJECTED = "ExpiredRejected"
    ASKED_AGAIN = "AskedAgain"
    RERUN = "Rerun"
    REOPENED = "Reopened"
    SUSPENDED = "Suspended"
    RESUMED = "Resumed"
    CANCELLED = "Cancelled"
    DELETED = "Deleted"


class Occurrence(StrEnum):
    """What the history records beside transitions: the flow's state stays as it is."""

    SPEC_CHANGED = "SpecChanged"
    ANSWER_REFUSED = "AnswerRefused"
    ANSWER_NOT_TAKEN = "AnswerNotTaken"
    APPROVAL_REMINDED = "ApprovalReminded"
    ATTEMPT_ENDED = "AttemptEnded"
    REFERENCES_CHANGED = "ReferencesChanged"
    RERUN_REFUSED = "RerunRefused"
    CIRCUIT_OPENED = "CircuitOpened"
    CIRCUIT_PROBED = "CircuitProbed"
    CIRCUIT_CLOSED = "CircuitClosed"
    ENDPOINT_AWAITED = "EndpointAwaited"
    ADOPTED = "Adopted"


class WaitsFor(StrEnum):
    """Why a flow in this state is not stuck."""

    LIVE_JOB = "a live Job"
    TIMER = "an armed timer"
    QUEUE_SLOT = "a queue slot"
    APPROVAL_DEADLINE = "an approval deadline"
    PERSON = "a recorded wait for a person"
    NOTHING = "nothing: the flow has ended"


@dataclass(frozen=True)
class StateInfo:
    """What a state means to people and to tools.

    `conditions` gives the status of each condition type ("True" or "False"); `phase_status` is
    the user API's coarse word.
    """

    state: FlowState
    waits_for: WaitsFor
    phase_status: str
    conditions: dict[str, str]
    meaning: str

    @property
    def ended(self) -> bool:
        """Whether only a new round leaves this state."""
        return self.waits_for is WaitsFor.NOTHING


CONDITION_TYPES = ("Ready", "Reconciling", "Stalled", "AwaitingApproval", "Succeeded")


def _conditions(*true: str) -> dict[str, str]:
    return {name: "True" if name in true else "False" for name in CONDITION_TYPES}


STATES: dict[FlowState, StateInfo] = {
    info.state: info
    for info in (
        StateInfo(
            FlowState.PENDING,
            WaitsFor.TIMER,
            "pending",
            _conditions("Reconciling"),
            "Registered; what the spec names is being checked.",
        ),
        StateInfo(
            FlowState.QUEUED,
            WaitsFor.QUEUE_SLOT,
            "pending",
            _conditions("Reconciling"),
            "The next phase waits for a free slot or for the end of a retry delay.",
        ),
        StateInfo(
            FlowState.RUNNING,
            WaitsFor.LIVE_JOB,
            "running",
            _conditions("Reconciling"),
            "A Job works on the phase.",
        ),
        StateInfo(
            FlowState.AWAITING_APPROVAL,
            WaitsFor.APPROVAL_DEADLINE,
            "awaiting_approval",
            _conditions("Ready", "AwaitingApproval"),
            "A person has to approve or reject the field mappings.",
        ),
        StateInfo(
            FlowState.SUSPENDED,
            WaitsFor.PERSON,
            "pending",
            _conditions("Ready"),
            "Stopped by spec.state: Suspend, until somebody sets Run or Cancel.",
        ),
        StateInfo(
            FlowState.WAITING,
            WaitsFor.TIMER,
            "pending",
            _conditions("Stalled"),
            "An object that the spec names is missing; it is looked for again and again.",
        ),
        StateInfo(
            FlowState.SUCCEEDED,
            WaitsFor.NOTHING,
            "completed",
            _conditions("Ready", "Succeeded"),
            "All phases are done; the inventory is complete.",
        ),
        StateInfo(
            FlowState.FAILED,
            WaitsFor.NOTHING,
            "failed",
            _conditions("Stalled"),
            "A phase failed for good; the message says why and what to do.",
        ),
        StateInfo(
            FlowState.REJECTED,
            WaitsFor.NOTHING,
            "failed",
            _conditions("Ready"),
            "A person, or the deadline, rejected the field mappings.",
        ),
        StateInfo(
            FlowState.CANCELLED,
            WaitsFor.NOTHING,
            "failed",
            _conditions("Ready"),
            "Stopped for good by spec.state: Cancel or by deletion.",
        ),
    )
}


@dataclass(frozen=True)
class Transition:
    """One legal step. `source` None is the creation of the flow."""

    source: FlowState | None
    trigger: Trigger
    target: FlowState


_S = FlowState
_T = Trigger
_OPEN = tuple(state for state, info in STATES.items() if not info.ended)

# where another round may begin; a new flow has nothing to repeat, and Cancelled is final
RERUN_FROM = tuple(
    state for state in STATES if state not in (_S.PENDING, _S.SUSPENDED, _S.CANCELLED)
)

TRANSITIONS: tuple[Transition, ...] = (
    Transition(None, _T.CREATED, _S.PENDING),
    Transition(_S.PENDING, _T.ADMITTED, _S.QUEUED),
    Transition(_S.PENDING, _T.REFERENCE_MISSING, _S.WAITING),
    Transition(_S.QUEUED, _T.REFERENCE_MISSING, _S.WAITING),
    Transition(_S.RUNNING, _T.REFERENCE_MISSING, _S.WAITING),
    Transition(_S.WAITING, _T.REFERENCE_FOUND, _S.QUEUED),
    Transition(_S.WAITING, _T.CLAIMED, _S.RUNNING),
    Transition(_S.WAITING, _T.ATTEMPT_FAILED, _S.QUEUED),
    Transition(_S.QUEUED, _T.ATTEMPT_STARTED, _S.RUNNING),
    Transition(_S.RUNNING, _T.PHASE_SUCCEEDED, _S.QUEUED),
    Transition(_S.RUNNING, _T.APPROVAL_REQUESTED, _S.AWAITING_APPROVAL),
    Transition(_S.RUNNING, _T.FLOW_SUCCEEDED, _S.SUCCEEDED),
    Transition(_S.RUNNING, _T.ATTEMPT_FAILED, _S.QUEUED),
    Transition(_S.RUNNING, _T.ATTEMPTS_EXHAUSTED, _S.FAILED),
    Transition(_S.AWAITING_APPROVAL, _T.APPROVED, _S.QUEUED),
    Transition(_S.AWAITING_APPROVAL, _T.EXPIRED_APPROVED, _S.QUEUED),
    Transition(_S.AWAITING_APPROVAL, _T.REJECTED, _S.REJECTED),
    Transition(_S.AWAITING_APPROVAL, _T.EXPIRED_REJECTED, _S.REJECTED),
    Transition(_S.AWAITING_APPROVAL, _T.ASKED_AGAIN, _S.QUEUED),
    *(Transition(state, _T.RERUN, _S.QUEUED) for state in RERUN_FROM),
    *(
        Transition(state, _T.REOPENED, _S.AWAITING_APPROVAL)
        for state in RERUN_FROM
        if state is not _S.AWAITING_APPROVAL
    ),
    *(
        Transition(state, _T.SUSPENDED, _S.SUSPENDED)
        for state in _OPEN
        if state is not _S.SUSPENDED
    ),
    Transition(_S.SUSPENDED, _T.RESUMED, _S.QUEUED),
    Transition(_S.SUSPENDED, _T.APPROVAL_REQUESTED, _S.AWAITING_APPROVAL),
    *(Transition(state, _T.CANCELLED, _S.CANCELLED) for state in _OPEN),
    *(Transition(state, _T.DELETED, _S.CANCELLED) for state in _OPEN),
)

_LEGAL = {(t.source, t.trigger): t.target for t in TRANSITIONS}


def target_of(source: FlowState | None, trigger: Trigger) -> FlowState | None:
    """Where `trigger` leads from `source`, or None where the table has no such step."""
    return _LEGAL.get((source, trigger))


def is_ended(state: FlowState | str) -> bool:
    """Whether `state` is an end that only a new round leaves."""
    return STATES[FlowState(state)].ended
