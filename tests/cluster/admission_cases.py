"""What people try under the admission policy, as data: who, what, and what they are told.

Every refused attempt names the one validation that refuses it, so that a second test can take
that validation away and see the attempt succeed. `{me}` stands for the actor's user name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

Spec = dict[str, Any]
Operation = dict[str, Any]

# the tests' people are ServiceAccounts, which may decide only where the installation says so
ACCOUNTS = "approval.allowServiceAccounts=true"
ENDPOINTS = "llm.allowedEndpoints={https://api.openai.com/v1,https://llm.example.org/v1/}"

SOURCE: Spec = {"configMap": {"name": "servers", "key": "servers.csv"}}
VOLUME: Spec = {"persistentVolumeClaim": {"claimName": "exports", "path": "a.csv"}}
PLAIN: Spec = {"source": SOURCE}
WITH_HIDDEN_SECRET: Spec = {
    "source": SOURCE,
    "llm": {
        "provider": "openai",
        "model": "m",
        "apiKeySecret": {"name": "hidden", "key": "api-key"},
    },
}

# who holds which of the chart's roles, and of those in OWN_ROLES
ACTORS = {
    "ann": ("approve",),
    "ed": ("edit", "reader", "mounter"),
    "boss": ("edit", "approve", "reader"),
    "lou": ("edit", "reader"),
    "pia": ("edit", "reader", "builder"),
    "max": ("edit", "mounter"),
    "pur": ("edit", "purge", "reader"),
}
READABLE = ("servers", "exports", "fields", "llm")

# rules by role: resource, verbs, and whether just the objects in READABLE are meant
OWN_ROLES: dict[str, list[tuple[str, str, bool]]] = {
    "reader": [(kind, "get", True) for kind in ("configmaps", "secrets", "persistentvolumeclaims")],
    "mounter": [("persistentvolumeclaims", "mount", True)],
    "builder": [("pods", "create", False)],
}

# {namespace} stands for the namespace of the flow
ANN = "system:serviceaccount:{namespace}:ann"
BOSS = "system:serviceaccount:{namespace}:boss"
GROUP = "system:serviceaccounts:{namespace}"

REQUEST = "11111111-1111-4111-8111-111111111111"
OTHER_REQUEST = "22222222-2222-4222-8222-222222222222"
DIGEST = "sha256:" + "a" * 64


def answered(request: str) -> Spec:
    """A flow that ann has answered."""
    return {
        "source": SOURCE,
        "approval": {
            "requestId": request,
            "artefactDigest": DIGEST,
            "decision": "Approve",
            "decidedBy": ANN,
        },
    }


# flows that exist already, and whether they ask
FLOWS: dict[str, tuple[Spec, bool]] = {
    "asked": (PLAIN, True),
    "quiet": (PLAIN, False),
    "with-hidden-secret": (WITH_HIDDEN_SECRET, True),
    "limited": ({"source": SOURCE, "approvalPolicy": {"approvers": {"users": [ANN]}}}, True),
    "grouped": ({"source": SOURCE, "approvalPolicy": {"approvers": {"groups": [GROUP]}}}, True),
    "separate": (
        {"source": SOURCE, "requestedBy": BOSS, "approvalPolicy": {"separateRequester": True}},
        True,
    ),
    "unread": (answered(REQUEST), True),
    "read": (answered(OTHER_REQUEST), True),
    "kept": ({"source": SOURCE, "retention": "90d"}, False),
}


@dataclass(frozen=True)
class Attempt:
    """Something that `actor` tries: a JSON patch of `flow`, or the creation of `spec`."""

    name: str
    actor: str
    flow: str = ""
    patch: list[Operation] = field(default_factory=list)
    spec: Spec | None = None
    rule: str = ""
    says: tuple[str, ...] = ()
    policy: str = "full"

    def for_user(self, text: Any, user: str) -> Any:
        """`text` with the user's name in place of {me}."""
        return json.loads(json.dumps(text).replace("{me}", user))


def answer(**changes: Any) -> Operation:
    """An answer to the open request, as a JSON patch operation."""
    value = {
        "requestId": REQUEST,
        "artefactDigest": DIGEST,
        "decision": "Approve",
        "decidedBy": "{me}",
    }
    return {"op": "add", "path": "/spec/approval", "value": value | changes}


