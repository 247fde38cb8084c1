"""Nobody is taken for a crew: the rules about tokens, Jobs, pods and connections, tried by people.

Each refused attempt is made a second time under a policy that lacks just the rule in question, and
then gets past it: no rule is superfluous, and none of the attempts is refused for another reason.
The rules are tried on a copy with another audience, then as installed, against a crew at work.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from discovery_core.phases import Phase
from discovery_core.resource import DiscoveryFlowSpec
from discovery_core.wire.protocol import CREW_ACCOUNT, TOKEN_AUDIENCE
from discovery_operator.manifests.job import AttemptSpec, JobSettings, build_job
from discovery_operator.manifests.likeness import difference
from discovery_operator.manifests.names import job_name
from discovery_operator.observe import GUARD_REMEMBERED

from tests.cluster.kube import Kubectl, Outcome, eventually
from tests.cluster.people import Person
from tests.cluster.product import Flow, Product
from tests.cluster.sandbox import Sandbox
from tests.cluster.test_api import crew_pod
from tests.unit.operator.test_manifests import CASES as JOBS_MADE
from tests.unit.operator.test_manifests import SETTINGS

pytestmark = pytest.mark.xdist_group("crew-identity")

TEMPLATE = "admission-crews.yaml"
TOKEN = "token of a crew for somebody else"
JOB = "Job of a crew by somebody else"
POD = "pod of a crew by somebody else"
REACHING = "reaching into the pod of a crew"
RULES = (TOKEN, JOB, POD, REACHING)
ADMIN = "ada"
REPLICA_SETS = "system:serviceaccount:kube-system:replicaset-controller"
JOBS = "system:serviceaccount:kube-system:job-controller"
DENIED = "ValidatingAdmissionPolicy"


@dataclass(frozen=True)
class Stage:
    """A namespace under all rules, one without each of them, and a namespace admin in all."""

    sandbox: Sandbox

    def within(self, rule: str | None) -> Kubectl:
        return self.sandbox.kubectl.within(self.name(rule))

    def name(self, rule: str | None) -> str:
        return f"{self.sandbox.prefix}-{policy_of(rule)}"

    def admin(self, rule: str | None) -> Kubectl:
        return self.within(rule).acting_as(f"system:serviceaccount:{self.name(rule)}:{ADMIN}")


def policy_of(rule: str | None) -> str:
    return "crews" if rule is None else f"crews-without-{RULES.index(rule)}"


def pod_spec(audience: str) -> dict[str, Any]:
    """A pod that is given a token for that audience, and never runs."""
    token = {"serviceAccountToken": {"audience": audience, "path": "token"}}
    return {
        "schedulingGates": [{"name": "test.discoveryflow.dev/never"}],
        "restartPolicy": "Never",
        "containers": [{"name": "x", "image": "localhost/none"}],
        "volumes": [{"name": "token", "projected": {"sources": [token]}}],
    }


def pod(audience: str, owner: dict[str, Any] | None = None, name: str = "mine") -> dict[str, Any]:
    references = [{"controller": True, "uid": "u", "name": "j", **owner}] if owner else []
    metadata = {"name": name, "ownerReferences": references}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod_spec(audience)}


def job(audience: str) -> dict[str, Any]:
    spec = pod_spec(audience)
    del spec["schedulingGates"]
    metadata = {"name": "mine"}
    template = {"spec": spec}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {"suspend": True, "template": template},
    }


OF_A_JOB = {"apiVersion": "batch/v1", "kind": "Job"}
OF_A_SET = {"apiVersion": "apps/v1", "kind": "ReplicaSet"}


@pytest.fixture(scope="module")
def stage(sandbox: Sandbox) -> Iterator[Stage]:
    made = Stage(sandbox)
    kubectl = sandbox.kubectl
    rules: list[str | None] = [None, *RULES]
    kubectl.apply([sandbox.namespace(policy_of(rule), policy_of(rule)) for rule in rules])
    for rule in rules:
        inside = made.within(rule)
        inside("create", "serviceaccount", ADMIN)
        inside(
            *("create", "role", "debugger", "--verb=get,patch"),
            "--resource=pods/ephemeralcontainers",
        )
        for role in ("--clusterrole=admin", "--role=debugger"):
            inside(
                *("create", "rolebinding", role.split("=")[1], role),
                f"--serviceaccount={inside.namespace}:{ADMIN}",
            )
        inside.apply(pod(sandbox.audience))
        kubectl.apply(sandbox.policy(policy_of(rule), without=rule, template=TEMPLATE))
    for rule in rules:
        other = JOB if rule != JOB else POD
        eventually(
            lambda rule=rule, other=other: DENIED in ATTEMPTS[other][0](made, rule).stderr,  # type: ignore[misc]
            seconds=60,
            what=f"the policy without {rule} is in force",
        )
    yield made
    kubectl("delete", "namespaces", *(made.name(rule) for rule in rules), "--wait=false")


def _token(stage: Stage, rule: str | None) -> Outcome:
    return stage.admin(rule).try_(
        "create", "token", "default", f"--audience={stage.sandbox.audience}"
    )


def _job(stage: Stage, rule: str | None) -> Outcome:
    return stage.admin(rule).try_create(job(stage.sandbox.audience), dry_run=True)


def _pod(stage: Stage, rule: str | None) -> Outcome:
    made = pod(stage.sandbox.audience, OF_A_JOB, "other")
    return stage.admin(rule).try_create(made, dry_run=True)


def _pod_of_a_set(stage: Stage, rule: str | None) -> Outcome:
    """Deployments and all else that makes pods: not one of their controllers may."""
    controller = stage.within(rule).acting_as(REPLICA_SETS, "system:masters")
    return controller.try_create(pod(stage.sandbox.audience, OF_A_SET, "other"), dry_run=True)


def _exec(stage: Stage, rule: str | None) -> Outcome:
    """By the API's own path, since kubectl looks for the pod first."""
    name = f"servers-{stage.sandbox.prefix}-1-0123456789-abcde"
    path = f"/api/v1/namespaces/{stage.name(rule)}/pods/{name}/exec?command=id&stdout=true"
    return stage.admin(rule).try_("create", "--raw", path, "-f", "-", stdin="")


