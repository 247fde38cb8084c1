"""Names and labels of what the operator creates.

A Job's name follows from its attempt alone, so that a second POST of the same attempt meets
`AlreadyExists` instead of making a second Job. The name is for people too; the labels carry the
full values.
"""

from __future__ import annotations

import hashlib
from uuid import UUID

from discovery_core.phases import Phase

MANAGED_BY = "app.kubernetes.io/managed-by"
COMPONENT = "app.kubernetes.io/component"
PRODUCT = "discoveryflow"
FLOW_UID_LABEL = "discoveryflow.dev/flow-uid"
FLOW_LABEL = "discoveryflow.dev/flow"
PHASE_LABEL = "discoveryflow.dev/phase"
ROUND_LABEL = "discoveryflow.dev/round"
ATTEMPT_LABEL = "discoveryflow.dev/attempt"
SELECTOR = f"{MANAGED_BY}={PRODUCT}"

CONTAINER = "crew"

_LABEL_LIMIT = 63
_FLOW_IN_NAME = 24


def job_name(flow_name: str, flow_uid: UUID, *, round: int, phase: Phase, attempt: int) -> str:  # noqa: A002
    """The name of an attempt's Job: at most 63 characters, a DNS label.

    63 and not 253, because the Job controller puts the name into a label of the pod.
    """
    key = f"{flow_uid}/{round}/{phase}/{attempt}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:10]
    short = flow_name.replace(".", "-")[:_FLOW_IN_NAME].strip("-") or "flow"
    return f"{short}-{phase.replace('_', '-')}-{attempt}-{digest}"


def label_value(text: str) -> str:
    """`text` cut to what a label may hold (63 characters, an alphanumeric at the end)."""
    return text[:_LABEL_LIMIT].strip("-_.")


def attempt_labels(
    flow_name: str,
    flow_uid: UUID,
    *,
    round: int,  # noqa: A002 - the field's own word
    phase: Phase,
    attempt: int,
) -> dict[str, str]:
    """Labels of an attempt's Job and pod."""
    return {
        MANAGED_BY: PRODUCT,
        COMPONENT: CONTAINER,
        FLOW_UID_LABEL: str(flow_uid),
        FLOW_LABEL: label_value(flow_name),
        PHASE_LABEL: str(phase),
        ROUND_LABEL: str(round),
        ATTEMPT_LABEL: str(attempt),
    }
