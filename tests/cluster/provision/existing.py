"""Provider `existing`: a cluster that somebody else runs, named on purpose.

The current context is never used: a test that installs and deletes things must not end up on a
production cluster because of it. Images get there by way of a registry, named as deliberately.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from .binaries import cache_folder
from .errors import ClusterError


class Existing:
    """A context of the user's kubeconfig, copied into a kubeconfig of its own."""

    name = "existing"

    def __init__(self, context: str | None) -> None:
        """Raises ClusterError where no context is named."""
        if not context:
            raise ClusterError(
                "provider existing needs --context NAME; the current context is never used.\n"
                "`kubectl config get-contexts` lists the names."
            )
        self.context = context
        plain = re.sub(r"[^A-Za-z0-9._-]", "-", context)
        self.kubeconfig = cache_folder() / f"existing-{plain}.kubeconfig"

    @property
    def repository(self) -> str:
        """Where images are pushed to. Raises ClusterError where no registry is named."""
        registry = os.environ.get("IMAGE_REGISTRY", "").rstrip("/")
        if not registry:
            raise ClusterError(
                "images cannot be loaded into an existing cluster; set IMAGE_REGISTRY to a "
                "registry that you may push to and that the cluster reaches (HOST/PATH)."
            )
        return f"{registry}/discoveryflow"

    def up(self) -> None:
        """Extracts the context and asks its API server. Raises ClusterError where that fails."""
        if shutil.which("kubectl") is None:
            raise ClusterError("provider existing needs `kubectl`; install it")
        view = ("config", "view", "--raw", "--flatten", "--minify", "--context", self.context)
        done = subprocess.run(["kubectl", *view], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ClusterError(f"context {self.context!r}: {done.stderr.strip()}")
        self.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
        self.kubeconfig.unlink(missing_ok=True)
        with open(
            self.kubeconfig, "w", opener=lambda path, flags: os.open(path, flags, 0o600)
        ) as file:
            file.write(done.stdout)
        if not self.healthy():
            raise ClusterError(f"no API server answers in context {self.context!r}")

    def down(self) -> None:
        """Forgets the copy; the cluster is not ours to remove."""
        self.kubeconfig.unlink(missing_ok=True)
        print(f"The cluster of context {self.context} is left as it is.")

    def healthy(self) -> bool:
        """Whether the context was taken over and its API server answers."""
        if not self.kubeconfig.exists() or shutil.which("kubectl") is None:
            return False
        done = subprocess.run(
            [
                *("kubectl", f"--kubeconfig={self.kubeconfig}", "--request-timeout=10s"),
                *("get", "--raw", "/readyz"),
            ],
            capture_output=True,
            check=False,
        )
        return done.returncode == 0

    def load(self, archive: Path) -> None:
        """Refuses: images have to come from a registry."""
        raise ClusterError(
            f"{archive.name} cannot be loaded into an existing cluster; push it to a registry "
            "that the cluster reaches."
        )

    def has_image(self, reference: str) -> bool:
        """Never known: pushing again costs little, for a registry has the layers already."""
        return not reference
