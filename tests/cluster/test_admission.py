"""The chart's admission policy, tried by real users; and each of its rules, taken away.

Users are ServiceAccounts with tokens and the chart's own roles. The refused attempts are made a
second time, by impersonation, under a policy that lacks just the rule in question, and then have
to succeed: so no rule is superfluous and no attempt is refused for another reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.admission_cases import (
    ACCOUNTS,
    ACTORS,
    ALLOWED,
    DIGEST,
    ENDPOINTS,
    FLOWS,
    OWN_ROLES,
    PLAIN,
    READABLE,
    REFUSED,
    REQUEST,
    Attempt,
    answer,
    put,
)
from tests.cluster.kube import Kubectl, Outcome, eventually
from tests.cluster.sandbox import Sandbox

# one stage for all of them, in one process
pytestmark = pytest.mark.xdist_group("admission")

RULES = list(dict.fromkeys(attempt.rule for attempt in REFUSED))


@dataclass
class Stage:
    """Namespaces under the policy and its variants, and the actors in them."""

    sandbox: Sandbox
    folder: Path
    tokens: dict[tuple[str, str], Kubectl]

    def namespace(self, name: str) -> Kubectl:
        return self.sandbox.kubectl.within(f"{self.sandbox.prefix}-{name}")

    def user_name(self, namespace: str, actor: str) -> str:
        return f"system:serviceaccount:{self.sandbox.prefix}-{namespace}:{actor}"

    def logged_in(self, namespace: str, actor: str) -> Kubectl:
        """`actor` with a token of its own."""
        key = (namespace, actor)
        if key not in self.tokens:
            inside = self.namespace(namespace)
            token = inside("create", "token", actor, "--duration=1h").strip()
            self.tokens[key] = inside.with_token(token, self.folder)
        return self.tokens[key]

    def make(self, attempt: Attempt, kubectl: Kubectl, user: str, *, dry_run: bool) -> Outcome:
        """What the API server answers to the attempt."""
        if attempt.spec is not None:
            flow = self.sandbox.flow("new", attempt.for_user(attempt.spec, user))
            return kubectl.try_create(flow, dry_run=dry_run)
        patch = attempt.for_user(attempt.patch, user)
        return kubectl.try_patch(self.sandbox.resource, attempt.flow, patch, dry_run=dry_run)

    def attempt(self, attempt: Attempt) -> Outcome:
        """The attempt by a logged-in user, without consequences."""
        kubectl = self.logged_in(attempt.policy, attempt.actor)
        user = self.user_name(attempt.policy, attempt.actor)
        return self.make(attempt, kubectl, user, dry_run=True)

    def attempt_as(self, attempt: Attempt, namespace: str) -> Outcome:
        """The attempt by impersonation in another namespace."""
        user = self.user_name(namespace, attempt.actor)
        kubectl = self.namespace(namespace).acting_as(user)
        return self.make(attempt, kubectl, user, dry_run=True)


def variant(rule: str) -> str:
    """Name of the policy without `rule`."""
    return f"without-{RULES.index(rule)}"


def _grants(sandbox: Sandbox, namespace: str) -> list[dict[str, Any]]:
    """ServiceAccounts of the actors, and their roles, in one namespace."""
    rbac = "rbac.authorization.k8s.io"
    inside = {"namespace": namespace}
    manifests: list[dict[str, Any]] = [
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "Role",
            "metadata": {"name": role, **inside},
            "rules": [
                {"apiGroups": [""], "resources": [kind], "verbs": [verb]}
                | ({"resourceNames": list(READABLE)} if by_name else {})
                for kind, verb, by_name in rules
            ],
        }
        for role, rules in OWN_ROLES.items()
    ]
    for actor, roles in ACTORS.items():
        account = {"name": actor, **inside}
        manifests.append({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
        for role in roles:
            own = role in OWN_ROLES
            reference = {
                "apiGroup": rbac,
                "kind": "Role" if own else "ClusterRole",
                "name": role if own else f"{sandbox.prefix}-{role}",
            }
            manifests.append(
                {
                    "apiVersion": f"{rbac}/v1",
                    "kind": "RoleBinding",
                    "metadata": {"name": f"{actor}-{role}", **inside},
                    "roleRef": reference,
                    "subjects": [{"kind": "ServiceAccount", **account}],
                }
            )
    return manifests


def _in(spec: dict[str, Any], namespace: str) -> dict[str, Any]:
    """The spec with the namespace's own user names."""
    filled: dict[str, Any] = json.loads(json.dumps(spec).replace("{namespace}", namespace))
    return filled


