"""What the operator knows of one flow at one moment, as frozen values.

`decide` is a pure function of `Observed`; that is only possible because everything it may look
at (resource, database row, Job, pod, clock) is gathered into this one picture first. The clock
is the database's, so that two operators with wrong clocks still agree about deadlines.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from discovery_core.resource import DiscoveryFlowSpec
from discovery_core.snapshots import Capacity, FlowSnapshot

# looks per second at all flows at work without cause, however many they are
LOOKS_PER_SECOND = 3.0


class Presence(StrEnum):
    """Whether the object of an attempt exists, as far as a GET by name can tell."""

    PRESENT = "present"
    ABSENT = "absent"
    UNKNOWN = "unknown"


class JobState(StrEnum):
    """What the Job controller says about a Job."""

    ACTIVE = "active"
    COMPLETE = "complete"
    FAILED = "failed"


@dataclass(frozen=True)
class ResourceView:
    """The DiscoveryFlow as last seen. `spec` is None where it cannot be read (`spec_problem`).

    `status` is the raw status, which is what a new one is compared with.
    """

    uid: UUID
    namespace: str
    name: str
    generation: int
    resource_version: str
    spec: DiscoveryFlowSpec | None
    spec_problem: str = ""
    deleting: bool = False
    status: dict[str, Any] = field(default_factory=dict)
    created_at: datetime | None = None


@dataclass(frozen=True)
class JobView:
    """A Job that carries this flow's labels; `attempt_key` is its round, phase and attempt.

    `made_pod` tells whether the Job controller has counted any pod of it.
    """

    name: str
    uid: str
    state: JobState
    attempt_key: tuple[str, str, str] = ("", "", "")
    owner_uid: str = ""
    deleting: bool = False
    failure_reason: str = ""
    failure_message: str = ""
    made_pod: bool = False
    created_at: datetime | None = None


@dataclass(frozen=True)
class PodView:
    """The pod of the current attempt: what it waits for, or why it ended.

    `waiting` and `terminated` are reasons of the crew container, `disruption` the reason of the
    pod's DisruptionTarget condition, `unschedulable` the scheduler's message. `node_silent` tells
    that the control plane hears nothing of the pod's node.
    """

    name: str
    phase: str
    waiting: str = ""
    waiting_message: str = ""
    terminated: str = ""
    terminated_message: str = ""
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    disruption: str = ""
    unschedulable: str = ""
    node: str = ""
    node_silent: bool = False
    deleting: bool = False


@dataclass(frozen=True)
class Guard:
    """Whether an admission policy of the release is in force, and its name."""

    name: str
    presence: Presence


@dataclass(frozen=True)
class Policies:
    """Names of the release's admission policies, which are those of their bindings, too."""

    answers: str = "discoveryflow-approval"
    crews: str = "discoveryflow-crews"


@dataclass(frozen=True)
class Rules:
    """The installation's settings that decisions depend on. Times are seconds.

    `most_open_flows` of a namespace are admitted before one of them has ended.
    """

    launch_timeout: float = 600.0
    allow_automatic_approval: bool = False
    slot_poll: float = 5.0
    progress_poll: float = 15.0
    stray_grace: float = 60.0
    pod_grace: float = 5.0
    most_open_flows: int = 200

    def eased(self, at_work: int) -> Rules:
        """With many flows `at_work`, each is looked at without cause less often.

        Deadlines stay, and what happens is looked at at once.
        """
        return replace(self, progress_poll=max(self.progress_poll, at_work / LOOKS_PER_SECOND))


@dataclass(frozen=True)
class Observed:
    """Everything about one flow at the moment `now` of the database's clock.

    `resource` None means "not seen"; only with `resource_gone` a GET by name has said 404 or
    another uid. `missing` None means that references were not looked at. `guard` is the policy of
    answers, `crew_guard` that of crew pods; each None where it does not matter now or was not
    looked at. `job` is the current attempt's; `job_presence` tells whether it was looked for by
    name. `jobs` are all Jobs of the flow that still run. `launch_problem` is why the last try to
    create the Job was refused, `pod_refusal` why its Job could not make a pod, looked for when none
    has come in time. `seen_at` is this process's monotonic clock when `now` was asked for: timers
    count from it.
    """

    now: datetime
    rules: Rules = Rules()
    resource: ResourceView | None = None
    resource_gone: bool = False
    flow: FlowSnapshot | None = None
    job: JobView | None = None
    job_presence: Presence = Presence.UNKNOWN
    pod: PodView | None = None
    jobs: tuple[JobView, ...] = ()
    capacity: Capacity | None = None
    missing: tuple[str, ...] | None = None
    guard: Guard | None = None
    launch_problem: str = ""
    pod_refusal: str = ""
    crew_guard: Guard | None = None
    seen_at: float = 0.0
