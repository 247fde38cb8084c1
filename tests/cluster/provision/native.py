"""Provider `native`: one real node from plain processes, for machines without Docker.

etcd, an identity provider, the control plane, containerd, kubelet, kube-proxy and CoreDNS run as
processes of this machine, with pods on a bridge. Everything lives below one work folder, which is
what makes a clean end possible: a mount, a shim or a pid that does not mention it is not ours.
CLUSTER_WORK names another folder: another cluster, which needs a network namespace of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from . import binaries, native_config
from .errors import ClusterError
from .locks import exclusive
from .pki import CLIENTS, Authority
from .processes import Processes, command_line, stop_pids
from .remains import Remains, has_link

DEFAULT_WORK = "/var/lib/discoveryflow/cluster"
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
BRIDGED = Path("/proc/sys/net/bridge")
START_ORDER = (
    "etcd",
    "oidc-provider",
    "apiserver",
    "controller-manager",
    "scheduler",
    "storage",
    "containerd",
    "coredns",
    "kubelet",
    "proxy",
)


class Native:
    """The native cluster: `up` and `down` can be called in any state, any number of times."""

    name = "native"
    repository = "localhost/discoveryflow"

    def __init__(self, work: Path | None = None) -> None:
        self.work = work or Path(os.environ.get("CLUSTER_WORK", DEFAULT_WORK))
        self.processes = Processes(self.work / "run", f"{self.work}/")
        self.kubeconfig = self.work / "admin.kubeconfig"
        self.socket = self.work / "containerd" / "containerd.sock"
        self.remains = Remains(
            self.work,
            native_config.cgroup_name(self.work),
            native_config.network_name(self.work),
            (POD_BRIDGE, BRIDGE),
        )

    # -- up ------------------------------------------------------------------------------------

    def up(self) -> None:
        """Starts the cluster, or brings back what of it does not run, and waits for the node.

        A component that runs with other arguments than it would get now is started again.

        A cluster that was running keeps what was in it; where it cannot be revived it is started
        anew, empty. Raises ClusterError without root, Go or the Debian packages.
        """
        if os.geteuid() != 0:
            raise ClusterError(
                "provider native needs root (it runs containerd and makes bridges).\n"
                "Run it as root, or use --provider kind (a Docker engine) or "
                "--provider existing --context NAME."
            )
        self.install_packages(DEBIAN_PACKAGES)
        path = binaries.require()
        with self._alone():
            if self.healthy() and not self._outdated(path):
                print("The native cluster is up already.")
                return
            started = time.monotonic()
            if not self._revive(path):
                self._clean_up()
                print("Starting the native cluster …", flush=True)
                self._start(path, 120)
            print(f"The node is ready after {time.monotonic() - started:.0f} s.")

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        lock = self.work.with_name(f".{self.work.name}.lock")
        return exclusive(lock, "starts or stops the native cluster")

    def healthy(self) -> bool:
        """Whether every process runs and the node is ready."""
        if self.processes.missing(START_ORDER):
            return False
        return self._kubectl("wait", "--for=condition=Ready", f"node/{NODE}", "--timeout=5s")

    def _commands(self, path: str) -> dict[str, list[str]]:
        """Command line of each component, with the executable's whole path."""
        commands = native_config.commands(self.work, ADDRESS, NODE, SERVICES)
        return {
            name: [str(shutil.which(command[0], path=path)), *command[1:]]
            for name, command in commands.items()
        }

    def _outdated(self, path: str) -> list[str]:
        """Components that were started in another version or with other arguments."""
        return [
            name
            for name, command in self._commands(path).items()
            if (pid := self.processes.pid(name)) is not None
            and command_line(pid) != " ".join(command)
        ]

    def _forget_readiness(self) -> None:
        """Makes a revived node count as ready only once its new kubelet says so."""
        stale = '{"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}'
        self._kubectl("patch", "node", NODE, "--subresource=status", "--patch", stale)

    def _apply(self, manifest: Mapping[str, object]) -> None:
        file = self.work / "manifest.json"
        file.write_text(json.dumps(manifest))
        if not self._kubectl("apply", "--server-side", "--force-conflicts", "-f", str(file)):
            raise ClusterError(f"the API server does not take {file}")

    def _answers(self) -> bool:
        return self._kubectl("get", "--raw", "/readyz")

    def _kubectl(self, *arguments: str) -> bool:
        kubectl = shutil.which("kubectl", path=binaries.require(("kubernetes",)))
        command = [str(kubectl), f"--kubeconfig={self.kubeconfig}", "--request-timeout=5s"]
        try:
            done = subprocess.run(
                [*command, *arguments], capture_output=True, check=False, timeout=15
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    def _revive(self, path: str) -> bool:
        """Restarts every component over the data that is there. False where that is no use."""
        if not (self.work / "etcd" / "member").is_dir():
            return False
        missing = ", ".join(self.processes.missing(START_ORDER))
        outdated = ", ".join(self._outdated(path))
        if missing:
            reason = f"not running: {missing}"
        elif outdated:
            reason = f"running with other arguments than now: {outdated}"
        else:
            reason = "not running: none, yet it does not answer"
        print(f"Restarting the native cluster; {reason}.", flush=True)
        self._stop_components()
        try:
            self._start(path, 60)
        except ClusterError as error:
            print(f"It cannot be revived: {error}", flush=True)
            print("Starting anew, with nothing in it.", flush=True)
            return False
        return True

    @staticmethod
    def install_packages(wanted: Mapping[str, str]) -> None:
        """Installs Debian's packages by command, where one of the commands is missing."""
        missing = sorted({pkg for cmd, pkg in wanted.items() if shutil.which(cmd) is None})
        if not Path("/usr/lib/cni/bridge").exists():
            missing.append("containernetworking-plugins")
        if not BRIDGED.exists() and shutil.which("modprobe") is None:
            missing.append("kmod")
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
        if not has_link(BRIDGE):
            _run("ip", "link", "add", BRIDGE, "type", "bridge")
        _run("ip", "addr", "replace", f"{ADDRESS}/24", "dev", BRIDGE)
        _run("ip", "link", "set", BRIDGE, "up")
        if not BRIDGED.exists() and shutil.which("modprobe"):
            subprocess.run(["modprobe", "br_netfilter"], capture_output=True, check=False)
        if not BRIDGED.exists():
            raise ClusterError(
                "the kernel module br_netfilter is missing, without which pods cannot reach "
                "Services.\nTry `modprobe br_netfilter`, or use --provider kind."
            )
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
        authority.issue("oidc-provider", "/CN=oidc-provider", f"IP:{ADDRESS}")
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

    def _start(self, path: str, seconds: float) -> None:
        """Starts what does not run, within `seconds` for each wait."""
        self._network()
        self._files()
        self.remains.make_cgroup()
        environment = {"PATH": f"{path}{os.pathsep}{os.environ['PATH']}"}
        commands = self._commands(path)

        def start(name: str) -> None:
            self.processes.start(name, commands[name], environment)

        def ready() -> bool:
            start("kubelet")  # it gives up where containerd listens, but is not quite ready
            return self.healthy()

        for name in START_ORDER:
            start(name)
            if name == "apiserver":
                self._wait("the API server", self._answers, seconds)
                self._forget_readiness()
                self._apply(native_config.STORAGE_CLASS)
            if name == "containerd":
                self._wait("containerd", self._containerd_listens, seconds)
        self._wait("the node", ready, seconds, may_end=("kubelet",))

    def _containerd_listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self.socket)) == 0

    def _wait(
        self, what: str, ready: Callable[[], bool], seconds: float, may_end: tuple[str, ...] = ()
    ) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            started = [n for n in START_ORDER if (self.processes.folder / f"{n}.pid").exists()]
            ended = self.processes.missing(started)
            if set(ended) - set(may_end) or time.monotonic() > deadline:
                ends = "".join(self.processes.last_words(name) for name in ended)
                raise ClusterError(
                    f"{what} did not become ready"
                    + (f"; {', '.join(ended)} ended" if ended else f" in {seconds:.0f} s")
                    + f". Logs: {self.processes.folder}{ends}"
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
        """Ends all processes and removes mounts, bridges, rules and the work folder.

        Raises ClusterError naming what is left, if anything is.
        """
        if not self.work.exists() and not self.remains.named():
            print("There is no native cluster.")
            return
        if os.geteuid() != 0:
            raise ClusterError("only root can take the native cluster down")
        with self._alone():
            self._clean_up()
            self._restore_sysctls()
            shutil.rmtree(self.work, ignore_errors=True)
            if left := self.remains.found():
                raise ClusterError("could not be removed:\n" + "\n".join(left))
        print("The native cluster is gone.")

    def _stop_components(self) -> None:
        for name in (
            *("kubelet", "proxy", "coredns", "storage", "scheduler", "controller-manager"),
            "oidc-provider",
        ):
            self.processes.stop(name)
        # an API server whose etcd has gone first ignores SIGTERM and keeps its port
        self.processes.stop("apiserver", wait=15 if self.processes.pid("etcd") else 0.5)
        for name in ("etcd", "containerd"):
            self.processes.stop(name, wait=15)

    def stop(self) -> None:
        """Ends all processes, as a machine does that is switched off; `up` goes on from there."""
        if os.geteuid() != 0:
            raise ClusterError("only root can stop the native cluster")
        with self._alone():
            self._end()
            self._restore_sysctls()
        print("The native cluster is stopped; `up` starts it again with what is in it.")

    def _clean_up(self) -> None:
        """Everything but the keys and the saved settings: also what a cut-off run has left."""
        self._end()
        for part in ("containerd", "kubelet", "etcd", "cni", "logs", "run", "volumes"):
            shutil.rmtree(self.work / part, ignore_errors=True)

    def _end(self) -> None:
        """Ends every process and takes away what the network and the kernel have of it."""
        self.processes.stop("kubelet")  # or it would start again what is stopped next
        self.remains.stop_pods()
        self._stop_components()
        self.remains.stop_pods()
        stop_pids(self.remains.processes(), first=signal.SIGTERM, wait=15)
        self.remains.unmount()
        self.remains.remove_network()
        self.remains.remove_cgroup()
        self.remains.remove_log_links()

    def _restore_sysctls(self) -> None:
        for name in SYSCTLS:
            saved = self.work / "sysctl" / name
            if saved.exists():
                (Path("/proc/sys") / name.replace(".", "/")).write_text(saved.read_text())


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(command)} failed: {done.stderr.strip()}")