def put(path: str, value: Any) -> Operation:
    """Sets one field."""
    return {"op": "add", "path": path, "value": value}


def compatible(url: str, secret: str = "llm") -> Spec:
    """Judging by a model at `url`."""
    key = {"name": secret, "key": "api-key"}
    return {"provider": "openaiCompatible", "baseUrl": url, "model": "m", "apiKeySecret": key}


REMOVED: Operation = {"op": "remove", "path": "/spec/approval"}

REFUSED = [
    Attempt(
        "answer on creation",
        "boss",
        spec={"source": SOURCE, "approval": answer()["value"]},
        rule="no answer on creation",
        says=("leave out spec.approval", "status.approvalRequest"),
    ),
    Attempt(
        "answer before the question",
        "ann",
        flow="quiet",
        patch=[answer()],
        rule="no open request",
        says=("no open approval request", "kubectl wait --for=condition=AwaitingApproval"),
    ),
    Attempt(
        "stale digest",
        "ann",
        flow="asked",
        patch=[answer(artefactDigest="sha256:" + "b" * 64)],
        rule="answer to another request",
        says=("not about the open request", REQUEST, DIGEST),
    ),
    Attempt(
        "stale request",
        "ann",
        flow="asked",
        patch=[answer(requestId="22222222-2222-4222-8222-222222222222")],
        rule="answer to another request",
        says=("not about the open request", REQUEST, DIGEST),
    ),
    Attempt(
        "forged name",
        "ann",
        flow="asked",
        patch=[answer(decidedBy="the-director")],
        rule="answer in another's name",
        says=("decidedBy has to be your own user name: write decidedBy: {me}",),
    ),
    Attempt(
        "ServiceAccount that answers",
        "ann",
        flow="asked",
        patch=[answer()],
        rule="decision by a ServiceAccount",
        says=(
            "{me} is a ServiceAccount",
            "a person has to decide",
            "approval.allowServiceAccounts",
        ),
        policy="people",
    ),
    Attempt(
        "ServiceAccount that takes an answer back",
        "ann",
        flow="unread",
        patch=[REMOVED],
        rule="decision by a ServiceAccount",
        says=("{me} is a ServiceAccount",),
        policy="people",
    ),
    Attempt(
        "ServiceAccount that shortens the deadline",
        "boss",
        flow="asked",
        patch=[put("/spec/approvalPolicy/timeout", "1m")],
        rule="decision by a ServiceAccount",
        says=("{me} is a ServiceAccount",),
        policy="people",
    ),
    Attempt(
        "ServiceAccount that says how long data stays",
        "pur",
        spec={"source": SOURCE, "retention": "1h"},
        rule="decision by a ServiceAccount",
        says=("{me} is a ServiceAccount",),
        policy="people",
    ),
    Attempt(
        "editor who may not approve",
        "ed",
        flow="asked",
        patch=[answer()],
        rule="answer without the verb approve",
        says=("{me} may not answer approval requests", "-approve)"),
    ),
    Attempt(
        "editor who rejects",
        "ed",
        flow="asked",
        patch=[answer(decision="Reject")],
        rule="answer without the verb approve",
        says=("{me} may not answer approval requests",),
    ),
    Attempt(
        "editor who takes back an unread answer",
        "ed",
        flow="unread",
        patch=[REMOVED],
        rule="answer withdrawn by somebody else",
        says=("{me} may not take back the answer of", ":ann, which has not been read yet"),
    ),
    Attempt(
        "approver who is not named",
        "boss",
        flow="limited",
        patch=[answer()],
        rule="not among the approvers",
        says=("{me} is not among spec.approvalPolicy.approvers",),
    ),
    Attempt(
        "requester who answers",
        "boss",
        flow="separate",
        patch=[answer()],
        rule="answer by the requester",
        says=("{me} asked for this flow and may not answer it",),
    ),
    Attempt(
        "who names himself an approver",
        "boss",
        flow="limited",
        patch=[put("/spec/approvalPolicy/approvers/users", ["{me}"])],
        rule="approvers changed by somebody else",
        says=("{me} may not change who answers",),
    ),
    Attempt(
        "who removes the approvers",
        "boss",
        flow="limited",
        patch=[{"op": "remove", "path": "/spec/approvalPolicy/approvers"}],
        rule="approvers changed by somebody else",
        says=("{me} may not change who answers",),
    ),
    Attempt(
        "requester who ends the separation",
        "boss",
        flow="separate",
        patch=[put("/spec/approvalPolicy/separateRequester", False)],
        rule="approvers changed by somebody else",
        says=("{me} may not change who answers",),
    ),
    Attempt(
        "approver who asks again without the verb",
        "ed",
        flow="asked",
        patch=[answer(decision="AskAgain", hint="Name -> hostname")],
        rule="answer without the verb approve",
        says=("{me} may not answer approval requests",),
    ),
    Attempt(
        "approver who wants another round",
        "ann",
        flow="asked",
        patch=[put("/spec/rerun", {"id": "again", "fromPhase": "data_import"})],
        rule="change without the verb update",
        says=("this changes spec.rerun:",),
    ),
    Attempt(
        "approver who stops the flow",
        "ann",
        flow="asked",
        patch=[put("/spec/state", "Suspend")],
        rule="change without the verb update",
        says=("{me} may change nothing but spec.approval", "this changes spec.state:"),
    ),
    Attempt(
        "approver who adds a change to the answer",
        "ann",
        flow="asked",
        patch=[answer(), put("/spec/state", "Suspend")],
        rule="change without the verb update",
        says=("this changes spec.state:",),
    ),
    Attempt(
        "approver who labels",
        "ann",
        flow="asked",
        patch=[put("/metadata/labels", {"a": "b"})],
        rule="change without the verb update",
        says=("this changes metadata.labels:",),
    ),
    Attempt(
        "approver who adds a finalizer",
        "ann",
        flow="asked",
        patch=[put("/metadata/finalizers", ["example.org/stay"])],
        rule="change without the verb update",
        says=("this changes metadata.finalizers:",),
    ),
    Attempt(
        "automatic approval on creation",
        "boss",
        spec={"source": SOURCE, "approvalPolicy": {"onTimeout": "Approve"}},
        rule="automatic approval is off",
        says=("approval without a person is switched off", "approval.allowAutomatic"),
    ),
    Attempt(
        "approval by confidence on creation",
        "boss",
        spec={"source": SOURCE, "approvalPolicy": {"mode": "AutoApprove", "minConfidence": 0.9}},
        rule="automatic approval is off",
        says=("approval without a person is switched off", "approval.allowAutomatic"),
    ),
    Attempt(
        "automatic approval later",
        "boss",
        flow="asked",
        patch=[put("/spec/approvalPolicy/onTimeout", "Approve")],
        rule="automatic approval is off",
        says=("write approvalPolicy mode: Always and onTimeout: Reject or Hold",),
    ),
    Attempt(
        "editor who shortens the deadline",
        "ed",
        flow="asked",
        patch=[put("/spec/approvalPolicy/timeout", "1m")],
        rule="looser gate without the verb approve",
        says=("{me} may not loosen the gate", "need the verb approve"),
    ),
    Attempt(
        "editor who creates with automatic approval",
        "ed",
        spec={"source": SOURCE, "approvalPolicy": {"onTimeout": "Approve"}},
        rule="looser gate without the verb approve",
        says=("{me} may not loosen the gate",),
        policy="automatic",
    ),
    Attempt(
        "editor who lets confidence decide",
        "ed",
        flow="asked",
        patch=[put("/spec/approvalPolicy", {"mode": "AutoApprove", "minConfidence": 0.9})],
        rule="looser gate without the verb approve",
        says=("{me} may not loosen the gate",),
        policy="automatic",
    ),
    Attempt(
        "editor who turns automatic approval on",
        "ed",
        flow="asked",
        patch=[put("/spec/approvalPolicy/onTimeout", "Approve")],
        rule="looser gate without the verb approve",
        says=("{me} may not loosen the gate",),
        policy="automatic",
    ),
    Attempt(
        "editor who says how long data stays",
        "ed",
        spec={"source": SOURCE, "retention": "1h"},
        rule="retention without the verb purge",
        says=("{me} may not say how long data stays", "-purge)"),
    ),
    Attempt(
        "editor who shortens that time",
        "ed",
        flow="kept",
        patch=[put("/spec/retention", "1h")],
        rule="retention without the verb purge",
        says=("{me} may not say how long data stays",),
    ),
    Attempt(
        "editor who forgets that time",
        "ed",
        flow="kept",
        patch=[{"op": "remove", "path": "/spec/retention"}],
        rule="retention without the verb purge",
        says=("{me} may not say how long data stays",),
    ),
    Attempt(
        "hidden ConfigMap",
        "ed",
        spec={"source": {"configMap": {"name": "hidden", "key": "servers.csv"}}},
        rule="unreadable source ConfigMap",
        says=("{me} may not read ConfigMap hidden, which spec.source names",),
    ),
    Attempt(
        "volume whose claim may not be read",
        "max",
        spec={"source": VOLUME},
        rule="unreadable PersistentVolumeClaim",
        says=("{me} may not read PersistentVolumeClaim exports", "the verb get"),
    ),
    Attempt(
        "hidden volume of somebody who may create pods",
        "pia",
        spec={"source": {"persistentVolumeClaim": {"claimName": "hidden", "path": "a.csv"}}},
        rule="unreadable PersistentVolumeClaim",
        says=("{me} may not read PersistentVolumeClaim hidden",),
    ),
    Attempt(
        "volume whose claim alone may be read",
        "lou",
        spec={"source": VOLUME},
        rule="unreadable volume",
        says=("{me} may not read what is on PersistentVolumeClaim exports", "the verb mount"),
    ),
    Attempt(
        "hidden target schema",
        "ed",
        spec={"source": SOURCE, "targetSchema": {"configMap": {"name": "hidden", "key": "f"}}},
        rule="unreadable target schema",
        says=("{me} may not read ConfigMap hidden, which spec.targetSchema names",),
    ),
    Attempt(
        "hidden Secret",
        "ed",
        spec=WITH_HIDDEN_SECRET,
        rule="unreadable Secret",
        says=("{me} may not read Secret hidden, which spec.llm.apiKeySecret names",),
    ),
    Attempt(
        "another change beside a hidden Secret",
        "ed",
        flow="with-hidden-secret",
        patch=[put("/spec/phaseTimeout", "20m")],
        rule="unreadable Secret",
        says=("{me} may not read Secret hidden",),
    ),
    Attempt(
        "hidden Secret put in later",
        "ed",
        flow="asked",
        patch=[put("/spec/llm", compatible("https://llm.example.org/v1", secret="hidden"))],
        rule="unreadable Secret",
        says=("{me} may not read Secret hidden",),
    ),
    Attempt(
        "endpoint elsewhere",
        "ed",
        spec={"source": SOURCE, "llm": compatible("https://evil.example.net/v1")},
        rule="endpoint is not allowed",
        says=(
            "data may not be sent to https://evil.example.net/v1",
            "allows https://api.openai.com/v1, https://llm.example.org/v1 (Helm value",
        ),
    ),
    Attempt(
        "endpoint elsewhere later",
        "ed",
        flow="asked",
        patch=[put("/spec/llm", compatible("https://llm.example.org/v1/../v2"))],
        rule="endpoint is not allowed",
        says=("data may not be sent to https://llm.example.org/v1/../v2",),
    ),
    Attempt(
        "phase that may take longer than the installation allows",
        "ed",
        spec={"source": SOURCE, "phaseTimeout": "5h"},
        rule="phaseTimeout is too long",
        says=("spec.phaseTimeout is 5h", "at most 4h (Helm value crews.maxPhaseTimeout)"),
    ),
    Attempt(
        "requested in another's name",
        "ed",
        spec={"source": SOURCE, "requestedBy": "the-director"},
        rule="requested in another's name",
        says=("requestedBy has to be your own user name", "write requestedBy: {me}"),
    ),
]

