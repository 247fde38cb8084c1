"""`make demo`: from a bare machine to a field mapping that waits for your approval.

Standard library only, because it runs before anything is installed. Everything it does is done
with commands that it could also tell you to type; the ones that matter it prints.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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
SHOWN = 5


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

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A kubectl that goes on until it is ended; its output is a pipe."""
        return subprocess.Popen(
            ["kubectl", *arguments], env=self._environment, stdout=subprocess.PIPE, text=True
        )

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


def tell_how_to_go_on(flow: dict[str, Any]) -> None:
    """What a person does next: on the page, by the command line, with kubectl, with curl."""
    name, uid = flow["metadata"]["name"], flow["metadata"]["uid"]
    answer = answer_of(flow)
    patch = [{"op": "add", "path": "/spec/approval", "value": answer | {"decidedBy": REVIEWER}}]
    body = {key: answer[key] for key in ("requestId", "artefactDigest", "reason")}
    host = f"{PRODUCT}-api.{PRODUCT}.svc"
    print(
        f"""
{flow["status"]["message"]}. Nothing goes on until you have looked at them and answered.

First, in this shell:
  eval "$(python3 -m tests.cluster.provision env)"
  kubectl -n {PRODUCT} port-forward service/{PRODUCT}-api 8444:8444 &

On the page (the certificate is the demo's own, so your browser asks):
  https://localhost:8444/flows/{uid}/review
  Sign in with what this prints:  kubectl -n {NAMESPACE} create token reviewer

By the command line (install it first: pip install '.[cli]'):
  export DISCOVERYFLOW_TOKEN=$(kubectl -n {NAMESPACE} create token reviewer)
  kubectl discoveryflow -n {NAMESPACE} mappings {name}
  kubectl discoveryflow -n {NAMESPACE} approve {name}
  kubectl discoveryflow -n {NAMESPACE} open {name} --url https://localhost:8444

With kubectl, as the reviewer that the demo has made:
  kubectl -n {NAMESPACE} patch discoveryflow {name} --type=json --as={REVIEWER} \\
    -p '{json.dumps(patch)}'

With curl:
  kubectl -n {PRODUCT} get secret {PRODUCT}-api-tls -o jsonpath='{{.data.ca\\.crt}}' \\
    | base64 -d > /tmp/discoveryflow-ca.crt
  curl -s --cacert /tmp/discoveryflow-ca.crt --connect-to {host}:8444:127.0.0.1:8444 \\
    -H "Authorization: Bearer $(kubectl -n {NAMESPACE} create token reviewer)" \\
    -H "Content-Type: application/json" \\
    https://{host}:8444/api/v1/discovery/flows/{uid}/approve-mappings \\
    -d '{json.dumps(body)}'

Then the inventory is built:
  kubectl -n {NAMESPACE} wait discoveryflow/{name} --for=condition=Succeeded --timeout=5m
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


@contextlib.contextmanager
def user_api(kube: Cluster) -> Iterator[Callable[[str], Any]]:
    """Reads paths of the user API as the reviewer, by a port-forward that ends with the block."""
    host = f"{PRODUCT}-api.{PRODUCT}.svc"
    certificate = kube.run(
        *("-n", PRODUCT, "get", "secret", f"{PRODUCT}-api-tls"),
        *("-o", "jsonpath={.data.ca\\.crt}"),
    )
    token = kube.run("-n", NAMESPACE, "create", "token", "reviewer").strip()
    context = ssl.create_default_context(cadata=base64.b64decode(certificate).decode())
    forward = kube.start("-n", PRODUCT, "port-forward", f"service/{PRODUCT}-api", ":8444")
    try:
        assert forward.stdout is not None
        found = re.search(r"127\.0\.0\.1:(\d+)", forward.stdout.readline())
        if found is None:
            raise DemoError("kubectl port-forward to the user API has failed; see above")

        def read(path: str) -> Any:
            plain = socket.create_connection(("127.0.0.1", int(found[1])), timeout=30)
            connection = http.client.HTTPConnection(host)
            connection.sock = context.wrap_socket(plain, server_hostname=host)
            connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            text = answer.read().decode()
            connection.close()
            if answer.status != http.HTTPStatus.OK:
                raise DemoError(f"the user API answers {answer.status} to {path}: {text[:500]}")
            return json.loads(text)

        yield read
    finally:
        forward.terminate()
        forward.wait()


def summarise(kube: Cluster, flow: dict[str, Any]) -> None:
    """Prints the inventory as the user API tells it: counts, a few assets, and strategies."""
    status, uid = flow["status"], flow["metadata"]["uid"]
    with user_api(kube) as read:
        page = read(f"/api/v1/discovery/flows/{uid}/assets?limit={SHOWN}")
        strategies = read(f"/api/v1/discovery/flows/{uid}/strategies")
    print(
        f"\nInventory: {page['total']} assets from {status.get('recordsImported')} rows "
        f"({status.get('recordsRejected')} rejected)"
    )
    for kind, count in sorted(page["by_type"].items(), key=lambda item: -item[1]):
        print(f"  {count:6}  {kind}")
    print("Strategies")
    for name, count in sorted(strategies["by_strategy"].items(), key=lambda item: -item[1]):
        print(f"  {count:6}  {name}")
    print(f"The first {len(page['items'])} assets")
    for asset in page["items"]:
        fields = asset["fields"]
        known = ("os_name", "cpu_cores", "memory_gb", "environment")
        told = ", ".join(f"{key} {fields[key]}" for key in known if key in fields)
        print(f"  {asset['name']}: {told}")
    print(
        f"""
All of it on the page, with files for import into AWS, Azure and Google Cloud:
  eval "$(python3 -m tests.cluster.provision env)"
  kubectl -n {PRODUCT} port-forward service/{PRODUCT}-api 8444:8444 &
  https://localhost:8444/flows/{uid}/inventory
  Sign in with what this prints:  kubectl -n {NAMESPACE} create token reviewer
`make demo-down` removes everything."""
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
        cluster("up")
        cluster("images")
        # the demo's reviewer is a ServiceAccount, which other installations do not let decide
        cluster("install", "--set", "approval.allowServiceAccounts=true")
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
        tell_how_to_go_on(flow)
        return 0
    approve(kube, flow)
    flow = follow(kube, name, STATES_THAT_END)
    if flow["status"]["state"] != "Succeeded":
        raise DemoError(f"{name} ended as {flow['status']['state']}: {flow['status']['message']}")
    summarise(kube, flow)
    return 0


if __name__ == "__main__":
    sys.exit(main())
