"""People of the cluster tests: accounts with roles and tokens, and their way to the APIs."""

from __future__ import annotations

import base64
import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from tests.cluster.kube import Kubectl
from tests.cluster.product import INSTALLED_IN, Product


def _ends_with_us() -> list[str]:
    """What makes the kernel end a command with this process, also where this one is killed."""
    return ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []


@contextmanager
def forwarded(
    product: Product, component: str, port: int, address: str = "127.0.0.1"
) -> Iterator[int]:
    """A port of loopback, or of that address, which leads to a component's Service."""
    kubectl = product.kubectl
    forward = subprocess.Popen(
        [
            *_ends_with_us(),
            *("kubectl", f"--kubeconfig={kubectl.kubeconfig}", f"--namespace={INSTALLED_IN}"),
            *("port-forward", f"service/discoveryflow-{component}", f":{port}"),
            f"--address={address}",
        ],
        env={**os.environ, "PATH": kubectl.path},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert forward.stdout is not None
        found = re.search(rf"{re.escape(address)}:(\d+)", forward.stdout.readline())
        assert found, "kubectl port-forward says no port"
        yield int(found[1])
    finally:
        forward.terminate()
        forward.wait(10)


@contextmanager
def reached(product: Product, component: str, port: int) -> Iterator[httpx.Client]:
    """A client of one of the two Services, which checks its certificate against the chart's CA."""
    name = f"discoveryflow-{component}"
    secret = product.kubectl.json("get", "secret", f"{name}-tls")
    authority = base64.b64decode(secret["data"]["ca.crt"]).decode()
    host = f"{name}.{INSTALLED_IN}.svc"

    def to_service(request: httpx.Request) -> None:
        request.extensions["sni_hostname"] = host

    with (
        forwarded(product, component, port) as local,
        httpx.Client(
            base_url=f"https://127.0.0.1:{local}",
            headers={"Host": host},
            verify=ssl.create_default_context(cadata=authority),
            timeout=30,
            trust_env=False,
            event_hooks={"request": [to_service]},
        ) as client,
    ):
        yield client


@dataclass
class Person:
    """A ServiceAccount with a role, and its token."""

    user: str
    headers: dict[str, str]


def make_person(kubectl: Kubectl, name: str, *roles: str) -> Person:
    """A ServiceAccount of the namespace with these ClusterRoles in it."""
    kubectl("create", "serviceaccount", name)
    for role in roles:
        kubectl(
            *("create", "rolebinding", f"{name}-{role}", f"--clusterrole={role}"),
            f"--serviceaccount={kubectl.namespace}:{name}",
        )
    token = kubectl("create", "token", name).strip()
    user = f"system:serviceaccount:{kubectl.namespace}:{name}"
    return Person(user, {"Authorization": f"Bearer {token}"})
