"""What can go wrong around the installed product, done for the length of a block, then put back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit
from uuid import uuid4

import httpx

from tests.cluster.kube import Kubectl, eventually
from tests.cluster.people import make_person, reached
from tests.cluster.product import DATABASE_POD, PSQL, Product
from tests.cluster.provision.native import Native

COMPONENTS = ("operator", "execution", "api")


def rolled_out(product: Product, component: str) -> None:
    """Waits until all pods of a component are there, as its Deployment has them, and ready."""
    deployment = f"deployment/discoveryflow-{component}"
    product.kubectl("rollout", "status", deployment, "--timeout=120s", timeout=130)


@contextmanager
def configured(product: Product, **settings: str) -> Iterator[None]:
    """The operators run with these variables of their environment."""
    deployment = "deployment/discoveryflow-operator"
    spec = product.kubectl.json("get", deployment)["spec"]["template"]["spec"]
    before = {v["name"]: v.get("value") for v in spec["containers"][0]["env"]}
    product.kubectl("set", "env", deployment, *(f"{key}={text}" for key, text in settings.items()))
    try:
        rolled_out(product, "operator")
        yield
    finally:
        old = (f"{key}={before[key]}" if key in before else f"{key}-" for key in settings)
        product.kubectl("set", "env", deployment, *old)
        rolled_out(product, "operator")
        left = product.kubectl.json("get", deployment)["spec"]["template"]["spec"]
        assert left == spec, "the operator is as it was"


@contextmanager
def without_operators(product: Product) -> Iterator[None]:
    """No operator runs."""
    deployment = "deployment/discoveryflow-operator"
    before = product.kubectl.json("get", deployment)["spec"]["replicas"]
    product.kubectl("scale", deployment, "--replicas=0")
    try:
        yield
    finally:
        product.kubectl("scale", deployment, f"--replicas={before}")
        rolled_out(product, "operator")


@contextmanager
def cordoned(kubectl: Kubectl, *, but: str = "") -> Iterator[list[str]]:
    """All nodes but one take no pods; those that took some do so again afterwards."""
    nodes = kubectl.json("get", "nodes")["items"]
    open_ones = [n["metadata"]["name"] for n in nodes if not n["spec"].get("unschedulable")]
    names = [name for name in open_ones if name != but]
    kubectl("cordon", *names)
    try:
        yield names
    finally:
        kubectl("uncordon", *names)


@contextmanager
def frozen_api_server(kubectl: Kubectl) -> Iterator[None]:
    """The native cluster's API server hangs: it keeps connections open, and answers nothing.

    A node counts as lost when its lease is 40 s old, so the block has to end well before.
    """
    pid = Native().processes.pid("apiserver")
    assert pid is not None, "this needs the native cluster"
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
        eventually(
            lambda: kubectl.try_("get", "--raw", "/readyz").ok, seconds=60, what="it answers again"
        )


@contextmanager
def database_away(product: Product) -> Iterator[None]:
    """PostgreSQL crashes, and its Service leads nowhere until the end of the block.

    Its pod stays: the installation that is tested keeps the data there.
    """
    kubectl, service = product.kubectl, "service/discoveryflow-postgresql"
    component = "app.kubernetes.io/component"

    def leads_to(name: str) -> None:
        patch = json.dumps({"spec": {"selector": {component: name}}})
        kubectl("patch", service, "--type=merge", "-p", patch)

    before = kubectl.json("get", service)["spec"]["selector"][component]
    leads_to("nobody")
    try:
        kubectl.try_("exec", DATABASE_POD, "--", "sh", "-c", "kill -QUIT 1")
        yield
    finally:
        leads_to(before)
        for name in COMPONENTS:
            rolled_out(product, name)


@contextmanager
def locked_table(product: Product, table: str) -> Iterator[None]:
    """Somebody has locked a table in a psql session, and gone to lunch."""
    kubectl = product.kubectl
    session = subprocess.Popen(
        [
            *("kubectl", f"--kubeconfig={kubectl.kubeconfig}", f"--namespace={kubectl.namespace}"),
            *("exec", "-i", DATABASE_POD, "--", *PSQL, "-At"),
        ],
        env={**os.environ, "PATH": kubectl.path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert session.stdin is not None
    assert session.stdout is not None
    try:
        session.stdin.write(
            f"BEGIN;\nLOCK TABLE {table} IN ACCESS EXCLUSIVE MODE;\nSELECT 'it is locked';\n"
        )
        session.stdin.flush()
        said = [session.stdout.readline().strip() for _ in range(3)]
        assert said[-1] == "it is locked", said
        yield
    finally:
        session.stdin.close()  # psql ends, and its transaction with it
        session.wait(30)


@contextmanager
def other_operator(product: Product, database: str) -> Iterator[None]:
    """One more operator, which works with a copy of the database: as after a restore beside it."""
    kubectl, name = product.kubectl, "discoveryflow-operator-of-the-copy"
    access = "export PGUSER=postgres PGHOST=/var/run/postgresql; set -e;"
    exec_ = ("exec", DATABASE_POD, "--", "sh", "-c")
    template = kubectl.json("get", "deployment", "discoveryflow-operator")["spec"]["template"]
    for variable in template["spec"]["containers"][0]["env"]:
        if variable["name"] == "DISCOVERY_DATABASE_URL":
            variable["value"] = urlsplit(variable["value"])._replace(path=f"/{database}").geturl()
    try:
        copied = f"pg_dump discoveryflow | psql --quiet --set ON_ERROR_STOP=1 {database} >/dev/null"
        kubectl(*exec_, f"{access} createdb {database}; {copied}", timeout=120)
        metadata = {"name": name, "labels": template["metadata"]["labels"]}
        kubectl.apply(
            {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        )
        kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s", timeout=70)
        yield
    finally:
        kubectl("delete", "pod", name, "--ignore-not-found", timeout=90)
        kubectl(*exec_, f"{access} dropdb --if-exists --force {database}")


@contextmanager
def people_ask(product: Product, namespace: Kubectl, people: int = 1) -> Iterator[list[int]]:
    """People ask the API for flows that there are not; the statuses of the answers so far."""
    ann = make_person(namespace, f"ann-{uuid4().hex[:6]}")
    statuses: list[int] = []
    stop = threading.Event()

    def ask(client: httpx.Client) -> None:
        while not stop.wait(0.2):
            place = f"/api/v1/discovery/flows/{uuid4()}"
            statuses.append(client.get(place, headers=ann.headers, timeout=120).status_code)

    with reached(product, "api", 8444) as client, ThreadPoolExecutor(people) as pool:
        asking = [pool.submit(ask, client) for _ in range(people)]
        try:
            yield statuses
        finally:
            stop.set()
        for one in asking:
            one.result()
