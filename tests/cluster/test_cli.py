"""The command line on the real cluster, with a person's own kubeconfig."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.cluster.kube import Kubectl, eventually
from tests.cluster.product import SAMPLE, Flow, Product

EDITOR = ("discoveryflow-edit", "discoveryflow-approve", "view")


@dataclass
class Shell:
    """Runs the command as a person."""

    environment: dict[str, str]

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "discovery_cli", *arguments],
            env=self.environment | more,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
            check=False,
        )

    def __call__(self, *arguments: str, **more: str) -> str:
        done = self.run(*arguments, **more)
        assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def product(kubectl: Kubectl) -> Product:
    return Product(kubectl)


@pytest.fixture
def shell(kubectl: Kubectl, namespace: Kubectl, tmp_path: Path) -> Callable[..., Shell]:
    """A shell whose kubeconfig holds one person's token; cluster and user are in two files."""

    def of(name: str, *roles: str) -> Shell:
        namespace("create", "serviceaccount", name)
        for role in roles:
            namespace(
                *("create", "rolebinding", f"{name}-{role}", f"--clusterrole={role}"),
                f"--serviceaccount={namespace.namespace}:{name}",
            )
        token = namespace("create", "token", name).strip()
        admin = yaml.safe_load(Path(kubectl.kubeconfig).read_text(encoding="utf-8"))
        (cluster,) = admin["clusters"]
        first, second = tmp_path / f"{name}-cluster", tmp_path / f"{name}-user"
        first.write_text(
            yaml.safe_dump(
                {"apiVersion": "v1", "kind": "Config", "clusters": [cluster],
                 "contexts": [{"name": "work", "context": {"cluster": cluster["name"],
                               "user": name, "namespace": namespace.namespace}}],
                 "current-context": "work"}
            )
        )  # fmt: skip
        # an exec plugin, as identity providers have it
        credential = {
            "apiVersion": "client.authentication.k8s.io/v1",
            "kind": "ExecCredential",
            "status": {"token": token},
        }
        plugin = {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": "echo",
            "args": [json.dumps(credential)],
            "interactiveMode": "Never",
        }
        second.write_text(
            yaml.safe_dump(
                {"apiVersion": "v1", "kind": "Config",
                 "users": [{"name": name, "user": {"exec": plugin}}]}
            )
        )  # fmt: skip
        return Shell(os.environ | {"KUBECONFIG": f"{first}:{second}", "PYTHONPATH": _paths()})

    return of


def _paths() -> str:
    root = Path(__file__).resolve().parents[2]
    return f"{root / 'core'}:{root / 'cli'}"


@pytest.fixture
def reachable(product: Product, namespace: Kubectl) -> None:
    """Lets the namespace's accounts forward a port to the API, as an installation would."""
    rules = [
        {"apiGroups": [""], "resources": ["pods", "services"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["get", "create"]},
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": ["discoveryflow-api-tls"],
            "verbs": ["get"],
        },
    ]
    name = f"reach-{namespace.namespace}"
    group = f"system:serviceaccounts:{namespace.namespace}"
    rbac = "rbac.authorization.k8s.io"
    product.kubectl.apply(
        [
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "Role",
                "metadata": {"name": name},
                "rules": rules,
            },
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "RoleBinding",
                "metadata": {"name": name},
                "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
                "subjects": [{"kind": "Group", "apiGroup": rbac, "name": group}],
            },
        ]
    )


