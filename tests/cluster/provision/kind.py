"""Provider `kind`: Kubernetes in Docker. Differs from native in create, image load and delete."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from .binaries import cache_folder
from .errors import ClusterError

NAME = "discoveryflow"
NODE = f"{NAME}-control-plane"
START_SECONDS = 120


def docker_answers() -> bool:
    """Whether a Docker engine can be reached, not only its client found."""
    if shutil.which("docker") is None:
        return False
    try:
        done = subprocess.run(
            ["docker", "info", "--format", "{{.ServerVersion}}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0 and bool(done.stdout.strip())


class Kind:
    """A kind cluster of the project's own, with a kubeconfig of its own."""

    name = "kind"
    repository = "localhost/discoveryflow"

    def __init__(self) -> None:
        self.kubeconfig = cache_folder() / "kind.kubeconfig"

    @staticmethod
    def _check() -> None:
        if not docker_answers():
            raise ClusterError(
                "provider kind needs a running Docker engine, and none answers.\n"
                "Start it, or use --provider native (root and Go 1.26) or "
                "--provider existing --context NAME."
            )
        if shutil.which("kind") is None:
            raise ClusterError(
                "provider kind needs the `kind` command: https://kind.sigs.k8s.io "
                "(or `go install sigs.k8s.io/kind@v0.33.0`)."
            )

    @staticmethod
    def _exists() -> bool:
        return NAME in _output("kind", "get", "clusters").split()

    def up(self) -> None:
        """Creates the cluster where it is missing, starts its node where Docker stopped it."""
        self._check()
        self.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
        config = ("--kubeconfig", str(self.kubeconfig))
        if self._exists():
            _output("docker", "start", NODE)
            _output("kind", "export", "kubeconfig", "--name", NAME, *config)
        else:
            print("Creating the kind cluster …", flush=True)
            wait = ("--wait", f"{START_SECONDS}s")
            _output("kind", "create", "cluster", "--name", NAME, *wait, *config)
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"the kind cluster is not ready after {START_SECONDS} s; look at "
                    f"`docker logs {NODE}`, or take it down and up again"
                )
            time.sleep(1)

    @staticmethod
    def _ready() -> bool:
        command = ["docker", "exec", NODE, "kubectl", "--kubeconfig=/etc/kubernetes/admin.conf"]
        wait = ["wait", "--for=condition=Ready", f"node/{NODE}", "--timeout=5s"]
        return subprocess.run([*command, *wait], capture_output=True, check=False).returncode == 0

    def down(self) -> None:
        """Deletes the cluster."""
        self._check()
        config = ("--kubeconfig", str(self.kubeconfig))
        _output("kind", "delete", "cluster", "--name", NAME, *config)
        self.kubeconfig.unlink(missing_ok=True)
        print("The kind cluster is gone.")

    def healthy(self) -> bool:
        """Whether the cluster exists and its node is ready."""
        return docker_answers() and self._ready()

    def load(self, archive: Path) -> None:
        """Loads a Docker archive into the node."""
        _output("kind", "load", "image-archive", str(archive), "--name", NAME)

    def has_image(self, reference: str) -> bool:
        """Whether the node has an image of that exact name."""
        listed = subprocess.run(
            ["docker", "exec", NODE, "crictl", "images", "--output", "json"],
            capture_output=True,
            text=True,
            check=False,
        )
        return f'"{reference}"' in listed.stdout


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}"[-3000:])
    return done.stdout