def _attach(stage: Stage, rule: str | None) -> Outcome:
    name = f"servers-{stage.sandbox.prefix}-12-012345678abcde"
    path = f"/api/v1/namespaces/{stage.name(rule)}/pods/{name}/attach?stdout=true"
    return stage.admin(rule).try_("create", "--raw", path, "-f", "-", stdin="")


def _port_forward(stage: Stage, rule: str | None) -> Outcome:
    name = f"servers-{stage.sandbox.prefix}-1-0123456789-abcde"
    path = f"/api/v1/namespaces/{stage.name(rule)}/pods/{name}/portforward?ports=80"
    return stage.admin(rule).try_("create", "--raw", path, "-f", "-", stdin="")


def _ephemeral(stage: Stage, rule: str | None) -> Outcome:
    added = {"name": "debug", "image": "localhost/none"}
    patch = json.dumps({"spec": {"ephemeralContainers": [added]}})
    return stage.admin(rule).try_(
        *("patch", "pod", "mine", "--subresource=ephemeralcontainers", "--dry-run=server"),
        *("--type=strategic", "-p", patch),
    )


def _image(stage: Stage, rule: str | None) -> Outcome:
    return stage.admin(rule).try_patch(
        "pod",
        "mine",
        [{"op": "replace", "path": "/spec/containers/0/image", "value": "localhost/other"}],
        dry_run=True,
    )


Attempt = Callable[[Stage, str | None], Outcome]
ATTEMPTS: dict[str, tuple[Attempt, ...]] = {
    TOKEN: (_token,),
    JOB: (_job,),
    POD: (_pod, _pod_of_a_set),
    REACHING: (_exec, _attach, _port_forward, _ephemeral, _image),
}
EACH = [
    pytest.param(rule, attempt, id=attempt.__name__.strip("_").replace("_", "-"))
    for rule, attempts in ATTEMPTS.items()
    for attempt in attempts
]


def test_s01_every_rule_is_tried(sandbox: Sandbox) -> None:
    policy, _ = sandbox.policy("listed", template=TEMPLATE)
    assert tuple(rule["message"] for rule in policy["spec"]["validations"]) == RULES
    assert policy["spec"]["failurePolicy"] == "Fail"


@pytest.mark.parametrize(("rule", "attempt"), EACH)
def test_s01_a_namespace_admin_is_not_taken_for_a_crew(
    rule: str, attempt: Attempt, stage: Stage
) -> None:
    outcome = attempt(stage, None)
    assert not outcome.ok
    assert f"{DENIED} '{stage.sandbox.prefix}-crews'" in outcome.stderr, outcome.stderr