ALLOWED = [
    Attempt("plain flow", "ed", spec=PLAIN),
    Attempt("flow in one's own name", "ed", spec={"source": SOURCE, "requestedBy": "{me}"}),
    Attempt(
        "readable objects and an allowed endpoint",
        "ed",
        spec={
            "source": VOLUME,
            "targetSchema": {"configMap": {"name": "fields", "key": "fields.csv"}},
            "llm": compatible("https://llm.example.org/v1"),
        },
    ),
    Attempt("volume of somebody who may create pods", "pia", spec={"source": VOLUME}),
    Attempt(
        "allowed endpoint with a slash",
        "ed",
        spec={"source": SOURCE, "llm": compatible("https://llm.example.org/v1/")},
    ),
    Attempt("approver approves", "ann", flow="asked", patch=[answer()]),
    Attempt("approver takes back an unread answer", "ann", flow="unread", patch=[REMOVED]),
    Attempt("editor tidies up an answer that was read", "ed", flow="read", patch=[REMOVED]),
    Attempt(
        "ServiceAccount that creates a flow and keeps it",
        "ed",
        spec=PLAIN,
        policy="people",
    ),
    Attempt(
        "ServiceAccount that stops a flow",
        "ed",
        flow="asked",
        patch=[put("/spec/state", "Suspend")],
        policy="people",
    ),
    Attempt(
        "who may purge says how long data stays",
        "pur",
        spec={"source": SOURCE, "retention": "90d"},
    ),
    Attempt(
        "editor changes something else of a flow that says so",
        "ed",
        flow="kept",
        patch=[put("/spec/retries/maxAttempts", 5)],
    ),
    Attempt("approver rejects", "ann", flow="asked", patch=[answer(decision="Reject")]),
    Attempt(
        "approver edits",
        "ann",
        flow="asked",
        patch=[answer(edits=[{"column": "a", "target": "b"}], reason="better")],
    ),
    Attempt(
        "approver who may not read the flow's Secret",
        "ann",
        flow="with-hidden-secret",
        patch=[answer()],
    ),
    Attempt("named approver answers", "ann", flow="limited", patch=[answer()]),
    Attempt("approver by group answers", "boss", flow="grouped", patch=[answer()]),
    Attempt("somebody else than the requester answers", "ann", flow="separate", patch=[answer()]),
    Attempt(
        "approver asks again",
        "ann",
        flow="asked",
        patch=[answer(decision="AskAgain", hint="Name -> hostname")],
    ),
    Attempt(
        "editor limits who may answer",
        "ed",
        flow="asked",
        patch=[put("/spec/approvalPolicy/approvers", {"users": ["the-director"]})],
    ),
    Attempt(
        "editor wants another round of a flow with a hidden Secret",
        "ed",
        flow="with-hidden-secret",
        patch=[put("/spec/rerun", {"id": "again", "fromPhase": "data_import"})],
    ),
    Attempt(
        "who may do both lets confidence decide",
        "boss",
        spec={"source": SOURCE, "approvalPolicy": {"mode": "AutoApprove", "minConfidence": 0.9}},
        policy="automatic",
    ),
    Attempt(
        "editor changes how it is worked",
        "ed",
        flow="asked",
        patch=[put("/spec/retries/maxAttempts", 5), put("/metadata/labels", {"a": "b"})],
    ),
    Attempt(
        "editor stops a flow with a hidden Secret",
        "ed",
        flow="with-hidden-secret",
        patch=[put("/spec/state", "Suspend")],
    ),
    Attempt(
        "editor lengthens the deadline",
        "ed",
        flow="asked",
        patch=[put("/spec/approvalPolicy/timeout", "96h")],
    ),
    Attempt(
        "editor turns to Hold",
        "ed",
        flow="asked",
        patch=[put("/spec/approvalPolicy/onTimeout", "Hold")],
    ),
    Attempt(
        "who may do both shortens the deadline",
        "boss",
        flow="asked",
        patch=[put("/spec/approvalPolicy/timeout", "1m")],
    ),
    Attempt(
        "who may do both creates with automatic approval",
        "boss",
        spec={"source": SOURCE, "approvalPolicy": {"onTimeout": "Approve"}},
        policy="automatic",
    ),
]
