"""Provider `kind`: Kubernetes in Docker. Differs from native in create, image load and delete."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from .binaries import cache_folder
from .errors import ClusterError

NAME = "discoveryflow"
CONTEXT = f"kind-{NAME}"


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

    def _exists(self) -> bool:
        listed = subprocess.run(
            ["kind", "get", "clusters"], capture_output=True, text=True, check=True
        )
        return NAME in listed.stdout.split()

    def up(self) -> None:
        """Creates the cluster where it is missing."""
        self._check()
        self.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
        if self._exists():
            command = ["kind", "export", "kubeconfig", "--name", NAME]
        else:
            command = ["kind", "create", "cluster", "--name", NAME, "--wait", "120s"]
        subprocess.run([*command, "--kubeconfig", str(self.kubeconfig)], check=True)

    def down(self) -> None:
        """Deletes the cluster."""
        self._check()
        subprocess.run(
            ["kind", "delete", "cluster", "--name", NAME, "--kubeconfig", str(self.kubeconfig)],
            check=True,
        )
        self.kubeconfig.unlink(missing_ok=True)

    def healthy(self) -> bool:
        """Whether the cluster exists."""
        return docker_answers() and shutil.which("kind") is not None and self._exists()

    def load(self, archive: Path) -> None:
        """Loads a Docker archive into the node."""
        subprocess.run(["kind", "load", "image-archive", str(archive), "--name", NAME], check=True)

    def has_image(self, reference: str) -> bool:
        """Whether the node has an image of that exact name."""
        listed = subprocess.run(
            ["docker", "exec", f"{NAME}-control-plane", "crictl", "images", "-o", "json"],
            capture_output=True,
            text=True,
            check=False,
        )
        return f'"{reference}"' in listed.stdout