@pytest.mark.parametrize(("rule", "attempt"), EACH)
def test_s01_only_its_rule_stands_in_the_way(rule: str, attempt: Attempt, stage: Stage) -> None:
    outcome = attempt(stage, rule)
    assert DENIED not in outcome.stderr
    missing = "not found" in outcome.stderr or "NotFound" in outcome.stderr
    assert outcome.ok or (rule == REACHING and missing), outcome.stderr


def test_s01_the_policy_evaluates_without_type_warnings(stage: Stage) -> None:
    name = f"{stage.sandbox.prefix}-crews"

    def checked() -> dict[str, Any]:
        found = stage.sandbox.kubectl.json("get", "validatingadmissionpolicies", name)
        status: dict[str, Any] = found.get("status", {})
        return status if "typeChecking" in status else {}

    assert eventually(checked, seconds=20, what="type checking")["typeChecking"] == {}


def test_s01_what_is_not_a_crews_is_left_alone(stage: Stage) -> None:
    """Other tokens, Jobs and pods of the same namespace; and the controller that makes crews."""
    admin, audience = stage.admin(None), "somebody-else"
    assert admin.try_("create", "token", "default").ok
    assert admin.try_("create", "token", "default", f"--audience={audience}").ok
    assert admin.try_create(job(audience), dry_run=True).ok
    assert admin.try_create(pod(audience, name="other"), dry_run=True).ok
    empty = pod(audience, name="other")
    empty["spec"]["volumes"] = [{"name": "token", "projected": {}}]
    assert admin.try_create(empty, dry_run=True).ok
    plain = pod(audience, name="other")
    del plain["spec"]["volumes"]
    assert admin.try_create(plain, dry_run=True).ok
    controller = stage.within(None).acting_as(JOBS, "system:masters")
    made = controller.try_create(pod(stage.sandbox.audience, OF_A_JOB, "crew"), dry_run=True)
    assert made.ok, made.stderr
    operator = f"system:serviceaccount:default:{stage.sandbox.prefix}-operator"
    started = stage.within(None).acting_as(operator, "system:masters")
    assert started.try_create(job(stage.sandbox.audience), dry_run=True).ok
    kubelet = stage.within(None).acting_as("kubelet", "system:nodes", "system:masters")
    assert kubelet.try_("create", "token", "default", f"--audience={stage.sandbox.audience}").ok


def test_s01_the_verb_debug_reaches_into_a_crews_pod(stage: Stage) -> None:
    inside = stage.within(None)
    inside("create", "serviceaccount", "dee")
    inside(
        *("create", "role", "debug", "--verb=debug", f"--resource={stage.sandbox.resource}"),
    )
    for kind, role in (("role", "debug"), ("clusterrole", "edit")):
        inside(
            *("create", "rolebinding", f"dee-{role}", f"--{kind}={role}"),
            f"--serviceaccount={inside.namespace}:dee",
        )
    dee = inside.acting_as(f"system:serviceaccount:{inside.namespace}:dee")
    changed = dee.try_patch(
        "pod",
        "mine",
        [{"op": "replace", "path": "/spec/containers/0/image", "value": "localhost/other"}],
        dry_run=True,
    )
    assert changed.ok, changed.stderr


def test_s01_a_crews_pod_is_labelled_and_let_go(stage: Stage) -> None:
    """What controllers do with any pod, such as taking the Job controller's finalizer off."""
    controller = stage.within(None).acting_as(JOBS, "system:masters")
    finalizer = "batch.kubernetes.io/job-tracking"
    for value in ([finalizer], []):
        patch = json.dumps({"metadata": {"finalizers": value, "labels": {"seen": "yes"}}})
        done = controller.try_("patch", "pod", "mine", "--type=merge", "-p", patch)
        assert done.ok, done.stderr


@pytest.mark.parametrize("name", JOBS_MADE)
def test_s01_the_api_server_keeps_a_job_as_it_was_made(name: str, namespace: Kubectl) -> None:
    """What it fills in is told from what somebody has changed."""
    ours = build_job(JOBS_MADE[name], SETTINGS)
    ours["metadata"]["namespace"] = namespace.namespace
    operator = "system:serviceaccount:discoveryflow:discoveryflow-operator"
    created = namespace.acting_as(operator, "system:masters")(
        "create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(ours)
    )
    assert difference(ours, json.loads(created)) == ""


