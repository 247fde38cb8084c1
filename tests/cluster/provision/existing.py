"""Provider `existing`: a cluster that somebody else runs, named on purpose.

The current context is never used: a test that installs and deletes things must not end up on a
production cluster because of it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from .binaries import cache_folder
from .errors import ClusterError


class Existing:
    """A context of the user's kubeconfig, copied into a kubeconfig of its own."""

    name = "existing"

    def __init__(self, context: str | None) -> None:
        self.context = context
        self.kubeconfig = cache_folder() / "existing.kubeconfig"

    def up(self) -> None:
        """Checks the context and extracts it. Raises ClusterError where it is not named."""
        if not self.context:
            raise ClusterError(
                "provider existing needs --context NAME; the current context is never used.\n"
                "`kubectl config get-contexts` lists the names."
            )
        done = subprocess.run(
            [
                *("kubectl", "config", "view", "--raw", "--flatten", "--minify"),
                *("--context", self.context),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ClusterError(f"context {self.context!r}: {done.stderr.strip()}")
        self.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
        self.kubeconfig.write_text(done.stdout)
        self.kubeconfig.chmod(0o600)

    def down(self) -> None:
        """Forgets the copy; the cluster is not ours to remove."""
        self.kubeconfig.unlink(missing_ok=True)

    def healthy(self) -> bool:
        """Whether a context has been chosen."""
        return self.kubeconfig.exists()

    def load(self, archive: Path) -> None:
        """Refuses: images have to be in a registry that the cluster reaches."""
        raise ClusterError(
            f"{archive.name} cannot be loaded into an existing cluster; push the images to a "
            "registry that it reaches and set IMAGE_REGISTRY."
        )

    def has_image(self, reference: str) -> bool:
        """Taken for granted: the cluster pulls from its registry."""
        return bool(reference)
