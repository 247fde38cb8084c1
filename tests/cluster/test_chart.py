"""What the chart renders is valid, restricted and least-privileged, in every scenario."""

from __future__ import annotations

import base64
import copy
import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.cluster.kube import Helm, Kubectl, eventually
from tests.cluster.sandbox import CHART

SCENARIOS = sorted((CHART / "ci").glob("*-values.yaml"))
EMBEDDED = CHART / "ci" / "embedded-values.yaml"
RELEASE = "dfchart"

Objects = list[dict[str, Any]]


def of_kind(objects: Objects, *kinds: str) -> Objects:
    return [manifest for manifest in objects if manifest["kind"] in kinds]


def named(objects: Objects, kind: str, name: str) -> dict[str, Any]:
    (found,) = [m for m in of_kind(objects, kind) if m["metadata"]["name"] == name]
    return found


def pods(objects: Objects) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name of the workload, and its pod template."""
    for manifest in of_kind(objects, "Deployment", "StatefulSet", "Job", "CronJob"):
        spec = manifest["spec"].get("jobTemplate", manifest)["spec"]
        yield manifest["metadata"]["name"], spec["template"]


def rendered(helm: Helm, path: Path, namespace: str = "default", *more: str) -> Objects:
    return helm.template(RELEASE, str(CHART), f"--namespace={namespace}", f"--values={path}", *more)


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.name)
def test_helm_lints_every_scenario(path: Path, helm: Helm) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), f"--values={path}")


def test_helm_lints_the_definition(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART.parent / "discoveryflow-crds"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.name)
def test_the_api_takes_every_object(path: Path, helm: Helm, namespace: Kubectl) -> None:
    objects = rendered(helm, path, str(namespace.namespace))
    assert len(objects) > 15
    answer = namespace.apply(objects, "--dry-run=server", "--validate=strict")
    assert answer.count("(server dry run)") == len(objects)


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.name)
def test_every_pod_is_restricted(path: Path, helm: Helm, namespace: Kubectl) -> None:
    space = str(namespace.namespace)
    namespace("label", "namespace", space, "pod-security.kubernetes.io/enforce=restricted")
    objects = rendered(helm, path, space)
    accounts = of_kind(objects, "ServiceAccount")
    namespace.apply(accounts)
    eventually(
        lambda: namespace.try_("get", "serviceaccount", "default").ok, seconds=20, what="account"
    )
    templates = list(pods(objects))
    assert len(templates) >= 4
    for name, template in templates:
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"try-{name}"[:60], "labels": template["metadata"]["labels"]},
            "spec": copy.deepcopy(template["spec"]),
        }
        # a StatefulSet adds the volume of its claim
        mounted = {m["name"] for c in pod["spec"]["containers"] for m in c["volumeMounts"]}
        known = {volume["name"] for volume in pod["spec"]["volumes"]}
        pod["spec"]["volumes"] += [{"name": n, "emptyDir": {}} for n in mounted - known]
        outcome = namespace.try_create(pod, dry_run=True)
        assert outcome.ok, outcome.stderr
        for container in pod["spec"]["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["resources"]["limits"]["memory"]
            assert container["resources"]["requests"]["cpu"]


def test_a_pod_that_is_not_restricted_would_be_noticed(helm: Helm, namespace: Kubectl) -> None:
    space = str(namespace.namespace)
    namespace("label", "namespace", space, "pod-security.kubernetes.io/enforce=restricted")
    eventually(
        lambda: namespace.try_("get", "serviceaccount", "default").ok, seconds=20, what="account"
    )
    _, template = next(pods(rendered(helm, EMBEDDED, space)))
    spec = copy.deepcopy(template["spec"])
    spec.pop("serviceAccountName", None)
    del spec["securityContext"]["seccompProfile"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "try"}, "spec": spec}
    assert "violates PodSecurity" in namespace.try_create(pod, dry_run=True).stderr


OPERATOR = {
    ("discoveryflow.dev", "discoveryflows"): {"get", "list", "watch"},
    ("discoveryflow.dev", "discoveryflows/status"): {"patch"},
    ("batch", "jobs"): {"get", "list", "watch", "create", "delete"},
    ("", "pods"): {"get", "list", "watch"},
    ("", "configmaps"): {"get"},
    ("", "persistentvolumeclaims"): {"get"},
    ("", "serviceaccounts"): {"create"},
    ("", "serviceaccounts:discoveryflow-crew"): {"get"},
    ("", "namespaces"): {"get", "list", "watch"},
    ("", "events"): {"list", "create", "patch"},
    **{
        ("admissionregistration.k8s.io", f"{kind}:P-{policy}"): {"get"}
        for kind in ("validatingadmissionpolicies", "validatingadmissionpolicybindings")
        for policy in ("approval", "crews")
    },
    ("apiextensions.k8s.io", "customresourcedefinitions"): {"get", "list", "watch"},
}
EXECUTION = {
    ("authentication.k8s.io", "tokenreviews"): {"create"},
    ("", "pods"): {"get"},
    ("batch", "jobs"): {"get"},
    ("", "namespaces"): {"get"},
}


def rights(role: dict[str, Any]) -> dict[tuple[str, str], set[str]]:
    """Verbs by group and resource; a rule for one object carries its name."""
    found: dict[tuple[str, str], set[str]] = {}
    for rule in role["rules"]:
        for name in rule.get("resourceNames", [None]):
            for resource in rule["resources"]:
                for group in rule["apiGroups"]:
                    key = (group, resource if name is None else f"{resource}:{name}")
                    found.setdefault(key, set()).update(rule["verbs"])
    return found


def test_each_component_holds_exactly_the_listed_rights(helm: Helm) -> None:
    objects = rendered(helm, EMBEDDED)
    prefix = f"{RELEASE}-discoveryflow"
    expected = {
        (group, resource.replace(":P-", f":{prefix}-")): verbs
        for (group, resource), verbs in OPERATOR.items()
    }
    assert rights(named(objects, "ClusterRole", f"{prefix}-operator")) == expected
    assert rights(named(objects, "ClusterRole", f"{prefix}-execution")) == EXECUTION
    bound = {
        (binding["roleRef"]["name"], subject["name"])
        for binding in of_kind(objects, "ClusterRoleBinding", "RoleBinding")
        for subject in binding["subjects"]
    }
    names = {f"{prefix}-operator", f"{prefix}-execution"}
    assert bound == {(name, name) for name in names}


def test_flows_may_be_deleted_only_where_retention_is_to_do_so(helm: Helm) -> None:
    name, flows = f"{RELEASE}-discoveryflow-operator", ("discoveryflow.dev", "discoveryflows")
    more = ("--set=retention.deleteResources=true", "--set=retention.finishedFlows=90d")
    deleting = rendered(helm, EMBEDDED, "default", *more)
    assert rights(named(deleting, "ClusterRole", name))[flows] == {
        "get", "list", "watch", "delete",
    }  # fmt: skip
    given = environment(deleting, "operator")
    assert given["DISCOVERY_RETENTION_DELETE_RESOURCES"] == "true"
    assert given["DISCOVERY_RETENTION_FINISHED_FLOWS"] == "90d"
    assert given["DISCOVERY_RETENTION_DELETED_NAMESPACES"] == "30d"


def test_who_needs_no_token_gets_none(helm: Helm) -> None:
    objects = rendered(helm, EMBEDDED)
    mounted = {
        template["metadata"]["labels"]["app.kubernetes.io/component"]: template["spec"].get(
            "automountServiceAccountToken", True
        )
        for _, template in pods(objects)
    }
    assert mounted == {
        "operator": True,
        "execution": True,
        "api": False,
        "migration": False,
        "postgresql": False,
    }
    accounts = [
        template["spec"].get("serviceAccountName", "default") for _, template in pods(objects)
    ]
    assert len(set(accounts)) == 4


def test_roles_for_people(helm: Helm) -> None:
    prefix = f"{RELEASE}-discoveryflow"
    objects = rendered(helm, EMBEDDED)
    flows = ("discoveryflow.dev", "discoveryflows")
    view, edit, approve = (
        named(objects, "ClusterRole", f"{prefix}-{name}") for name in ("view", "edit", "approve")
    )
    aggregate = "rbac.authorization.k8s.io/aggregate-to-"
    assert view["metadata"]["labels"][f"{aggregate}view"] == "true"
    assert edit["metadata"]["labels"][f"{aggregate}edit"] == "true"
    assert not [label for label in approve["metadata"]["labels"] if label.startswith(aggregate)]
    assert "approve" not in rights(edit)[flows]
    assert rights(approve)[flows] == {"get", "list", "watch", "patch", "approve"}
    purge = named(objects, "ClusterRole", f"{prefix}-purge")
    assert rights(purge) == {flows: {"get", "list", "watch", "purge"}}
    assert not [label for label in purge["metadata"]["labels"] if label.startswith(aggregate)]
    for role in (view, edit, approve):
        assert "patch" not in rights(role).get((flows[0], "discoveryflows/status"), set())
    closed = rendered(helm, CHART / "ci" / "closed-values.yaml")
    for role in of_kind(closed, "ClusterRole"):
        assert not [label for label in role["metadata"]["labels"] if label.startswith(aggregate)]


def test_network_policies_cover_every_pod(helm: Helm) -> None:
    objects = rendered(helm, EMBEDDED)
    policies = of_kind(objects, "NetworkPolicy")
    default = named(objects, "NetworkPolicy", f"{RELEASE}-discoveryflow-default")
    assert set(default["spec"]) == {"podSelector", "policyTypes"}
    for _, template in pods(objects):
        labels = template["metadata"]["labels"].items()
        assert default["spec"]["podSelector"]["matchLabels"].items() <= labels
        own = [p for p in policies if p["spec"]["podSelector"]["matchLabels"].items() <= labels]
        assert len(own) == 2
    execution = named(objects, "NetworkPolicy", f"{RELEASE}-discoveryflow-execution")
    (rule,) = execution["spec"]["ingress"]
    (peer,) = rule["from"]
    assert peer["podSelector"]["matchLabels"] == {
        "app.kubernetes.io/managed-by": "discoveryflow",
        "app.kubernetes.io/component": "crew",
    }
    assert rule["ports"] == [{"port": 8443, "protocol": "TCP"}]
    postgresql = named(objects, "NetworkPolicy", f"{RELEASE}-discoveryflow-postgresql")
    assert "egress" not in postgresql["spec"]
    assert of_kind(rendered(helm, CHART / "ci" / "closed-values.yaml"), "NetworkPolicy") == []


def environment(objects: Objects, component: str) -> dict[str, Any]:
    # the migration has two workloads of one kind of pod
    spec, *_ = [
        template["spec"]
        for _, template in pods(objects)
        if template["metadata"]["labels"]["app.kubernetes.io/component"] == component
    ]
    (container,) = spec["containers"]
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}


def test_each_component_has_its_own_database_role(helm: Helm) -> None:
    objects = rendered(helm, CHART / "ci" / "external-values.yaml")
    for component in ("operator", "execution", "api"):
        given = environment(objects, component)
        assert given["DISCOVERY_DATABASE_URL"] == (
            f"postgresql://discovery_{component}@db.example.org:6432/discoveryflow"
            "?sslmode=verify-full&sslrootcert=/etc/discoveryflow/database/ca.crt"
        )
        secret = {"secretKeyRef": {"name": "db-roles", "key": component}}
        assert given["DISCOVERY_DATABASE_PASSWORD"] == secret
        assert "db-owner" not in yaml.safe_dump(given)
    migration = environment(objects, "migration")
    assert migration["DISCOVERY_DATABASE_URL"].startswith("postgresql://discovery_admin@db.ex")
    owner = {"secretKeyRef": {"name": "db-owner", "key": "pw"}}
    assert migration["DISCOVERY_DATABASE_PASSWORD"] == owner
    assert of_kind(objects, "Secret") == []


def test_no_password_is_written_into_a_pod(helm: Helm) -> None:
    objects = rendered(helm, EMBEDDED)
    secret = named(objects, "Secret", f"{RELEASE}-discoveryflow-database")
    passwords = [base64.b64decode(value).decode() for value in secret["data"].values()]
    assert len(set(passwords)) == 4
    assert all(len(password) == 32 for password in passwords)
    workloads = yaml.safe_dump_all([template for _, template in pods(objects)])
    for password in [*passwords, *secret["data"].values()]:
        assert password not in workloads


def test_certificates_serve_their_names_and_are_signed(helm: Helm) -> None:
    objects = rendered(helm, EMBEDDED, "space", "--set=api.tls.hosts={discovery.example.org}")
    prefix = f"{RELEASE}-discoveryflow"
    ca = certificate(named(objects, "Secret", f"{prefix}-ca"))
    for component, more in (
        ("execution", []),
        ("api", ["discovery.example.org"]),
        ("postgresql", []),
    ):
        secret = named(objects, "Secret", f"{prefix}-{component}-tls")
        leaf = certificate(secret)
        leaf.verify_directly_issued_by(ca)
        assert decoded(secret, "ca.crt") == decoded(
            named(objects, "Secret", f"{prefix}-ca"), "tls.crt"
        )
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        wanted = [f"{prefix}-{component}.space.svc", f"{prefix}-{component}", "localhost", *more]
        assert set(wanted) <= set(names.get_values_for_type(x509.DNSName))
        assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("127.0.0.1")]
        key = load_pem_private_key(decoded(secret, "tls.key"), None)
        assert key.public_key() == leaf.public_key()
    basic = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.value.ca
    mounted = yaml.safe_dump_all([template for _, template in pods(objects)])
    assert f"{prefix}-ca" not in mounted


def decoded(secret: dict[str, Any], key: str) -> bytes:
    return base64.b64decode(secret["data"][key])


def certificate(secret: dict[str, Any]) -> x509.Certificate:
    return x509.load_pem_x509_certificate(decoded(secret, "tls.crt"))


def secrets_of(objects: Objects) -> dict[str, dict[str, str]]:
    return {secret["metadata"]["name"]: secret["data"] for secret in of_kind(objects, "Secret")}


def jobs_of(objects: Objects) -> list[str]:
    return [job["metadata"]["name"] for job in of_kind(objects, "Job")]


def test_an_upgrade_keeps_passwords_and_certificates(helm: Helm, namespace: Kubectl) -> None:
    space = str(namespace.namespace)
    prefix = f"{RELEASE}-discoveryflow"

    def again(*more: str) -> Objects:
        return rendered(helm, EMBEDDED, space, "--dry-run=server", known, *more)

    # without a server it is not found
    known = "--set=api.clusterId=01234567-89ab-cdef-0123-456789abcdef"
    first = rendered(helm, EMBEDDED, space, known)
    installed = of_kind(first, "Secret")
    for secret in installed:
        # as Helm marks what it installs
        secret["metadata"].setdefault("annotations", {}).update(
            {"meta.helm.sh/release-name": RELEASE, "meta.helm.sh/release-namespace": space}
        )
    namespace.apply(installed)

    second = again()
    assert secrets_of(second) == secrets_of(first)
    assert jobs_of(second) == jobs_of(first)
    assert list(pods(second)) == list(pods(first))

    renamed = secrets_of(again("--set=api.tls.hosts={discovery.example.org}"))
    changed = {name for name, data in renamed.items() if data != secrets_of(first)[name]}
    assert changed == {f"{prefix}-api-tls"}

    namespace(
        "annotate", "secret", f"{prefix}-execution-tls", "discoveryflow.dev/issued=1000000000",
        "--overwrite",
    )  # fmt: skip
    renewed = again()
    changed = {
        name for name, data in secrets_of(renewed).items() if data != secrets_of(first)[name]
    }
    assert changed == {f"{prefix}-execution-tls"}
    assert list(pods(renewed)) != list(pods(first))
    assert jobs_of(renewed) == jobs_of(first)

    removal = [{"op": "remove", "path": "/data/api"}]
    assert namespace.try_patch("secret", f"{prefix}-database", removal).ok
    rotated = again()
    before, after = (secrets_of(o)[f"{prefix}-database"] for o in (first, rotated))
    assert {key for key in before if before[key] != after[key]} == {"api"}
    assert jobs_of(rotated) != jobs_of(first)


def test_another_image_makes_another_migration_job(helm: Helm) -> None:
    closed = CHART / "ci" / "closed-values.yaml"
    more = ["--set=database.roles.existingSecret=roles"]
    one = jobs_of(rendered(helm, closed, "default", "--set-string=image.tag=1", *more))
    two = jobs_of(rendered(helm, closed, "default", "--set-string=image.tag=2", *more))
    assert len(one) == 1
    assert one != two
    assert one == jobs_of(rendered(helm, closed, "default", "--set-string=image.tag=1", *more))


def test_the_migration_runs_again_at_times_as_it_was_installed(helm: Helm) -> None:
    objects = rendered(helm, EMBEDDED)
    (job,), (again,) = of_kind(objects, "Job"), of_kind(objects, "CronJob")
    assert again["metadata"]["name"] == f"{RELEASE}-discoveryflow-migration"
    assert again["spec"]["jobTemplate"]["spec"]["template"] == job["spec"]["template"]
    assert (again["spec"]["schedule"], again["spec"]["suspend"]) == ("*/10 * * * *", False)
    (by_hand,) = of_kind(
        rendered(helm, EMBEDDED, "default", "--set=migration.schedule="), "CronJob"
    )
    assert by_hand["spec"]["suspend"] is True


def test_images_by_digest(helm: Helm) -> None:
    zeros = "sha256:" + "0" * 64
    objects = rendered(helm, CHART / "ci" / "external-values.yaml")
    images = {c["image"] for _, template in pods(objects) for c in template["spec"]["containers"]}
    assert images == {f"registry.example.org:5000/discoveryflow/operator@{zeros}"}
    crews = environment(objects, "operator")["DISCOVERY_CREW_IMAGE"]
    assert crews == "registry.example.org:5000/discoveryflow/crews:1.2.3"


def test_data_of_an_evaluation_may_be_kept_or_not(helm: Helm) -> None:
    kept = rendered(helm, CHART / "ci" / "embedded-persistent-values.yaml")
    (claim,) = of_kind(kept, "StatefulSet")[0]["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["storageClassName"] == "fast"
    (thrown_away,) = of_kind(rendered(helm, EMBEDDED), "StatefulSet")
    assert "volumeClaimTemplates" not in thrown_away["spec"]
    volumes = thrown_away["spec"]["template"]["spec"]["volumes"]
    assert {"name": "data", "emptyDir": {}} in volumes


EXTERNAL = ["--set=database.url=postgresql://db/x"]
MISSING: dict[str, tuple[list[str], str]] = {
    "no database": ([], "Set database.url (and database.owner.existingSecret), or postgresql"),
    "two databases": (
        [*EXTERNAL, "--set=postgresql.embedded.enabled=true"],
        "database.url and postgresql.embedded.enabled exclude each other",
    ),
    "no password of the owner": (EXTERNAL, "database.owner.existingSecret is missing"),
    "one certificate for two names": (
        [
            "--set=postgresql.embedded.enabled=true",
            "--set=api.tls.existingSecret=a,executionApi.tls.existingSecret=a",
        ],
        "use a certificate each",
    ),
    "unknown setting": (["--set=postgres.enabled=true"], "'postgres' not allowed"),
    "password in the address": (
        ["--set=database.url=postgresql://a:b@c/d"],
        "does not match pattern",
    ),
}


@pytest.mark.parametrize(("settings", "says"), MISSING.values(), ids=MISSING.keys())
def test_what_is_missing_is_named(settings: list[str], says: str, helm: Helm) -> None:
    outcome = helm.try_("template", RELEASE, str(CHART), *settings)
    assert not outcome.ok
    assert says in outcome.stderr


@pytest.mark.parametrize("given", ["image.repository", "crews.image.repository"])
def test_s12_a_chart_without_images_is_refused(given: str, helm: Helm) -> None:
    """Somebody else could own a default name at a registry, and with it what would run here."""
    settings = ["--set=postgresql.embedded.enabled=true", f"--set={given}=registry.example.org/x"]
    outcome = helm.try_("template", RELEASE, str(CHART), *settings)
    assert not outcome.ok
    assert "image.repository and crews.image.repository name no images" in outcome.stderr


def test_s12_the_embedded_database_is_named_by_digest(helm: Helm) -> None:
    (stateful,) = of_kind(rendered(helm, EMBEDDED), "StatefulSet")
    (container,) = stateful["spec"]["template"]["spec"]["containers"]
    assert re.fullmatch(r"docker\.io/library/postgres@sha256:[0-9a-f]{64}", container["image"])


def test_the_notes_say_how_to_go_on(helm: Helm, namespace: Kubectl) -> None:
    outcome = helm.try_(
        "install", RELEASE, str(CHART), f"--namespace={namespace.namespace}",
        f"--values={EMBEDDED}", "--dry-run=client",
    )  # fmt: skip
    assert outcome.ok, outcome.stderr
    notes = outcome.stdout.partition("NOTES:")[2]
    for part in (
        *("rollout status", "-approve", "create configmap", "--type=json", "port-forward"),
        *(
            "https://localhost:8444",
            "mappings servers",
            f"--product-namespace {namespace.namespace}",
        ),
    ):
        assert part in notes
    assert "its data is gone with its pod" in notes