@pytest.mark.alone
def test_s01_no_job_starts_while_the_rules_are_missing(flow: Flow, kubectl: Kubectl) -> None:
    """The binding is taken away, and comes back: the flow says what it waits for, and goes on."""
    kind, name = "validatingadmissionpolicybinding", "discoveryflow-crews"
    binding = kubectl.json("get", kind, name)
    for field in ("uid", "resourceVersion", "creationTimestamp", "managedFields"):
        binding["metadata"].pop(field, None)
    kubectl("delete", kind, name)
    try:
        # longer than the operator remembers that the rules were there
        time.sleep(2 * GUARD_REMEMBERED)
        flow.source()
        flow.create()

        def told() -> dict[str, Any]:
            conditions = flow.status().get("conditions") or []
            ready: dict[str, Any] = next((c for c in conditions if c["type"] == "Ready"), {})
            return ready if ready.get("reason") == "AdmissionPolicyMissing" else {}

        ready = eventually(told, seconds=30, what="the flow says what it waits for")
        assert "discoveryflow-crews" in ready["message"]
        assert flow.status()["state"] == "Queued"
        assert flow.kubectl.json("get", "jobs")["items"] == []
    finally:
        kubectl.apply(binding)
    flow.wait("AwaitingApproval")


@pytest.fixture
def flow(kubectl: Kubectl, namespace: Kubectl) -> Flow:
    return Flow(namespace, Product(kubectl))


ROLES = {
    "editor": ("edit",),
    "approver": ("view", "discoveryflow-approve"),
    "admin": ("admin", "discoveryflow-approve"),
}


def _looks_like(flow: Flow, phase: Phase, attempt: int) -> dict[str, Any]:
    """The Job that the operator would make, with a pod of the attacker's."""
    uid = UUID(flow.uid)
    spec = AttemptSpec(
        flow_uid=uid,
        flow_name=flow.name,
        namespace=str(flow.kubectl.namespace),
        spec=DiscoveryFlowSpec.model_validate(flow.get()["spec"]),
        round=1,
        phase=phase,
        attempt=attempt,
        source_pinned=True,
    )
    return build_job(spec, JobSettings(image="localhost/evil", execution_url="https://x:8443"))


@pytest.mark.parametrize("role", sorted(ROLES))
def test_s01_people_of_the_namespace_hand_in_nothing(
    role: str, flow: Flow, person: Callable[..., Person], namespace: Kubectl
) -> None:
    """A Job in the next attempt's place, a pod of one's own, a token, a shell in the crew's pod."""
    person("mallory", *ROLES[role])
    mallory = namespace.acting_as(f"system:serviceaccount:{namespace.namespace}:mallory")
    flow.source()
    flow.create()
    crew = crew_pod(flow)
    owner = copy.deepcopy(crew["metadata"]["ownerReferences"][0])
    early = _looks_like(flow, Phase.DATA_CLEANSING, 1)
    assert early["metadata"]["name"] == job_name(
        flow.name, UUID(flow.uid), round=1, phase=Phase.DATA_CLEANSING, attempt=1
    )
    own = pod(TOKEN_AUDIENCE, None, "own")
    own["metadata"]["ownerReferences"] = [owner]
    name = crew["metadata"]["name"]
    tries = {
        "early": mallory.try_create(early),
        "own": mallory.try_create(own),
        "token": mallory.try_(
            *("create", "token", CREW_ACCOUNT, f"--audience={TOKEN_AUDIENCE}"),
            *("--bound-object-kind=Pod", f"--bound-object-name={name}"),
        ),
        "exec": mallory.try_("exec", name, "--", "cat", "/var/run/discoveryflow/token"),
    }
    for what, outcome in tries.items():
        assert not outcome.ok, what
        if role != "approver":
            assert f"{DENIED} 'discoveryflow-crews'" in outcome.stderr, (what, outcome.stderr)
        else:
            assert "forbidden" in outcome.stderr.lower(), (what, outcome.stderr)
    status = flow.wait("AwaitingApproval")
    assert status["state"] == "AwaitingApproval"
    uid = flow.uid
    handed_in = flow.product.sql(
        "SELECT details ->> 'pod', details ->> 'node' FROM flow_events "
        f"WHERE flow_id = '{uid}' AND trigger IN ('PhaseSucceeded', 'ApprovalRequested') "
        "ORDER BY sequence"
    )
    assert len(handed_in) == 3
    assert handed_in[0][0] == name
    assert all(node for _, node in handed_in)
