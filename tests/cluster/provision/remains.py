"""Finds and removes what the native cluster puts into the machine outside its work folder.

Everything that it owns carries its name: processes name the work folder, containers are in its
cgroup, mounts are below the work folder, leases carry its network's name. Pid files are not enough,
because a start or an end may be cut off at any point, and a container outlives its shim.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from . import policies
from .errors import ClusterError
from .processes import all_processes, children, command_line, stop_pids

CGROUPS = Path("/sys/fs/cgroup")
CNI_RESULTS = Path("/var/lib/cni/results")
CONTAINER_LOGS = Path("/var/log/containers")
NFT_TABLES = (("ip", "kube-proxy"), ("ip6", "kube-proxy"))


class Remains:
    """What the cluster in the folder `work` has left, while it runs or after it was cut off."""

    def __init__(self, work: Path, cgroup: str, network: str, bridges: tuple[str, ...]) -> None:
        self.work = work
        self.cgroup = cgroup
        self.network = network
        self.bridges = bridges

    def found(self) -> list[str]:
        """A line for every process, mount, bridge, rule table and control group that is there."""
        return self.named() + [f"nftables table {f} {name}" for f, name in self._tables()]

    def named(self) -> list[str]:
        """The same without what could also belong to a kube-proxy that is not ours."""
        return [
            *(f"process {pid}: {command_line(pid)}" for pid in self.processes()),
            *(f"mount {mount}" for mount in self.mounts()),
            *(f"bridge {bridge}" for bridge in self.bridges if has_link(bridge)),
            *(f"control group {folder}" for folder in self._cgroup_folders()),
        ]

    # -- processes -----------------------------------------------------------------------------

    def processes(self) -> list[int]:
        """Components, shims and containers of this cluster, with or without a pid file."""
        own = {os.getpid(), os.getppid()}
        mark = f"{self.work}/"
        named = [
            pid
            for pid in all_processes()
            if pid not in own
            and mark in (line := command_line(pid))
            and _program(line) in _PROGRAMS
        ]
        return [*named, *(pid for pid in self.contained() if pid not in named)]

    def contained(self) -> list[int]:
        """Processes in the control groups of this cluster's pods."""
        found: set[int] = set()
        for folder in self._cgroup_folders():
            # os.walk passes over what vanishes meanwhile, as the control groups of ended pods do
            for inner, _, _ in os.walk(folder):
                with contextlib.suppress(OSError):
                    text = Path(inner, "cgroup.procs").read_text()
                    found.update(int(pid) for pid in text.split())
        return sorted(found)

    def stop_pods(self) -> None:
        """Kills containers, then ends their shims, which outlive containerd."""
        shims = [
            pid
            for pid in self.processes()
            if _program(command_line(pid)) == "containerd-shim-runc-v2"
        ]
        contained = [child for shim in shims for child in children(shim)] + self.contained()
        stop_pids(contained, first=signal.SIGKILL, wait=2)
        stop_pids(shims, first=signal.SIGTERM, wait=5)

    # -- mounts, network, control groups, files ------------------------------------------------

    def mounts(self) -> list[str]:
        """Mount points below the work folder, deepest first."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        points = [line.split()[4] for line in lines]
        ours = [point for point in points if point.startswith(f"{self.work}/")]
        return sorted(ours, key=len, reverse=True)

    def unmount(self) -> None:
        """Unmounts all of it. Raises ClusterError where a mount stays: its files may be yours."""
        for mount in self.mounts():
            subprocess.run(["umount", "-l", mount], capture_output=True, check=False)
        if left := self.mounts():
            raise ClusterError(
                "these cannot be unmounted, so nothing below them is deleted:\n" + "\n".join(left)
            )

    def remove_network(self) -> None:
        """Removes bridges, kube-proxy's tables, an enforcer's rules, the leases of addresses."""
        if (self.work / "run" / f"{policies.PROCESS}.log").exists():
            policies.remove_rules()
        for bridge in self.bridges:
            if has_link(bridge):
                subprocess.run(["ip", "link", "delete", bridge], capture_output=True, check=False)
        for family, name in self._tables():
            subprocess.run(["nft", "delete", "table", family, name], check=False)
        for result in CNI_RESULTS.glob(f"{self.network}-*"):
            container = result.name.removeprefix(f"{self.network}-").removesuffix("-eth0")
            for path in (result, CNI_RESULTS / f"cni-loopback-{container}-lo"):
                path.unlink(missing_ok=True)

    @staticmethod
    def _tables() -> list[tuple[str, str]]:
        if shutil.which("nft") is None:
            return []
        listed = subprocess.run(
            ["nft", "list", "tables"], capture_output=True, text=True, check=False
        )
        lines = listed.stdout.splitlines()
        return [table for table in NFT_TABLES if f"table {table[0]} {table[1]}" in lines]

    def make_cgroup(self) -> None:
        """Makes the control group that all pods are below, in every hierarchy (v1 and v2)."""
        control = CGROUPS / "cgroup.subtree_control"
        if control.exists():
            there = (CGROUPS / "cgroup.controllers").read_text().split()
            for name in ("cpu", "cpuset", "memory", "hugetlb", "pids", "io"):
                if name in there:
                    with contextlib.suppress(OSError):
                        control.write_text(f"+{name}")
        for hierarchy in _hierarchies():
            (hierarchy / self.cgroup).mkdir(exist_ok=True)

    def _cgroup_folders(self) -> list[Path]:
        folders = [hierarchy / self.cgroup for hierarchy in _hierarchies()]
        return [folder for folder in folders if folder.is_dir()]

    def remove_cgroup(self) -> None:
        """Removes it, waiting up to 5 s for the kernel to let go of what was killed in it."""
        deadline = time.monotonic() + 5
        while left := self._cgroup_folders():
            for top in left:
                inner = [Path(path) for path, _, _ in os.walk(top)][1:]
                for folder in sorted([top, *inner], key=lambda p: len(p.parts), reverse=True):
                    with contextlib.suppress(OSError):
                        folder.rmdir()
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)

    def remove_log_links(self) -> None:
        """Removes kubelet's links to logs, the only files it insists on having elsewhere."""
        for link in CONTAINER_LOGS.glob("*.log"):
            if link.is_symlink() and str(link.readlink()).startswith(f"{self.work}/"):
                link.unlink(missing_ok=True)


_PROGRAMS = frozenset(
    {
        *("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet"),
        *(
            "kube-proxy",
            "kube-router",
            "coredns",
            "containerd",
            "containerd-shim-runc-v2",
            "oidc-provider",
            "storage",
        ),
    }
)


def _program(line: str) -> str:
    return line.split(" ", 1)[0].rsplit("/", 1)[-1]


def _hierarchies() -> list[Path]:
    """The roots of the cgroup hierarchies: one (v2) or one for each controller (v1)."""
    if (CGROUPS / "cgroup.procs").exists():
        return [CGROUPS]
    found = {path.resolve() for path in CGROUPS.iterdir() if (path / "cgroup.procs").exists()}
    return sorted(found)


def has_link(name: str) -> bool:
    """Whether this network namespace has a link of that name.

    Not read from /sys/class/net, which shows the namespace that mounted it.
    """
    done = subprocess.run(["ip", "link", "show", "dev", name], capture_output=True, check=False)
    return done.returncode == 0