@pytest.mark.usefixtures("reachable")
def test_from_a_file_to_an_export_and_its_end(
    shell: Callable[..., Shell], namespace: Kubectl, product: Product, tmp_path: Path
) -> None:
    ann = shell("ann", *EDITOR)
    source = tmp_path / "My Servers.csv"
    source.write_text(SAMPLE)
    assert "created (dry run)" in ann("create", "-f", str(source), "--dry-run")
    assert namespace.json("get", "discoveryflows")["items"] == []
    made = ann("create", "-f", str(source), "--name", "mine", "--engagement", "dc")
    assert made == "discoveryflow.discoveryflow.dev/mine created\n"
    Flow(namespace, product, name="mine").wait("AwaitingApproval", seconds=120)
    assert "mine" in ann("list", "--waiting")
    assert ann("list", "-o", "name") == "discoveryflow.discoveryflow.dev/mine\n"
    shown = json.loads(ann("mappings", "mine", "-o", "json"))
    columns = {entry["column"]: entry["target"] for entry in shown["mappings"]}
    assert columns["RAM (MB)"] == "memory_gb"
    assert "ApprovalRequested" in ann("describe", "mine")

    unchanged = ann("edit", "mine", EDITOR="true")
    assert "nothing is changed, and nothing is sent" in unchanged
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("- {column: OS, target: cpu_cores}\n- {column: Nope, target: hostname}\n")
    refused = ann.run("edit", "mine", "--from-file", str(wrong))
    assert refused.returncode == 2
    assert "there is no column 'Nope'" in refused.stderr
    right = tmp_path / "right.yaml"
    right.write_text("- {column: OS, target: description}\n")
    assert "mine approved" in ann("edit", "mine", "--from-file", str(right), "--reason", "so it is")
    assert "Succeeded" in ann("watch", "mine", "--timeout", "120")
    files = {entry["name"] for entry in json.loads(ann("export", "mine", "-o", "json"))}
    assert {"assets_csv", "assets_xlsx"} <= files
    target = tmp_path / "assets.csv"
    ann("export", "mine", "--format", "assets_csv", "-f", str(target))
    rows = list(csv.DictReader(io.StringIO(target.read_text(encoding="utf-8-sig"))))
    assert len(rows) == 2
    assert "problem" in ann("rejected-rows", "mine").splitlines()[0]
    assert '"event": "claimed"' in ann("logs", "mine", "--phase", "migration_strategy")
    impossible = ann.run("export", "mine", "--format", "nope")
    assert impossible.returncode == 3
    assert "assets_csv" in impossible.stderr
    again = ann("retry", "mine", "--from-phase", "migration_strategy")
    assert "round 2 begins with migration_strategy" in again
    assert "Succeeded" in ann("watch", "mine", "--timeout", "120")

    forbidden = ann.run("purge", "mine", "--yes")
    assert forbidden.returncode == 4
    assert "verb 'purge'" in forbidden.stderr
    assert len(json.loads(ann("export", "mine", "-o", "json"))) > 0
    namespace(
        *("create", "rolebinding", "ann-purge", "--clusterrole=discoveryflow-purge"),
        f"--serviceaccount={namespace.namespace}:ann",
    )
    assert "mine will be purged (" in ann("purge", "mine", "--yes", "--inventory")
    eventually(
        lambda: "a new round is not possible" in ann("describe", "mine"),
        seconds=120,
        what="the data is gone",
    )
    assert json.loads(ann("export", "mine", "-o", "json")) == []
    tenant = product.admin.json("get", "namespace", str(namespace.namespace))["metadata"]["uid"]
    assert product.sql(f"SELECT count(*) FROM assets WHERE tenant_id = '{tenant}'") == [["0"]]


def test_answers_and_their_exit_codes(
    shell: Callable[..., Shell], namespace: Kubectl, product: Product
) -> None:
    ann, bob = shell("ann", *EDITOR), shell("bob", "discoveryflow-view")
    flow = Flow(namespace, product)
    flow.to_gate()
    forbidden = bob.run("approve", "servers")
    assert forbidden.returncode == 4
    assert "cannot patch" in forbidden.stderr
    assert ann.run("approve", "nothing").returncode == 3
    assert ann.run("reject", "servers").returncode == 1
    assert flow.status()["state"] == "AwaitingApproval"
    asked = ann("ask-again", "servers", "--hint", "OS -> description")
    assert asked == "servers asked again\n"
    flow.wait_for("AwaitingApproval", seconds=90)
    assert "rejected" in ann("reject", "servers", "--yes", "--reason", "no")
    late = ann.run("approve", "servers")
    assert late.returncode == 5
    assert "it is Rejected" in late.stderr
    assert "round 3 begins with approval" in ann("retry", "servers")
    flow.wait_for("AwaitingApproval")
    assert ann("approve", "servers") == "servers approved\n"
    assert "suspended" in ann("suspend", "servers")
    flow.wait_for("Suspended")
    assert "go on" in ann("resume", "servers")
    assert "cancelled" in ann("cancel", "servers", "--yes")
    flow.wait_for("Cancelled")
    ended = ann.run("watch", "servers")
    assert ended.returncode == 1
    assert ann.run("--context", "elsewhere", "list").returncode == 2
    away = ann.run("list", KUBECONFIG="/nowhere")
    assert away.returncode == 2
    assert "KUBECONFIG" in away.stderr
    unreached = ann.run("mappings", "servers")
    assert unreached.returncode == 5


def test_a_manifest_and_a_config_map(
    shell: Callable[..., Shell], namespace: Kubectl, tmp_path: Path
) -> None:
    ann = shell("ann", *EDITOR)
    manifest = tmp_path / "flow.yaml"
    flow = {
        "apiVersion": "discoveryflow.dev/v1alpha1",
        "kind": "DiscoveryFlow",
        "metadata": {"name": "declared"},
        "spec": {"source": {"configMap": {"name": "declared", "key": "source"}}},
    }
    manifest.write_text(yaml.safe_dump(flow))
    source = tmp_path / "list.csv"
    source.write_text(SAMPLE)
    namespace("create", "rolebinding", "ann-edit", "--clusterrole=edit",
              f"--serviceaccount={namespace.namespace}:ann")  # fmt: skip
    namespace("create", "configmap", "declared", f"--from-file=source={source}")
    assert "declared created" in ann("create", "-f", str(manifest))
    assert "small created" in ann("create", "-f", str(source), "--config-map", "--name", "small")
    odd = tmp_path / "odd.yaml"
    odd.write_text("kind: Pod\n")
    assert ann.run("create", "-f", str(odd)).returncode == 2
