"""A real Kubernetes control plane without a node, on loopback, for one lane of tests.

etcd, the API server and of the controllers the garbage collector and the namespace controller: what
the operator talks to, and what takes away the Jobs of a flow that was deleted. Pods are made by the
worker, so neither scheduler nor kubelet is needed, and several lanes run side by side without root.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import yaml

from tests.cluster.provision import binaries
from tests.cluster.provision.pki import Authority
from tests.cluster.provision.processes import Processes

ROOT = Path(__file__).resolve().parents[2]
CONTEXT = "faults"
CONTROLLERS = "garbage-collector-controller,namespace-controller"
OPERATOR = "system:serviceaccount:discoveryflow:discoveryflow-operator"
PLURALS = {
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}
START_SECONDS = 90.0

Raw = dict[str, Any]


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


class ApiError(Exception):
    """The API server refused a request of the tests."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text[:500]}")
        self.status = status


class Api:
    """The API server as the tests' administrator uses it, with plain dictionaries."""

    def __init__(self, server: str, authority: Authority, user: str = "admin") -> None:
        tls = ssl.create_default_context(cafile=str(authority.certificate("ca")))
        tls.load_cert_chain(str(authority.certificate(user)), str(authority.key(user)))
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=50)
        self._http = httpx.AsyncClient(
            base_url=server, verify=tls, timeout=30, trust_env=False, limits=limits
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def call(
        self, method: str, path: str, body: Raw | None = None, *, patch: str = "merge"
    ) -> Raw:
        """Sends a request. `patch` is merge or json. Raises ApiError."""
        kind = f"application/{patch}-patch+json" if method == "PATCH" else "application/json"
        answer = await self._http.request(
            method, path, content=json.dumps(body) if body else None, headers={"Content-Type": kind}
        )
        if answer.status_code >= 400:
            raise ApiError(answer.status_code, answer.text)
        found: Raw = answer.json()
        return found

    async def text(self, path: str) -> str:
        """What a path answers that does not speak JSON. Raises ApiError."""
        answer = await self._http.get(path)
        if answer.status_code >= 400:
            raise ApiError(answer.status_code, answer.text)
        return answer.text

    async def find(self, path: str) -> Raw | None:
        """An object, or None where there is none."""
        try:
            return await self.call("GET", path)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def watch(self, path: str, version: str) -> AsyncIterator[Raw]:
        """Events of a watch until the server ends it. Raises ApiError."""
        options = f"{'&' if '?' in path else '?'}watch=1&resourceVersion={version}"
        async with self._http.stream("GET", path + options, timeout=None) as answer:
            if answer.status_code >= 400:
                raise ApiError(answer.status_code, (await answer.aread()).decode())
            async for line in answer.aiter_lines():
                event: Raw = json.loads(line)
                if event["type"] == "ERROR":
                    raise ApiError(int(event["object"].get("code", 500)), line)
                yield event

    async def items(self, path: str) -> list[Raw]:
        """All objects of a list."""
        found: list[Raw] = (await self.call("GET", path)).get("items") or []
        return found


class ControlPlane:
    """An asynchronous context manager over the processes of one control plane.

    `server` is its address, `kubeconfig` a file with the operator's, `api` is its administrator's
    and `node` that of who makes pods and their tokens. Everything lies in
    `folder`, which must be empty, and every process is ended by its own pid.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._etcd, self._peer, self._secure = free_ports(3)
        self.server = f"https://127.0.0.1:{self._secure}"
        self.kubeconfig = folder / "operator.kubeconfig"
        self.processes = Processes(folder / "run", f"{folder}/")
        self.api: Api
        self.node: Api
        self._given_up = threading.Event()

    async def __aenter__(self) -> Self:
        starting = asyncio.ensure_future(asyncio.to_thread(self._start))
        try:
            await asyncio.shield(starting)
            self.api = Api(self.server, self.authority)
            self.node = Api(self.server, self.authority, "node")
            await self._install()
        except BaseException:
            # a thread cannot be cancelled, and would go on starting what is stopped here
            self._given_up.set()
            await asyncio.wait({starting})
            await asyncio.to_thread(self._stop)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.api.close()
        await self.node.close()
        await asyncio.to_thread(self._stop)

    async def token_file(self) -> Path:
        """A token with which components ask for other pods' identities."""
        path = self.folder / "component.token"
        if path.exists():
            return path
        account = "/api/v1/namespaces/kube-system/serviceaccounts"
        await self.api.call("POST", account, {"metadata": {"name": "component"}})
        await self.api.call(
            "POST",
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            {
                "metadata": {"name": "component"},
                "roleRef": {
                    "apiGroup": "rbac.authorization.k8s.io",
                    "kind": "ClusterRole",
                    "name": "cluster-admin",
                },
                "subjects": [
                    {"kind": "ServiceAccount", "name": "component", "namespace": "kube-system"}
                ],
            },
        )
        answer = await self.api.call(
            "POST", f"{account}/component/token", {"spec": {"expirationSeconds": 86400}}
        )
        path.write_text(answer["status"]["token"])
        return path

    def _start(self) -> None:
        path = binaries.require(("kubernetes", "etcd"))
        self.authority = Authority(self.folder / "pki")
        self.authority.issue(
            "apiserver", "/CN=kube-apiserver", "DNS:localhost,IP:127.0.0.1,IP:10.96.0.1"
        )
        for name, subject in (
            ("admin", "/O=system:masters/CN=admin"),
            ("operator", f"/O=system:masters/CN={OPERATOR}"),
            ("node", "/O=system:masters/O=system:nodes/CN=system:kube-controller-manager"),
            ("controller-manager", "/CN=system:kube-controller-manager"),
        ):
            self.authority.issue(name, subject, f"DNS:{name}")
            self.authority.kubeconfig(
                name, self.server, CONTEXT, self.folder / f"{name}.kubeconfig"
            )
        self.authority.service_account_keys()
        for name, command in self._commands().items():
            executable = shutil.which(command[0], path=path)
            self.processes.start(name, [str(executable), *command[1:]], {})
            if name == "apiserver":
                self._wait(path)

    def _commands(self) -> dict[str, list[str]]:
        pki, client = self.folder / "pki", f"http://127.0.0.1:{self._etcd}"
        peer = f"http://127.0.0.1:{self._peer}"
        return {
            "etcd": [
                *("etcd", "--data-dir", f"{self.folder}/etcd", "--unsafe-no-fsync"),
                *("--listen-client-urls", client, "--advertise-client-urls", client),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--initial-cluster", f"default={peer}", "--log-level", "error"),
            ],
            "apiserver": [
                "kube-apiserver",
                f"--etcd-servers={client}",
                "--bind-address=127.0.0.1",
                "--advertise-address=127.0.0.1",
                f"--secure-port={self._secure}",
                f"--tls-cert-file={pki}/apiserver.crt",
                f"--tls-private-key-file={pki}/apiserver.key",
                f"--client-ca-file={pki}/ca.crt",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={pki}/sa.pub",
                f"--service-account-signing-key-file={pki}/sa.key",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--endpoint-reconciler-type=none",
                "--authorization-mode=RBAC",
                # flows of a load test are many; a client of the operator has to live with that
                "--max-requests-inflight=800",
                "--max-mutating-requests-inflight=400",
            ],
            "controller-manager": [
                "kube-controller-manager",
                f"--kubeconfig={self.folder}/controller-manager.kubeconfig",
                "--leader-elect=false",
                f"--controllers={CONTROLLERS}",
                # else all act as its own user, who may not delete anything
                "--use-service-account-credentials=true",
                f"--service-account-private-key-file={pki}/sa.key",
                "--secure-port=0",
                "--kube-api-qps=200",
                "--kube-api-burst=400",
            ],
        }

    def _wait(self, path: str) -> None:
        kubectl = str(shutil.which("kubectl", path=path))
        deadline = time.monotonic() + START_SECONDS
        while True:
            done = subprocess.run(
                [kubectl, f"--kubeconfig={self.kubeconfig}", "get", "--raw", "/readyz"],
                capture_output=True,
                check=False,
            )
            if done.returncode == 0:
                return
            if self._given_up.is_set():
                raise RuntimeError("the start of the control plane was given up")
            if time.monotonic() > deadline or self.processes.missing(("etcd", "apiserver")):
                raise RuntimeError(
                    "the control plane did not start"
                    + self.processes.last_words("etcd")
                    + self.processes.last_words("apiserver")
                )
            time.sleep(0.2)

    def _stop(self) -> None:
        # an API server whose etcd has gone first ignores SIGTERM
        for name in ("controller-manager", "apiserver", "etcd"):
            self.processes.stop(name, wait=10)

    async def _install(self) -> None:
        """The resource definition and the admission policy, as the charts install them."""
        definition = yaml.safe_load(
            (ROOT / "crds" / "discoveryflow.dev_discoveryflows.yaml").read_text()
        )
        crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        await self.api.call("POST", crds, definition)
        for manifest in await asyncio.to_thread(_admission):
            path = f"/apis/{manifest['apiVersion']}/{PLURALS[manifest['kind']]}"
            await self.api.call("POST", path, manifest)
        for _ in range(200):
            with contextlib.suppress(ApiError):  # 429 while its storage is made
                if await self.api.find("/apis/discoveryflow.dev/v1alpha1/discoveryflows"):
                    return
            await asyncio.sleep(0.1)
        raise RuntimeError("the API server does not serve DiscoveryFlows")


def _admission() -> list[Raw]:
    """The chart's admission policies: without them no answer is taken and no Job is created."""
    helm = shutil.which("helm", path=binaries.require(("helm",)))
    rendered = subprocess.run(
        [
            *(str(helm), "template", "discoveryflow", str(ROOT / "charts" / "discoveryflow")),
            *("--show-only", "templates/admission.yaml", "--namespace", "discoveryflow"),
            *("--show-only", "templates/admission-crews.yaml"),
            *("--set", "postgresql.embedded.enabled=true", "--set", "approval.allowAutomatic=true"),
            *("--set", "image.repository=none,crews.image.repository=none"),
        ],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ,
    ).stdout
    return [manifest for manifest in yaml.safe_load_all(rendered) if manifest]
