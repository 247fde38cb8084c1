"""`make demo`: from a bare machine to a field mapping that waits for your approval.

Standard library only, because it runs before anything is installed. Everything it does is done
with commands that it could also tell you to type; the ones that matter it prints.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NAMESPACE = "discoveryflow-demo"
PRODUCT = "discoveryflow"
SAMPLE = ROOT / "examples" / "servers.csv"
REVIEWER = f"system:serviceaccount:{NAMESPACE}:reviewer"
CONFIGMAP_LIMIT = 1_000_000
STATES_THAT_END = ("Succeeded", "Failed", "Rejected", "Cancelled")
TIMEOUT = 900.0


class DemoError(Exception):
    """The demo cannot go on; the message says why and what to do."""


def cluster(*arguments: str) -> None:
    """Runs the cluster tool, whose output people should see."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.cluster.provision", *arguments], cwd=ROOT, check=False
    )
    if done.returncode != 0:
        raise DemoError(f"the step `{' '.join(arguments)}` failed; see above")


def environment() -> dict[str, str]:
    """KUBECONFIG and PATH of the demo's cluster, and of no other."""
    printed = subprocess.run(
        [sys.executable, "-m", "tests.cluster.provision", "env"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    values = dict(re.findall(r'export (\w+)="([^"]*)"', printed))
    values["PATH"] = values.get("PATH", "$PATH").replace("$PATH", os.environ["PATH"])
    return os.environ | values


class Cluster:
    """kubectl on the demo's cluster."""

    def __init__(self) -> None:
        self._environment = environment()

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Output of kubectl. Raises DemoError with its message."""
        done = subprocess.run(
            ["kubectl", *arguments],
            env=self._environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise DemoError(f"kubectl {' '.join(arguments[:4])} … failed: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *manifests: dict[str, Any]) -> None:
        """Creates or updates objects."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.run("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(items))

    def flow(self, name: str) -> dict[str, Any]:
        """The flow as it is now."""
        found: dict[str, Any] = json.loads(
            self.run("-n", NAMESPACE, "get", "discoveryflow", name, "-o", "json")
        )
        return found


def flow_name(file: Path) -> str:
    """A resource name from a file name."""
    cleaned = re.sub(r"[^a-z0-9]+", "-", file.stem.lower()).strip("-")[:40].strip("-")
    return f"{cleaned or 'inventory'}-{time.strftime('%H%M%S')}"


def submit(kube: Cluster, file: Path) -> str:
    """Puts the file into a ConfigMap and creates a flow over it. Returns the flow's name."""
    if not file.is_file():
        raise DemoError(f"there is no file {file}")
    if file.stat().st_size > CONFIGMAP_LIMIT:
        raise DemoError(
            f"{file.name} has {file.stat().st_size:,} bytes; a ConfigMap holds about "
            f"{CONFIGMAP_LIMIT:,}. Put it on a PersistentVolumeClaim instead: "
            "examples/from-volume.yaml"
        )
    name = flow_name(file)
    key = re.sub(r"[^-._a-zA-Z0-9]", "_", file.name)
    created = kube.run(
        *("create", "configmap", name, f"--from-file={key}={file}", "--dry-run=client"),
        *("-o", "json"),
    )
    config_map = json.loads(created)
    config_map["metadata"]["namespace"] = NAMESPACE
    kube.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
    )
    kube.apply(
        config_map,
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "reviewer", "namespace": NAMESPACE},
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "reviewer", "namespace": NAMESPACE},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": f"{PRODUCT}-approve",
            },
            "subjects": [{"kind": "ServiceAccount", "name": "reviewer", "namespace": NAMESPACE}],
        },
        {
            "apiVersion": "discoveryflow.dev/v1alpha1",
            "kind": "DiscoveryFlow",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "engagement": "demo",
                "source": {"configMap": {"name": name, "key": key}},
            },
        },
    )
    return name


def follow(kube: Cluster, name: str, until: tuple[str, ...]) -> dict[str, Any]:
    """Prints each change of the status until one of the states is reached."""
    shown = ""
    started = time.monotonic()
    while time.monotonic() - started < TIMEOUT:
        flow = kube.flow(name)
        status = flow.get("status", {})
        line = "  ".join(
            str(status.get(field, "")) for field in ("state", "progress", "phase", "message")
        )
        if line != shown and status:
            print(f"  {time.monotonic() - started:5.1f} s  {line}", flush=True)
            shown = line
        if status.get("state") in until:
            return flow
        time.sleep(0.5)
    raise DemoError(f"{name} did not get there in {TIMEOUT:.0f} s; its last status: {shown}")


def answer_of(flow: dict[str, Any]) -> dict[str, Any]:
    """An approval of the open request, as the demo's reviewer."""
    request = flow["status"]["approvalRequest"]
    return {
        "requestId": request["requestId"],
        "artefactDigest": request["artefactDigest"],
        "decision": "Approve",
        "reason": "looked at it",
    }


