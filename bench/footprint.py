"""What the installed product costs while nothing happens: memory of each component.

Usage: `python -m bench.footprint` with the product installed as the cluster tool does it. Prints
the resident memory of each process in MB, read inside its container.
"""

from __future__ import annotations

import argparse
import re

from tests.cluster.kube import Kubectl, cluster_environment
from tests.cluster.product import INSTALLED_IN

COMPONENTS = ("operator", "execution", "api")


def resident_megabytes(kubectl: Kubectl, component: str) -> float:
    """Resident memory of a component's first process."""
    status = kubectl(
        *("exec", f"deployment/discoveryflow-{component}", "--", "cat", "/proc/1/status")
    )
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found, status
    return int(found[1]) / 1024


def main() -> None:
    """Prints one line per component."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    kubeconfig, path = cluster_environment()
    kubectl = Kubectl(kubeconfig, path).within(INSTALLED_IN)
    for component in COMPONENTS:
        print(f"{component:10} {resident_megabytes(kubectl, component):6.0f} MB resident")


if __name__ == "__main__":
    main()
