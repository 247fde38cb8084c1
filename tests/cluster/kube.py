"""Runs kubectl and helm for cluster tests: the one place that times them out and says why.

Tests talk to the cluster as people do, so what is tested is what people see, messages included.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

import yaml
from kubernetes import config
from kubernetes.client import CustomObjectsApi

ROOT = Path(__file__).parents[2]
Manifest = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """What a command said."""

    status: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        return self.status == 0


def _run(
    command: Sequence[str], environment: Mapping[str, str], stdin: str | None, timeout: float
) -> Outcome:
    done = subprocess.run(
        command,
        env=dict(environment),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def _text(manifests: str | Manifest | Sequence[Manifest]) -> str:
    if isinstance(manifests, str):
        return manifests
    if isinstance(manifests, Mapping):
        manifests = [manifests]
    return yaml.safe_dump_all([dict(manifest) for manifest in manifests], sort_keys=False)


@dataclass(frozen=True)
class Kubectl:
    """kubectl with one kubeconfig, namespace and identity."""

    kubeconfig: Path
    path: str
    namespace: str | None = None
    user: str | None = None
    groups: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def within(self, namespace: str) -> Kubectl:
        """The same in another namespace."""
        return replace(self, namespace=namespace)

    def acting_as(self, user: str, *groups: str) -> Kubectl:
        """Impersonates `user`: authorisation and admission see that name and those groups."""
        return replace(self, user=user, groups=groups)

    def with_token(self, token: str, folder: Path) -> Kubectl:
        """A real login by bearer token, with a kubeconfig of its own in `folder`."""
        view = self.json("config", "view", "--raw", "--minify", "--flatten")
        view["users"] = [{"name": "token", "user": {"token": token}}]
        view["contexts"][0]["context"]["user"] = "token"
        target = folder / f"{abs(hash(token))}.kubeconfig"
        target.write_text(json.dumps(view), encoding="utf-8")
        return replace(self, kubeconfig=target, user=None)

    def try_(self, *arguments: str, stdin: str | None = None, timeout: float = 60) -> Outcome:
        """Run kubectl and return whatever it said."""
        command = ["kubectl", f"--kubeconfig={self.kubeconfig}"]
        command += [f"--namespace={self.namespace}"] if self.namespace else []
        command += [f"--as={self.user}"] if self.user else []
        command += [f"--as-group={group}" for group in self.groups]
        environment = {**self.environment, "PATH": self.path}
        return _run([*command, *arguments], environment, stdin, timeout)

    def __call__(self, *arguments: str, stdin: str | None = None, timeout: float = 60) -> str:
        """Run kubectl and return its output; fails the test where kubectl fails."""
        outcome = self.try_(*arguments, stdin=stdin, timeout=timeout)
        assert outcome.ok, f"kubectl {' '.join(arguments)} failed:\n{outcome.stderr}"
        return outcome.stdout

    def json(self, *arguments: str) -> Any:
        """Run kubectl with -o json."""
        return json.loads(self(*arguments, "-o", "json"))

    def apply(self, manifests: str | Manifest | Sequence[Manifest], *arguments: str) -> str:
        """Apply manifests, server-side."""
        return self("apply", "--server-side", *arguments, "-f", "-", stdin=_text(manifests))

    def try_create(
        self, manifests: str | Manifest | Sequence[Manifest], *, dry_run: bool = False
    ) -> Outcome:
        """Create objects with strict validation; with `dry_run` nothing is kept."""
        arguments = ["create", "--validate=strict", "-f", "-"]
        return self.try_(
            *arguments, *(["--dry-run=server"] if dry_run else []), stdin=_text(manifests)
        )

    def try_patch(
        self, kind: str, name: str, operations: Sequence[Manifest], *, dry_run: bool = False
    ) -> Outcome:
        """Apply a JSON patch; with `dry_run` nothing is kept."""
        patch = json.dumps([dict(operation) for operation in operations])
        dry = ["--dry-run=server"] if dry_run else []
        return self.try_("patch", kind, name, "--type=json", *dry, "-p", patch)


class Looks:
    """Reads objects of the cluster again and again, as administrator, without a process for each.

    Waiting by kubectl costs a tenth of a second of a processor for each look, which is what tests
    that wait side by side would mostly do.
    """

    def __init__(self, kubeconfig: Path) -> None:
        client = config.new_client_from_config(config_file=str(kubeconfig))
        self._api = CustomObjectsApi(client)

    def flow(self, namespace: str, name: str) -> dict[str, Any]:
        """A DiscoveryFlow. Raises ApiException."""
        found: dict[str, Any] = self._api.get_namespaced_custom_object(
            "discoveryflow.dev", "v1alpha1", namespace, "discoveryflows", name, _request_timeout=30
        )
        return found

    def jobs(self, namespace: str) -> list[dict[str, Any]]:
        """All Jobs. Raises ApiException."""
        found = self._api.list_namespaced_custom_object(
            "batch", "v1", namespace, "jobs", _request_timeout=30
        )
        return list(found["items"])


@dataclass(frozen=True)
class Helm:
    """helm with one kubeconfig."""

    kubeconfig: Path
    path: str
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def try_(self, *arguments: str, timeout: float = 120) -> Outcome:
        """Run helm and return whatever it said."""
        environment = {**self.environment, "PATH": self.path, "KUBECONFIG": str(self.kubeconfig)}
        return _run(["helm", *arguments], environment, None, timeout)

    def __call__(self, *arguments: str, timeout: float = 120) -> str:
        """Run helm and return its output; fails the test where helm fails."""
        outcome = self.try_(*arguments, timeout=timeout)
        assert outcome.ok, f"helm {' '.join(arguments)} failed:\n{outcome.stderr}"
        return outcome.stdout

    def template(self, *arguments: str) -> list[dict[str, Any]]:
        """The objects that a chart renders to."""
        return [
            manifest for manifest in yaml.safe_load_all(self("template", *arguments)) if manifest
        ]


def cluster_environment() -> tuple[Path, str]:
    """Kubeconfig and PATH of the test cluster: $KUBECONFIG, else the cluster tool's own."""
    told = subprocess.run(
        [sys.executable, "-m", "tests.cluster.provision", "env"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    exports = dict(re.findall(r'^export (\w+)="(.*)"$', told.stdout, flags=re.MULTILINE))
    path = exports.get("PATH", "$PATH").replace("$PATH", os.environ["PATH"])
    kubeconfig = os.environ.get("KUBECONFIG") or exports.get("KUBECONFIG")
    if kubeconfig is None:
        raise RuntimeError(f"there is no cluster to test on:\n{told.stderr}")
    return Path(kubeconfig), path


def eventually(probe: Callable[[], T], *, seconds: float, what: str, every: float = 0.5) -> T:
    """The first true answer of `probe`; fails the test after `seconds`.

    `every` suits a probe that starts a kubectl; one without may ask more often.
    """
    deadline = monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        assert monotonic() < deadline, f"not within {seconds} s: {what}; last answer: {answer!r}"
        sleep(every)
