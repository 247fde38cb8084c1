"""Has the native cluster enforce NetworkPolicies for a while, since its bridge does not.

kube-router's firewall does it, as another process beside kube-proxy: it writes iptables rules for
each pod that a policy selects. It is for one test run and not always on, because what other tests
may reach would then depend on a policy of theirs.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from typing import TYPE_CHECKING

from . import binaries
from .errors import ClusterError

if TYPE_CHECKING:
    from .native import Native

PROCESS = "kube-router"
CHAINS = ("KUBE-ROUTER-", "KUBE-NWPLCY-", "KUBE-POD-FW-")
SETS = ("KUBE-SRC-", "KUBE-DST-")
START_SECONDS = 30.0


def enforce(native: Native, node: str, services: str) -> None:
    """Enforces policies from now on; `services` is the range of their addresses.

    Raises ClusterError where the cluster does not run, or the enforcer does not start.
    """
    if not native.healthy():
        raise ClusterError("the native cluster does not run; start it with the action `up`")
    native.install_packages({"ipset": "ipset", "iptables": "iptables"})
    program = shutil.which(PROCESS, path=binaries.require((PROCESS,)))
    command = [
        *(str(program), f"--kubeconfig={native.kubeconfig}", f"--hostname-override={node}"),
        *("--run-firewall=true", "--run-router=false", "--run-service-proxy=false"),
        *(f"--service-cluster-ip-range={services}", "--enable-ipv6=false", "--health-port=0"),
    ]
    native.processes.start(PROCESS, command, {})
    deadline = time.monotonic() + START_SECONDS
    while not _rules():
        if native.processes.pid(PROCESS) is None or time.monotonic() > deadline:
            words = native.processes.last_words(PROCESS)
            raise ClusterError(f"kube-router wrote no rules in {START_SECONDS:.0f} s{words}")
        time.sleep(0.2)


def release(native: Native) -> None:
    """Enforces none any more, and leaves no rule."""
    native.processes.stop(PROCESS)
    remove_rules()


def remove_rules() -> None:
    """Removes kube-router's rules and sets, and nobody else's; its own clean-up needs IPVS."""
    if shutil.which("iptables-save") is None:
        return
    saved = _output("iptables-save")
    kept = [line for line in saved.splitlines() if not any(chain in line for chain in CHAINS)]
    if len(kept) < len(saved.splitlines()):
        _output("iptables-restore", given="\n".join(kept) + "\n")
    if shutil.which("ipset") is not None:
        for name in _output("ipset", "list", "-n").split():
            if name.startswith(SETS):
                _output("ipset", "destroy", name)


def _rules() -> bool:
    return CHAINS[0] in _output("iptables", "-S", "FORWARD")


def _output(*command: str, given: str = "") -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout
