"""Status is a pure function of the row, conditions are stable, and nothing older overwrites it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from discovery_core.resource import DiscoveryFlowStatus
from discovery_core.resource_gate import ApprovalPolicy
from discovery_core.states import CONDITION_TYPES, STATES, FlowState, RunState
from discovery_operator.observed import Observed
from discovery_operator.status import build_status, status_patch

from tests.unit.operator.builders import (
    DIGEST,
    REQUEST,
    at,
    flow,
    observed,
    pod,
    request,
    resource,
    run,
)

S = FlowState


def status_of(picture: Observed) -> dict[str, Any]:
    status = build_status(picture)
    assert status is not None
    return status


def written(picture: Observed) -> Observed:
    """The picture after its status has been written."""
    assert picture.resource is not None
    kept = {key: value for key, value in status_of(picture).items() if value is not None}
    return replace(picture, resource=replace(picture.resource, status=kept))


def conditions(picture: Observed) -> dict[str, dict[str, Any]]:
    return {item["type"]: item for item in status_of(picture)["conditions"]}


@pytest.mark.parametrize("state", list(S))
def test_conditions_follow_the_state_table(state: FlowState) -> None:
    found = conditions(observed(state))
    assert tuple(found) == CONDITION_TYPES
    assert {name: item["status"] for name, item in found.items()} == STATES[state].conditions
    assert {item["observedGeneration"] for item in found.values()} == {1}


@pytest.mark.parametrize("state", list(S))
def test_a_status_fits_the_resource_and_is_written_once(state: FlowState) -> None:
    picture = observed(state)
    DiscoveryFlowStatus.model_validate(status_of(picture))
    assert picture.resource is not None
    assert status_patch(picture.resource, status_of(picture)) is not None
    after = written(picture)
    assert after.resource is not None
    assert status_patch(after.resource, status_of(after)) is None


def test_the_time_of_a_condition_moves_only_with_its_status() -> None:
    first = written(observed(S.QUEUED, flow_state_since=at(-500)))
    assert first.resource is not None
    later = replace(
        observed(S.RUNNING, flow_state_since=at(0)),
        resource=first.resource,
    )
    same, changed = conditions(later)["Reconciling"], conditions(later)["Ready"]
    assert same["lastTransitionTime"] == "2026-11-23T11:51:40Z"
    assert changed["lastTransitionTime"] == "2026-11-23T11:51:40Z"
    gate = replace(observed(S.AWAITING_APPROVAL, flow_state_since=at(10)), resource=first.resource)
    assert conditions(gate)["Reconciling"]["lastTransitionTime"] == "2026-11-23T12:00:10Z"


def test_the_open_request_is_shown_and_removed() -> None:
    asked = observed(S.AWAITING_APPROVAL)
    assert status_of(asked)["approvalRequest"] == {
        "requestId": str(REQUEST),
        "artefactDigest": DIGEST,
        "mappings": 12,
        "expiresAt": "2026-11-23T13:00:00Z",
    }
    before = written(asked)
    after = replace(before, flow=flow(S.QUEUED, version=9))
    assert after.resource is not None
    patch = status_patch(after.resource, status_of(after))
    assert patch is not None
    assert patch["status"]["approvalRequest"] is None
    assert patch["metadata"] == {"resourceVersion": "100"}


def test_a_suspended_flow_shows_no_request_that_could_be_answered() -> None:
    suspended = observed(S.SUSPENDED, flow_request=request())
    assert status_of(suspended)["approvalRequest"] is None


def test_an_older_row_is_never_written_over_a_newer_status() -> None:
    newer = written(observed(S.RUNNING, flow_version=9))
    assert build_status(replace(newer, flow=flow(S.QUEUED, version=8))) is None


def test_a_spec_that_cannot_be_read_stalls_and_says_where() -> None:
    broken = resource(spec=None, spec_problem="spec.retries.maxAttempts: too large")
    found = conditions(observed(None, resource=broken))
    assert found["Stalled"]["status"] == "True"
    assert found["Stalled"]["reason"] == "InvalidSpec"
    assert "spec.retries.maxAttempts" in found["Stalled"]["message"]


MESSAGES: list[tuple[str, Observed, list[str]]] = [
    ("retry", observed(S.QUEUED, flow_not_before=at(5), flow_message="the LLM is away",
                       flow_run=run(state=RunState.FAILED)),
     ["attempt 1 failed: the LLM is away", "2026-11-23T12:00:05Z"]),
    ("slot", observed(S.QUEUED), ["Import waits for a free slot"]),
    ("progress", observed(S.RUNNING, flow_run=run(progress_done=5, progress_total=9,
                                                   progress_message="profiling")),
     ["Import, attempt 1", "profiling", "5 of 9 rows"]),
    ("image", observed(S.RUNNING, flow_run=run(state=RunState.LAUNCHED),
                       pod=pod(phase="Pending", waiting="ImagePullBackOff",
                               waiting_message="no such image")),
     ["crew image cannot be fetched", "no such image"]),
    ("node", observed(S.RUNNING, flow_run=run(state=RunState.LAUNCHED),
                      pod=pod(phase="Pending", unschedulable="0/1 nodes: Insufficient memory")),
     ["no node can run the pod", "Insufficient memory"]),
    ("quota", observed(S.RUNNING, flow_run=run(state=RunState.CREATED),
                       launch_problem="exceeded quota"), ["exceeded quota"]),
    ("gate", observed(S.AWAITING_APPROVAL, flow_answer_note="it was stale"),
     ["12 field mappings", "2026-11-23T13:00:00Z", "it was stale"]),
    ("hold", observed(S.AWAITING_APPROVAL,
                      flow_request=request(policy=ApprovalPolicy(on_timeout="Hold"))),
     ["without a time limit"]),
    ("missing", observed(S.WAITING, flow_message="missing: ConfigMap 'x'"), ["ConfigMap 'x'"]),
    ("failed", observed(S.FAILED, flow_message="it is empty"), ["Import failed: it is empty"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("picture", "parts"), [m[1:] for m in MESSAGES], ids=[m[0] for m in MESSAGES]
)
def test_the_message_says_what_goes_on(picture: Observed, parts: list[str]) -> None:
    message = status_of(picture)["message"]
    assert all(part in message for part in parts), message
    assert len(message) < 4096


def test_an_endless_message_is_cut() -> None:
    assert len(status_of(observed(S.FAILED, flow_message="x" * 9000))["message"]) <= 4000


def test_the_status_of_a_flow_without_data_keeps_its_figures() -> None:
    before = written(observed(S.FAILED, flow_records_imported=7, flow_assets=3))
    assert before.flow is not None
    gone = replace(
        before.flow,
        purged=True,
        run=None,
        records_imported=None,
        assets=None,
        message="the data of this flow was purged by ann",
    )
    status = status_of(replace(before, flow=gone))
    assert (status["recordsImported"], status["assets"]) == (7, 3)
    assert status["message"] == (
        "the data of this flow was purged by ann; a new round is not possible, create a new flow "
        "instead"
    )
