"""Removes what a run of the tests that was cut off has left, so that it fails no later one.

`python -m tests.cluster.leftovers` runs before the cluster tests: namespaces and copies of the
resource on the cluster, clusters with a life of their own (test_lifecycle.py), control planes
(tests/faults) and database servers (tests/postgres.py) whose tests are gone. Nothing that belongs
to a run that is still there is touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.kube import ROOT, Kubectl, cluster_environment
from tests.cluster.provision.native import DEFAULT_WORK
from tests.cluster.provision.processes import all_processes, command_line, stop_pids
from tests.postgres import IN_USE, MEMORY, SERVER_PREFIX

OURS = re.compile(
    r"test-[0-9a-f]{12}(-other)?|llm-stub|webhook-receiver|dc-east|discoveryflow-demo"
)
SANDBOX = "sandbox"
CONTROL_PLANES = re.compile(r"/(etcd|kube-apiserver|kube-controller-manager) .*/plane(-\d+)?/")


def on_the_cluster(kubectl: Kubectl) -> list[str]:
    """Deletes namespaces of tests, and the resource's copies; returns their names."""
    there = kubectl("get", "namespaces", "-o", "name").split()
    names = [name for n in there if OURS.fullmatch(name := n.removeprefix("namespace/"))]
    if names:
        kubectl("delete", "namespace", *names, "--wait=true", "--timeout=120s", timeout=130)
    kinds = "validatingadmissionpolicybindings,validatingadmissionpolicies,namespaces,clusterroles"
    gone = kubectl("delete", kinds, "-l", SANDBOX, "--wait=false").splitlines()
    copies = [
        name
        for name in kubectl("get", "crd", "-o", "name").split()
        if re.search(r"/dft[0-9a-f]{8}flows\.dft[0-9a-f]{8}\.test$", name)
    ]
    if copies:
        kubectl("delete", *copies, "--wait=false")
    return names + [line for line in gone if "deleted" in line] + copies


def other_lives() -> list[str]:
    """Takes down the clusters of tests that have ended; returns their folders."""
    gone = []
    for work in _unused(Path(DEFAULT_WORK).parent, "life-"):
        # in a network namespace of its own, or this would remove the bridges of the real one
        subprocess.run(
            ["unshare", "--net", sys.executable, "-m", "tests.cluster.provision", "down"],
            env=os.environ | {"CLUSTER_WORK": work, "CLUSTER_PROVIDER": "native"},
            cwd=ROOT,
            check=True,
        )
        gone.append(work)
    return gone


def databases() -> list[str]:
    """Ends the database servers of tests that have ended; returns their folders."""
    gone = []
    for parent in {MEMORY, Path(tempfile.gettempdir())}:
        for folder in _unused(parent, SERVER_PREFIX):
            with contextlib.suppress(OSError, ValueError, IndexError):
                pid = int((Path(folder) / "postmaster.pid").read_text().split()[0])
                if folder in command_line(pid):
                    stop_pids([pid], first=signal.SIGQUIT, wait=5)
            shutil.rmtree(folder, ignore_errors=True)
            gone.append(folder)
    return gone


def _unused(parent: Path, prefix: str) -> Iterator[str]:
    """Folders of that prefix that nobody works in any more; the file that says so goes then."""
    for file in parent.glob(f"{prefix}*{IN_USE}"):
        with file.open("a") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield str(file).removesuffix(IN_USE)
            file.unlink()


def control_planes() -> list[str]:
    """Ends control planes that no process waits for any more; returns their command lines."""
    found = {}
    for pid in all_processes():
        line = command_line(pid)
        if CONTROL_PLANES.search(line) and _parent(pid) == 1:
            found[pid] = line
    stop_pids(list(found), first=signal.SIGTERM, wait=5)
    return [line[:120] for line in found.values()]


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return 0


def main() -> int:
    """Entry point."""
    kubeconfig, path = cluster_environment()
    gone = on_the_cluster(Kubectl(kubeconfig, path)) + databases()
    if os.geteuid() == 0:
        gone += other_lives() + control_planes()
    for what in gone:
        print(f"left by an earlier run, removed: {what}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