def tell_how_to_approve(flow: dict[str, Any]) -> None:
    """The two ways, ready to copy."""
    name, uid = flow["metadata"]["name"], flow["metadata"]["uid"]
    answer = answer_of(flow)
    patch = [{"op": "add", "path": "/spec/approval", "value": answer | {"decidedBy": REVIEWER}}]
    body = {key: answer[key] for key in ("requestId", "artefactDigest", "reason")}
    host = f"{PRODUCT}-api.{PRODUCT}.svc"
    print(
        f"""
{flow["status"]["message"]}. Look at them and approve, in either way.

First, in this shell:
  eval "$(python3 -m tests.cluster.provision env)"

With kubectl, as the reviewer that the demo has made:
  kubectl -n {NAMESPACE} patch discoveryflow {name} --type=json --as={REVIEWER} \\
    -p '{json.dumps(patch)}'

With the API (it also shows every mapping with its confidence, reason and samples):
  kubectl -n {PRODUCT} get secret {PRODUCT}-api-tls -o jsonpath='{{.data.ca\\.crt}}' \\
    | base64 -d > /tmp/discoveryflow-ca.crt
  kubectl -n {PRODUCT} port-forward service/{PRODUCT}-api 8444:8444 &
  TOKEN=$(kubectl -n {NAMESPACE} create token reviewer)
  curl -s --cacert /tmp/discoveryflow-ca.crt --connect-to {host}:8444:127.0.0.1:8444 \\
    -H "Authorization: Bearer $TOKEN" https://{host}:8444/api/v1/discovery/flows/{uid}
  curl -s --cacert /tmp/discoveryflow-ca.crt --connect-to {host}:8444:127.0.0.1:8444 \\
    -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" \\
    https://{host}:8444/api/v1/discovery/flows/{uid}/approve-mappings \\
    -d '{json.dumps(body)}'

Then the inventory is built:
  kubectl -n {NAMESPACE} wait discoveryflow/{name} --for=condition=Succeeded --timeout=5m
  kubectl -n {NAMESPACE} get discoveryflow {name} -o wide
`make demo-down` removes everything."""
    )


def approve(kube: Cluster, flow: dict[str, Any]) -> None:
    """Approves as the reviewer, with the command that is printed otherwise."""
    name = flow["metadata"]["name"]
    patch = [
        {"op": "add", "path": "/spec/approval", "value": answer_of(flow) | {"decidedBy": REVIEWER}}
    ]
    kube.run(
        *("-n", NAMESPACE, "patch", "discoveryflow", name, "--type=json", f"--as={REVIEWER}"),
        *("-p", json.dumps(patch)),
    )
    print(f"Approved as {REVIEWER}.")


def summarise(kube: Cluster, flow: dict[str, Any]) -> None:
    """Prints the inventory: counts by type and a few assets, from the demo's database."""
    status = flow["status"]
    print(
        f"\nInventory: {status.get('assets')} assets from {status.get('recordsImported')} rows "
        f"({status.get('recordsRejected')} rejected).\n{status.get('message', '')}\n"
    )
    for query in (
        "SELECT asset_type AS type, count(*) AS assets FROM assets GROUP BY 1 ORDER BY 2 DESC",
        """SELECT name, fields->>'os_name' AS os, fields->>'cpu_cores' AS cores,
        fields->>'memory_gb' AS memory_gb, fields->>'environment' AS environment
        FROM assets ORDER BY name LIMIT 5""",
    ):
        print(
            kube.run(
                *("-n", PRODUCT, "exec", f"{PRODUCT}-postgresql-0", "--"),
                *("psql", "-U", "postgres", "-d", PRODUCT, "-c", query),
            )
        )


def down() -> None:
    """Removes the demo: with its cluster where that is ours, else namespace by namespace."""
    provider = os.environ.get("CLUSTER_PROVIDER", "auto")
    if provider == "existing":
        Cluster().run("delete", "namespace", NAMESPACE, "--ignore-not-found")
        cluster("uninstall")
    cluster("down")


def main() -> int:
    """Runs the demo; errors are one message and exit status 1."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--file", type=Path, default=SAMPLE, help="inventory to use")
    parser.add_argument("--approve", action="store_true", help="approve and go on to the end")
    parser.add_argument("--down", action="store_true", help="remove everything")
    arguments = parser.parse_args()
    try:
        if arguments.down:
            down()
            return 0
        for step in ("up", "images", "install"):
            cluster(step)
        return demonstrate(arguments.file, approved=arguments.approve)
    except DemoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def demonstrate(file: Path, *, approved: bool) -> int:
    """Submits the file and follows it as far as it goes."""
    kube = Cluster()
    name = submit(kube, file)
    print(f"\nDiscoveryFlow {name} imports {file.name}:")
    flow = follow(kube, name, ("AwaitingApproval", *STATES_THAT_END))
    if flow["status"]["state"] != "AwaitingApproval":
        raise DemoError(f"{name} ended as {flow['status']['state']}: {flow['status']['message']}")
    if not approved:
        tell_how_to_approve(flow)
        return 0
    approve(kube, flow)
    flow = follow(kube, name, STATES_THAT_END)
    if flow["status"]["state"] != "Succeeded":
        raise DemoError(f"{name} ended as {flow['status']['state']}: {flow['status']['message']}")
    summarise(kube, flow)
    return 0


if __name__ == "__main__":
    sys.exit(main())
