"""Decisions at the approval gate.

An answer comes before a deadline: whoever answered in time must not be overtaken by the clock.
An answer counts only while the admission policy is in force, because without it nobody has
checked who wrote it; one that was written while the policy was missing is refused for good (the
question is asked again under another id), so that restoring the policy cannot launder it.
"""

from __future__ import annotations

from datetime import timedelta

from discovery_core.actions import (
    Action,
    ApproveByPolicy,
    Decision,
    ExpireRequest,
    Note,
    RefuseAnswer,
    TakeAnswer,
)
from discovery_core.resource_gate import Approval
from discovery_core.snapshots import FlowSnapshot, RequestSnapshot
from discovery_core.states import WaitsFor

from .observed import Observed, Presence, Rules


def decide_awaiting_approval(observed: Observed, flow: FlowSnapshot) -> Decision:
    """AwaitingApproval: take the answer, say why not, or apply the deadline."""
    request = flow.request
    if request is None:
        # only a read between two transactions can see this
        return Decision(requeue_at=observed.now + timedelta(seconds=1.0))
    answer = _answer_action(observed, flow, request)
    if answer is not None:
        return Decision((answer,))
    if _answer_of(observed) is not None and _undecided_guard(observed, request):
        # an answer is there and cannot be judged now: the clock must not overtake it
        later = observed.now + timedelta(seconds=observed.rules.slot_poll)
        return Decision(requeue_at=later, waits_for=WaitsFor.TIMER)
    if approves_itself(observed.rules, request):
        return Decision((ApproveByPolicy(request.request_id),))
    if request.expires_at > observed.now:
        return Decision(requeue_at=request.expires_at, waits_for=WaitsFor.APPROVAL_DEADLINE)
    return _expired(observed, request)


def approves_itself(rules: Rules, request: RequestSnapshot) -> bool:
    """Whether the frozen policy approves the proposal without a person."""
    policy = request.policy
    return (
        rules.allow_automatic_approval
        and policy.mode == "AutoApprove"
        and policy.min_confidence is not None
        and request.lowest_confidence >= policy.min_confidence
        and not request.required_unmapped
    )


def why_a_person_is_asked(rules: Rules, request: RequestSnapshot) -> str:
    """Why a policy that could have approved did not; empty where it was to ask anyway."""
    policy = request.policy
    if policy.mode != "AutoApprove" or approves_itself(rules, request):
        return ""
    if not rules.allow_automatic_approval:
        return "approval by policy is switched off in this installation"
    if request.required_unmapped:
        return "no column is mapped to " + ", ".join(request.required_unmapped)
    return (
        f"the least certain mapping has confidence {request.lowest_confidence:.2f}, and "
        f"approvalPolicy.minConfidence is {policy.min_confidence:g}"
    )


def may_expire(rules: Rules, request: RequestSnapshot) -> bool:
    """Whether the frozen policy may be applied: approving by the clock needs the installation."""
    return request.policy.on_timeout != "Approve" or rules.allow_automatic_approval


def _answer_of(observed: Observed) -> Approval | None:
    resource = observed.resource
    if resource is None or resource.spec is None:
        return None
    return resource.spec.approval


def _matches(answer: Approval, request: RequestSnapshot) -> bool:
    return (
        answer.request_id == request.request_id
        and answer.artefact_digest == request.artefact_digest
    )


def _undecided_guard(observed: Observed, request: RequestSnapshot) -> bool:
    answer = _answer_of(observed)
    if answer is None or not _matches(answer, request):
        return False
    return observed.guard is None or observed.guard.presence is Presence.UNKNOWN


def _answer_action(
    observed: Observed, flow: FlowSnapshot, request: RequestSnapshot
) -> Action | None:
    answer = _answer_of(observed)
    if answer is None or answer.request_id in flow.answered_requests:
        return None
    if not _matches(answer, request):
        return _note(flow, _mismatch(answer, request))
    guard = observed.guard
    if guard is None:
        return None
    if guard.presence is Presence.PRESENT:
        return TakeAnswer(answer)
    if guard.presence is Presence.ABSENT:
        problem = (
            f"the admission policy {guard.name} or its binding is missing, so nobody has "
            "checked who wrote the answer; once it is installed again, answer the new request"
        )
        return RefuseAnswer(answer.request_id, (problem,), answer.decided_by)
    return _note(
        flow,
        f"the answer is not taken yet: the operator may not read the admission policy {guard.name}",
    )


def _mismatch(answer: Approval, request: RequestSnapshot) -> str:
    if answer.request_id != request.request_id:
        return (
            f"the answer was not taken: it is for request {answer.request_id}, "
            f"open is {request.request_id}"
        )
    return (
        "the answer was not taken: it is about another version of the mappings "
        f"({answer.artefact_digest}); look at them again and answer with "
        f"{request.artefact_digest}"
    )


def _note(flow: FlowSnapshot, message: str) -> Note | None:
    return None if flow.answer_note == message else Note(message)


def _expired(observed: Observed, request: RequestSnapshot) -> Decision:
    if not may_expire(observed.rules, request):
        # the status says so; only a person can go on from here
        later = observed.now + timedelta(seconds=60)
        return Decision(requeue_at=later, waits_for=WaitsFor.PERSON)
    return Decision((ExpireRequest(request.request_id),))
