"""The native cluster's own life: started, hurt, revived, taken down without a trace.

It is a second cluster in a network namespace of its own, so that it can be hurt while another one
works beside it, and so that everything the network shows there afterwards was left by `down`. What
is left is looked for here by other means than `down` uses.
"""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.cluster.browsers import namespace
from tests.cluster.provision.binaries import require
from tests.cluster.provision.processes import runs
from tests.postgres import used

# one cluster for all of them, in one process
pytestmark = [pytest.mark.native, pytest.mark.xdist_group("life")]

ROOT = Path(__file__).resolve().parents[2]
COMPONENTS = {
    *("etcd", "apiserver", "controller-manager", "scheduler"),
    *("containerd", "coredns", "kubelet", "proxy", "oidc-provider", "storage"),
}
POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "waiting"},
    "spec": {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "containers": [
            {"name": "pause", "image": "localhost/pause:1", "imagePullPolicy": "Never"},
        ],
    },
}


@dataclass(frozen=True)
class Life:
    """A native cluster in the folder `work`, within the network namespace of process `holder`."""

    work: Path
    holder: int

    def inside(self, *command: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """Runs a command in the cluster's network namespace."""
        return subprocess.run(
            ["nsenter", f"--net=/proc/{self.holder}/ns/net", *command],
            cwd=ROOT,
            env=os.environ | {"CLUSTER_WORK": str(self.work), "CLUSTER_PROVIDER": "native"},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def try_tool(self, action: str) -> subprocess.CompletedProcess[str]:
        """Runs the cluster tool."""
        return self.inside(sys.executable, "-m", "tests.cluster.provision", action)

    def tool(self, action: str) -> str:
        """Runs the cluster tool; fails the test where it fails."""
        done = self.try_tool(action)
        assert done.returncode == 0, f"{action}: {done.stdout}{done.stderr}{self.logs()}"
        return done.stdout

    def try_kubectl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs kubectl as admin."""
        kubectl = f"{require(('kubernetes',))}/kubectl"
        config = f"--kubeconfig={self.work}/admin.kubeconfig"
        return self.inside(kubectl, config, "--request-timeout=10s", *arguments)

    def kubectl(self, *arguments: str) -> str:
        """Runs kubectl as admin; fails the test where it fails."""
        done = self.try_kubectl(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout

    def logs(self) -> str:
        """The end of every component's log."""
        files = sorted((self.work / "run").glob("*.log"))
        return "\n".join(f"== {file.name}\n{file.read_text()[-1500:]}" for file in files)

    def state(self) -> str:
        """What runs, the node as the API server sees it, and the end of every log."""
        node = self.try_kubectl("get", "node", "-o", "yaml")
        running = {name: _command(pid)[:60] for name, pid in self.pids().items()}
        return f"{running}\n{node.stdout}{node.stderr}{self.logs()}"

    def pids(self) -> dict[str, int]:
        """What the pid files say."""
        return {f.stem: int(f.read_text()) for f in (self.work / "run").glob("*.pid")}

    def kill(self, *components: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Signals components and, where that ends them, waits until they are gone."""
        pids = self.pids()
        for name in components:
            os.kill(pids[name], number)
        if number is signal.SIGKILL:
            until(lambda: not any(runs(pids[name]) for name in components), "they end")

    def run_pod(self) -> None:
        """A pod that waits, and a ConfigMap to be remembered."""
        manifest = self.work / "pod.json"
        manifest.write_text(json.dumps(POD))
        until(lambda: "default" in self.kubectl("get", "serviceaccounts"), "a ServiceAccount")
        self.kubectl("apply", "-f", str(manifest))
        self.kubectl("wait", "--for=condition=Ready", "pod/waiting", "--timeout=60s")

    def processes(self) -> list[str]:
        """Every process that names the work folder, or runs in the pods' control group."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            if "State:\tZ" in _read(entry / "status"):
                continue  # dead; whoever runs as init has not collected it yet
            line = _command(int(entry.name))
            if str(self.work) in line or self.group in _read(entry / "cgroup"):
                found.append(f"{entry.name} {line}")
        return found

    @property
    def group(self) -> str:
        return f"/discoveryflow-{self.work.name}"


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _command(pid: int) -> str:
    return _read(Path(f"/proc/{pid}/cmdline")).replace("\0", " ").strip()


def until(
    true: Callable[[], object],
    what: str,
    seconds: float = 30,
    why: Callable[[], str] = lambda: "",
) -> None:
    """Waits for something to become true; where it does not, `why` tells more."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}\n{why()}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def life() -> Iterator[Life]:
    assert os.geteuid() == 0, "the native cluster needs root"
    require()  # building what is missing takes minutes; a test should not
    work = Path(f"/var/lib/discoveryflow/life-{uuid4().hex[:8]}")
    work.parent.mkdir(parents=True, exist_ok=True)
    with used(str(work)), namespace() as holder:
        life = Life(work, holder)
        life.inside("ip", "link", "set", "lo", "up")
        life.inside("sysctl", "-w", "net.ipv4.ip_forward=0")
        try:
            yield life
        finally:
            life.try_tool("down")
            work.with_name(f".{work.name}.lock").unlink(missing_ok=True)


@pytest.fixture
def cluster(life: Life) -> Life:
    """The cluster, up, with a pod and a ConfigMap in it."""
    life.tool("up")
    life.run_pod()
    if "memory" not in life.kubectl("get", "configmaps"):
        life.kubectl("create", "configmap", "memory")
    return life


def _restarts(cluster: Life) -> str:
    path = "jsonpath={.status.containerStatuses[0].containerID}"
    return cluster.kubectl("get", "pod", "waiting", "-o", path)


def test_up_again_finds_all_of_it_running_and_changes_nothing(cluster: Life) -> None:
    before = cluster.pids()
    assert set(before) == COMPONENTS
    started = time.monotonic()
    assert "up already" in cluster.tool("up")
    assert time.monotonic() - started < 5
    assert cluster.pids() == before
    assert "native: up" in cluster.tool("status")


@pytest.mark.parametrize(
    "killed",
    [
        *(
            pytest.param(names, marks=pytest.mark.exhaustive)
            for names in (("kubelet",), ("etcd",), ("coredns", "scheduler"))
        ),
        tuple(sorted(COMPONENTS)),
    ],
    ids=lambda names: "everything" if len(names) == len(COMPONENTS) else "+".join(names),
)
def test_up_revives_what_died_and_keeps_what_was_there(
    cluster: Life, killed: tuple[str, ...]
) -> None:
    container = _restarts(cluster)
    cluster.kill(*killed)
    assert cluster.try_tool("status").returncode == 1
    output = cluster.tool("up")
    assert all(name in output.split("not running:")[1] for name in killed)
    assert "anew" not in output, output
    assert cluster.try_tool("status").returncode == 0, cluster.state()
    assert "memory" in cluster.kubectl("get", "configmaps")
    cluster.kubectl("wait", "--for=condition=Ready", "pod/waiting", "--timeout=60s")
    assert _restarts(cluster) == container, "the pod's container was not left alone"


def test_up_revives_a_component_that_hangs(cluster: Life) -> None:
    cluster.kill("apiserver", number=signal.SIGSTOP)
    started = time.monotonic()
    assert cluster.try_tool("status").returncode == 1
    assert time.monotonic() - started < 20
    assert "yet it does not answer" in cluster.tool("up")
    assert "memory" in cluster.kubectl("get", "configmaps")


@pytest.mark.exhaustive
def test_up_starts_a_component_again_that_runs_with_other_arguments(cluster: Life) -> None:
    """As after a change of the tool: a cluster that was up gets the new settings, and is kept."""
    trusts = "--authentication-config="
    pid = cluster.pids()["apiserver"]
    arguments = _read(Path(f"/proc/{pid}/cmdline")).split("\0")[:-1]
    without = [argument for argument in arguments if not argument.startswith(trusts)]
    assert len(without) < len(arguments)
    cluster.kill("apiserver")
    with (cluster.work / "run" / "apiserver.log").open("ab") as log:
        older = subprocess.Popen(
            ["nsenter", f"--net=/proc/{cluster.holder}/ns/net", *without],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (cluster.work / "run" / "apiserver.pid").write_text(str(older.pid))
    until(
        lambda: cluster.try_tool("status").returncode == 0,
        "the older API server answers",
        60,
        cluster.state,
    )
    assert "with other arguments than now: apiserver" in cluster.tool("up")
    assert trusts in _command(cluster.pids()["apiserver"])
    assert older.wait(10) is not None
    assert "memory" in cluster.kubectl("get", "configmaps")


def test_up_starts_anew_where_the_data_is_spoilt_and_says_so(cluster: Life) -> None:
    cluster.kill("etcd", "apiserver")
    for file in (cluster.work / "etcd" / "member").rglob("*"):
        if file.is_file():
            file.write_bytes(b"spoilt")
    assert "Starting anew, with nothing in it" in cluster.tool("up")
    assert "memory" not in cluster.kubectl("get", "configmaps")
    cluster.run_pod()


def test_a_claim_keeps_its_data_when_all_of_it_is_stopped_and_started(cluster: Life) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "kept"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }
    pod = copy.deepcopy(POD)
    pod["metadata"]["name"] = "writer"
    pod["spec"]["volumes"] = [{"name": "v", "persistentVolumeClaim": {"claimName": "kept"}}]
    pod["spec"]["containers"][0]["volumeMounts"] = [{"name": "v", "mountPath": "/v"}]
    manifest = cluster.work / "claim.json"
    manifest.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [claim, pod]}))
    cluster.kubectl("apply", "-f", str(manifest))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/writer", "--timeout=60s")
    (folder,) = (cluster.work / "volumes").iterdir()
    (folder / "data").write_text("kept")

    assert "stopped" in cluster.tool("stop")
    assert cluster.processes() == []
    assert _traces(cluster)["mounts"] == []
    assert cluster.try_tool("status").returncode == 1
    assert "anew" not in cluster.tool("up")
    assert "memory" in cluster.kubectl("get", "configmaps")
    path = "jsonpath={.status.containerStatuses[0].restartCount}"
    until(
        lambda: cluster.kubectl("get", "pod", "writer", "-o", path) == "1",
        "the pod's container is started again",
        60,
    )
    cluster.kubectl("wait", "--for=condition=Ready", "pod/writer", "--timeout=60s")
    assert (folder / "data").read_text() == "kept"

    cluster.kubectl("delete", "pod/writer", "pvc/kept", "--grace-period=0", "--force")
    until(lambda: not folder.exists(), "the folder goes with its claim", 60)


def _traces(life: Life) -> dict[str, object]:
    """What can be seen of the cluster from outside."""
    groups = Path("/sys/fs/cgroup").glob(f"**{life.group}")
    links = json.loads(life.inside("ip", "-json", "link").stdout)
    rules = life.inside("iptables-save").stdout.splitlines()
    logs = [link for link in Path("/var/log/containers").glob("*") if link.is_symlink()]
    return {
        "processes": life.processes(),
        "mounts": [
            line for line in _read(Path("/proc/mounts")).splitlines() if life.work.name in line
        ],
        "control groups": [str(group) for group in groups],
        "links": [link["ifname"] for link in links if link["ifname"] != "lo"],
        "nftables": life.inside("nft", "list", "tables").stdout.split("\n")[:-1],
        "iptables": [rule for rule in rules if rule.startswith("-A") or "KUBE" in rule],
        "forwarding": life.inside("sysctl", "-n", "net.ipv4.ip_forward").stdout.strip(),
        "leases": [str(p) for p in Path("/var/lib/cni").rglob(f"*{life.group[1:]}*")],
        "log links": [str(link) for link in logs if str(life.work) in str(link.readlink())],
        "folder": life.work.exists(),
    }


_LISTS = ("processes", "mounts", "control groups", "links", "nftables", "leases", "log links")
NOTHING = {**{name: [] for name in (*_LISTS, "iptables")}, "forwarding": "0", "folder": False}


def test_down_leaves_nothing_behind(cluster: Life) -> None:
    before = _traces(cluster)
    for trace in _LISTS:
        assert before[trace], f"the test cannot see the cluster's {trace}"
    assert before["forwarding"] == "1"
    cluster.tool("down")
    assert _traces(cluster) == NOTHING


def test_down_twice_is_fine(life: Life) -> None:
    life.tool("down")
    assert "There is no native cluster" in life.tool("down")


def test_down_ends_what_a_cut_off_run_left_without_pid_files(cluster: Life) -> None:
    pids = cluster.pids()
    cluster.kill("kubelet", "containerd", "apiserver")
    shims = [line for line in cluster.processes() if "containerd-shim" in line]
    assert shims
    for line in shims:
        os.kill(int(line.split()[0]), signal.SIGKILL)
    for file in (cluster.work / "run").glob("*.pid"):
        file.unlink()
    left = cluster.processes()
    assert any(line.startswith(f"{pids['etcd']} ") for line in left)
    assert any("/pause" in line for line in left), "no container outlived its shim"
    cluster.tool("down")
    assert _traces(cluster) == NOTHING