@pytest.fixture(scope="module")
def stage(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    names = ["full", "automatic", "people", *(variant(rule) for rule in RULES)]
    policies = sandbox.policy("full", ENDPOINTS, ACCOUNTS)
    policies += sandbox.policy("automatic", ENDPOINTS, ACCOUNTS, "approval.allowAutomatic=true")
    policies += sandbox.policy("people", ENDPOINTS)
    for rule in RULES:
        policies += sandbox.policy(variant(rule), ENDPOINTS, ACCOUNTS, without=rule)
    namespaces = [sandbox.namespace(name, policy=name) for name in names]
    kubectl = sandbox.kubectl
    kubectl.apply([*sandbox.people_roles(), *namespaces])
    flows = []
    grants = []
    for manifest in namespaces:
        inside = manifest["metadata"]["name"]
        grants += _grants(sandbox, inside)
        flows += [
            sandbox.flow(name, _in(spec, inside), inside) for name, (spec, _) in FLOWS.items()
        ]
    kubectl.apply(grants)
    kubectl.apply(flows)
    request = {
        "requestId": REQUEST,
        "artefactDigest": DIGEST,
        "mappings": 3,
        "expiresAt": "2030-01-01T00:00:00Z",
    }
    patch = json.dumps([put("/status", {"approvalRequest": request})])
    stage = Stage(sandbox, tmp_path_factory.mktemp("logins"), {})
    for name in names:
        for flow in (flow for flow, (_, asks) in FLOWS.items() if asks):
            stage.namespace(name)(
                "patch", sandbox.resource, flow, "--subresource=status", "--type=json", "-p", patch
            )
    kubectl.apply(policies)
    for name in names:
        _await_policy(stage, name)
    yield stage
    kubectl("delete", "namespaces", *(f"{sandbox.prefix}-{name}" for name in names), "--wait=false")


def _await_policy(stage: Stage, name: str) -> None:
    """Waits until the namespace's policy refuses something that it keeps refusing."""
    probe = next(
        attempt for attempt in REFUSED if attempt.policy == "full" and variant(attempt.rule) != name
    )
    eventually(
        lambda: not stage.attempt_as(probe, name).ok, seconds=30, what=f"policy {name} in force"
    )


def test_every_rule_of_the_policy_is_tried(sandbox: Sandbox) -> None:
    policy, _ = sandbox.policy("listed")
    assert [rule["message"] for rule in policy["spec"]["validations"]] == RULES
    assert policy["spec"]["failurePolicy"] == "Fail"


@pytest.mark.parametrize("attempt", REFUSED, ids=lambda attempt: attempt.name)
def test_refused_and_told_why(attempt: Attempt, stage: Stage) -> None:
    outcome = stage.attempt(attempt)
    assert not outcome.ok
    assert f"ValidatingAdmissionPolicy '{stage.sandbox.prefix}-" in outcome.stderr
    user = stage.user_name(attempt.policy, attempt.actor)
    for part in attempt.says:
        assert part.replace("{me}", user) in outcome.stderr


@pytest.mark.parametrize(
    "attempt",
    [attempt for attempt in REFUSED if attempt.policy == "full"],
    ids=lambda attempt: attempt.name,
)
def test_only_its_rule_stands_in_the_way(attempt: Attempt, stage: Stage) -> None:
    outcome = stage.attempt_as(attempt, variant(attempt.rule))
    assert outcome.ok, outcome.stderr


@pytest.mark.parametrize("attempt", ALLOWED, ids=lambda attempt: attempt.name)
def test_allowed(attempt: Attempt, stage: Stage) -> None:
    outcome = stage.attempt(attempt)
    assert outcome.ok, outcome.stderr


def test_the_policy_evaluates_without_type_warnings(stage: Stage) -> None:
    def checked() -> dict[str, Any]:
        policy = stage.sandbox.kubectl.json(
            "get", "validatingadmissionpolicies", f"{stage.sandbox.prefix}-full"
        )
        status: dict[str, Any] = policy.get("status", {})
        return status if "typeChecking" in status else {}

    status = eventually(checked, seconds=20, what="type checking of the policy")
    assert status["typeChecking"] == {}


def test_an_approver_cannot_change_the_source(stage: Stage) -> None:
    ann = stage.logged_in("full", "ann")
    change = put("/spec/source/configMap/name", "fields")
    outcome = ann.try_patch(stage.sandbox.resource, "asked", [change], dry_run=True)
    assert "source cannot be changed" in outcome.stderr


def test_an_approver_holds_no_other_verb(stage: Stage) -> None:
    ann = stage.logged_in("full", "ann")
    for verb in ("create", "update", "delete"):
        answer_ = ann.try_("auth", "can-i", verb, stage.sandbox.resource)
        assert answer_.stdout.strip() == "no"
    assert ann.try_("auth", "can-i", "approve", stage.sandbox.resource).stdout.strip() == "yes"


def test_an_editor_cannot_ask_in_the_operators_place(stage: Stage) -> None:
    boss = stage.logged_in("full", "boss")
    outcome = boss.try_(
        "patch", stage.sandbox.resource, "quiet", "--subresource=status", "--type=merge",
        "-p", '{"status": {"state": "Succeeded"}}',
    )  # fmt: skip
    assert "forbidden" in outcome.stderr.lower()


def test_answering_for_real_and_once(stage: Stage) -> None:
    sandbox = stage.sandbox
    ed, ann = stage.logged_in("full", "ed"), stage.logged_in("full", "ann")
    assert ed.try_create(sandbox.flow("real", PLAIN)).ok
    request = {"requestId": REQUEST, "artefactDigest": DIGEST, "mappings": 1}
    request["expiresAt"] = "2030-01-01T00:00:00Z"
    stage.namespace("full")(
        "patch", sandbox.resource, "real", "--subresource=status", "--type=json",
        "-p", json.dumps([put("/status", {"approvalRequest": request})]),
    )  # fmt: skip
    given = answer(decidedBy=stage.user_name("full", "ann"))
    outcome = ann.try_patch(sandbox.resource, "real", [given])
    assert outcome.ok, outcome.stderr
    stored = ann.json("get", sandbox.resource, "real")["spec"]["approval"]
    assert stored == given["value"] | {"reason": ""}

    boss = stage.logged_in("full", "boss")
    other = answer(decidedBy=stage.user_name("full", "boss"), decision="Reject")
    outcome = boss.try_patch(sandbox.resource, "real", [other])
    assert "has been answered already" in outcome.stderr
    removal = ann.try_patch(sandbox.resource, "real", [{"op": "remove", "path": "/spec/approval"}])
    assert removal.ok, removal.stderr


def test_the_garbage_collector_still_patches_metadata(stage: Stage) -> None:
    collector = stage.namespace("full").acting_as(
        "system:serviceaccount:kube-system:generic-garbage-collector"
    )
    change = put("/metadata/labels", {"touched": "yes"})
    outcome = collector.try_patch(stage.sandbox.resource, "with-hidden-secret", [change])
    assert outcome.ok, outcome.stderr
