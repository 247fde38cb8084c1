"""Provider `native`: one real node from plain processes, for machines without Docker.

etcd, the control plane, containerd, kubelet, kube-proxy and CoreDNS run as processes of this
machine, with pods on a bridge. Everything lives below one work folder, which is what makes a
clean end possible: a mount, a shim or a pid that does not mention it is not ours.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from . import binaries, native_config
from .errors import ClusterError
from .pki import CLIENTS, Authority
from .processes import Processes, all_processes, children, command_line, stop_pids

WORK = Path("/var/lib/discoveryflow/cluster")
CONTEXT = "discoveryflow-native"
ADDRESS = "10.251.0.1"
NODE = "node1"
BRIDGE = "dfbr0"
POD_BRIDGE = "dfcni0"
PODS = "10.244.0.0/24"
SERVICES = "10.96.0.0/16"
DEBIAN_PACKAGES = {
    "runc": "runc",
    "nft": "nftables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "iptables": "iptables",
    "ethtool": "ethtool",
    "socat": "socat",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "gcc": "gcc",
    "openssl": "openssl",
    "mount": "mount",
}
SYSCTLS = ("net.ipv4.ip_forward", "net.bridge.bridge-nf-call-iptables")
START_ORDER = (
    "etcd",
    "apiserver",
    "controller-manager",
    "scheduler",
    "containerd",
    "coredns",
    "kubelet",
    "proxy",
)


class Native:
    """The native cluster: `up` and `down` can be called in any state, any number of times."""

    name = "native"

    def __init__(self) -> None:
        self.work = WORK
        self.processes = Processes(WORK / "run", str(WORK))
        self.kubeconfig = WORK / "admin.kubeconfig"
        self.socket = WORK / "containerd" / "containerd.sock"

    # -- up ------------------------------------------------------------------------------------

    def up(self) -> None:
        """Starts what does not run, and waits until the node is ready.

        Raises ClusterError without root, Go or the Debian packages.
        """
        if os.geteuid() != 0:
            raise ClusterError(
                "provider native needs root (it runs containerd and makes bridges).\n"
                "Run it as root, or use --provider kind (a Docker engine) or "
                "--provider existing --context NAME."
            )
        self._install_packages()
        path = binaries.require()
        if self.healthy():
            print("The native cluster is up already.")
            return
        if any(self.processes.pid(name) is None for name in START_ORDER):
            self._clean_up()
        print("Starting the native cluster …", flush=True)
        started = time.monotonic()
        self._network()
        self._files()
        self._start(path)
        print(f"The node is ready after {time.monotonic() - started:.0f} s.")

    def healthy(self) -> bool:
        """Whether every process runs and the node is ready."""
        if any(self.processes.pid(name) is None for name in START_ORDER):
            return False
        return self._kubectl("wait", "--for=condition=Ready", f"node/{NODE}", "--timeout=2s")

    def _kubectl(self, *arguments: str) -> bool:
        kubectl = shutil.which("kubectl", path=binaries.require(("kubernetes",)))
        done = subprocess.run(
            [str(kubectl), f"--kubeconfig={self.kubeconfig}", *arguments],
            capture_output=True,
            check=False,
        )
        return done.returncode == 0

    @staticmethod
    def _install_packages() -> None:
        missing = sorted({pkg for cmd, pkg in DEBIAN_PACKAGES.items() if shutil.which(cmd) is None})
        if not Path("/usr/lib/cni/bridge").exists():
            missing.append("containernetworking-plugins")
        if not missing:
            return
        if shutil.which("apt-get") is None:
            raise ClusterError(f"install these first (there is no apt-get): {', '.join(missing)}")
        print(f"Installing from Debian: {', '.join(missing)} …", flush=True)
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (
            ["apt-get", "update", "-qq"],
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing],
        ):
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                raise ClusterError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")

    def _network(self) -> None:
        if not Path(f"/sys/class/net/{BRIDGE}").exists():
            _run("ip", "link", "add", BRIDGE, "type", "bridge")
            _run("ip", "addr", "add", f"{ADDRESS}/24", "dev", BRIDGE)
        _run("ip", "link", "set", BRIDGE, "up")
        for name in SYSCTLS:
            path = Path("/proc/sys") / name.replace(".", "/")
            saved = self.work / "sysctl" / name
            if path.exists() and not saved.exists():
                saved.parent.mkdir(parents=True, exist_ok=True)
                saved.write_text(path.read_text())
            if path.exists():
                path.write_text("1")

    def _files(self) -> None:
        authority = Authority(self.work / "pki")
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
        addresses = ["127.0.0.1", ADDRESS, "10.96.0.1"]
        authority.issue(
            "apiserver",
            "/CN=kube-apiserver",
            ",".join([f"DNS:{n}" for n in names] + [f"IP:{a}" for a in addresses]),
        )
        for client, subject in CLIENTS.items():
            authority.issue(client, subject, f"DNS:{client}")
        authority.issue(
            "node", f"/O=system:nodes/CN=system:node:{NODE}", f"DNS:{NODE},IP:{ADDRESS}"
        )
        authority.service_account_keys()
        server = f"https://{ADDRESS}:6443"
        for user in (*CLIENTS, "node"):
            authority.kubeconfig(user, server, CONTEXT, self.work / f"{user}.kubeconfig")
        native_config.write(self.work, ADDRESS, NODE, POD_BRIDGE, PODS)

    def _start(self, path: str) -> None:
        environment = {"PATH": f"{path}{os.pathsep}{os.environ['PATH']}"}
        commands = native_config.commands(self.work, ADDRESS, NODE, SERVICES)
        for name in START_ORDER:
            command = commands[name]
            executable = shutil.which(command[0], path=path)
            self.processes.start(name, [str(executable), *command[1:]], environment)
            if name == "apiserver":
                self._wait("the API server", lambda: self._kubectl("get", "--raw", "/readyz"))
            if name == "containerd":
                self._wait("containerd", self.socket.exists)
        self._wait("the node", self.healthy)

    def _wait(self, what: str, ready: object, seconds: float = 120.0) -> None:
        assert callable(ready)
        deadline = time.monotonic() + seconds
        while not ready():
            dead = [
                name
                for name in START_ORDER
                if (self.processes.folder / f"{name}.pid").exists()
                and self.processes.pid(name) is None
            ]
            if dead or time.monotonic() > deadline:
                raise ClusterError(
                    f"{what} did not become ready"
                    + (f"; {', '.join(dead)} ended" if dead else f" in {seconds:.0f} s")
                    + f". Logs: {self.processes.folder}"
                )
            time.sleep(0.25)

    # -- images --------------------------------------------------------------------------------

    def load(self, archive: Path) -> None:
        """Imports a Docker archive into containerd."""
        ctr = shutil.which("ctr", path=binaries.require(("containerd",)))
        _run(str(ctr), "-a", str(self.socket), "-n", "k8s.io", "images", "import", str(archive))

    def has_image(self, reference: str) -> bool:
        """Whether the node has an image of that exact name."""
        ctr = shutil.which("ctr", path=binaries.require(("containerd",)))
        listed = subprocess.run(
            [str(ctr), "-a", str(self.socket), "-n", "k8s.io", "images", "ls", "-q"],
            capture_output=True,
            text=True,
            check=False,
        )
        return reference in listed.stdout.split()

    # -- down ----------------------------------------------------------------------------------

    def down(self) -> None:
        """Ends all processes and removes mounts, bridges, rules and the work folder."""
        self._clean_up()
        self._restore_sysctls()
        if self.work.exists():
            shutil.rmtree(self.work)
        print("The native cluster is gone.")

    def _clean_up(self) -> None:
        """Everything but the keys: also what a cut-off run has left."""
        self.processes.stop("kubelet")
        self.processes.stop("proxy")
        self._stop_pods()
        # an API server whose etcd has gone first ignores SIGTERM and keeps its port
        for name in ("coredns", "scheduler", "controller-manager", "apiserver", "etcd"):
            self.processes.stop(name, wait=15)
        self.processes.stop("containerd")
        self._stop_pods()
        self._stop_strays()
        self._unmount()
        self._remove_network()
        self._remove_cgroups()
        for part in ("containerd", "kubelet", "etcd", "run"):
            shutil.rmtree(self.work / part, ignore_errors=True)

    def _stop_pods(self) -> None:
        """Kills containers and their shims; shims outlive containerd."""
        mark = str(self.work)
        shims = [
            pid
            for pid in all_processes()
            if "containerd-shim-runc-v2" in (line := command_line(pid)) and mark in line
        ]
        containers = [child for shim in shims for child in children(shim)]
        stop_pids(containers, first=signal.SIGKILL, wait=2)
        stop_pids(shims, first=signal.SIGTERM, wait=5)

    def _stop_strays(self) -> None:
        """Processes of this cluster whose pid file is lost."""
        mark = f"{self.work}/"
        known = {os.getpid(), os.getppid()}
        strays = [
            pid
            for pid in all_processes()
            if pid not in known
            and mark in (line := command_line(pid))
            and str(binaries.cache_folder()) in line.split(" ", 1)[0]
        ]
        stop_pids(strays, first=signal.SIGTERM, wait=15)

    def _unmount(self) -> None:
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        ours = [mount for mount in mounts if mount.startswith(f"{self.work}/")]
        for mount in sorted(ours, key=len, reverse=True):
            subprocess.run(["umount", "-l", mount], capture_output=True, check=False)

    @staticmethod
    def _remove_network() -> None:
        for bridge in (POD_BRIDGE, BRIDGE):
            if Path(f"/sys/class/net/{bridge}").exists():
                _run("ip", "link", "delete", bridge)
        if shutil.which("nft"):
            for family in ("ip", "ip6"):
                subprocess.run(
                    ["nft", "delete", "table", family, "kube-proxy"],
                    capture_output=True,
                    check=False,
                )

    def _restore_sysctls(self) -> None:
        for name in SYSCTLS:
            saved = self.work / "sysctl" / name
            if saved.exists():
                (Path("/proc/sys") / name.replace(".", "/")).write_text(saved.read_text())

    @staticmethod
    def _remove_cgroups() -> None:
        for root in Path("/sys/fs/cgroup").glob("**/kubepods"):
            folders = [path for path in root.glob("**/") if path.is_dir()]
            for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
                with contextlib.suppress(OSError):
                    folder.rmdir()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(command)} failed: {done.stderr.strip()}")
