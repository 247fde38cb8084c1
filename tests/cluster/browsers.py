"""A browser on a network that stays as it is, beside pods whose interfaces come and go.

Chromium gives up what it loads as soon as any interface of the machine appears or vanishes
(ERR_NETWORK_CHANGED), and on the native cluster each crew pod has one. So the browser gets a
network namespace of its own with one interface, whose other end is where pages are forwarded to.
Elsewhere pods are not on the machine's network, and the browser runs as it is.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.cluster.provision.__main__ import chosen
from tests.ui.browser import ARGUMENTS, EXECUTABLE

HERE, THERE = "10.251.1.1", "10.251.1.2"
LINK = "dfweb0"
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Network:
    """Where a browser runs: the command that starts it, and the address of this machine there."""

    executable: str
    address: str


@contextmanager
def network(folder: Path) -> Iterator[Network]:
    """The browser's network, until the block ends. One at a time."""
    if chosen().name != "native":
        yield Network(EXECUTABLE, LOOPBACK)
        return
    with namespace() as holder:
        _connect(holder)
        script = folder / "chromium"
        script.write_text(
            f'#!/bin/sh\nexec nsenter --net=/proc/{holder}/ns/net {EXECUTABLE} "$@"\n'
        )
        script.chmod(0o755)
        yield Network(str(script), HERE)


@contextmanager
def namespace() -> Iterator[int]:
    """The pid of a process in a network namespace of its own; both go with this process."""
    own = Path("/proc/self/ns/net").readlink()
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"]
    holder = subprocess.Popen(command)
    deadline = time.monotonic() + 30
    try:
        while Path(f"/proc/{holder.pid}/ns/net").readlink() == own:
            assert time.monotonic() < deadline, "no network namespace"
            time.sleep(0.05)
        yield holder.pid
    finally:
        holder.kill()
        holder.wait()


def _connect(holder: int) -> None:
    """A pair of interfaces; it goes with the namespace that holds one of them."""
    inside = ("nsenter", f"--net=/proc/{holder}/ns/net")
    # of a namespace that the kernel has not taken down yet
    subprocess.run(["ip", "link", "delete", LINK], capture_output=True, check=False)
    for command in (
        ("ip", "link", "add", LINK, "type", "veth", "peer", "name", "eth0", "netns", str(holder)),
        ("ip", "addr", "add", f"{HERE}/30", "dev", LINK),
        ("ip", "link", "set", LINK, "up"),
        (*inside, "ip", "link", "set", "lo", "up"),
        (*inside, "ip", "addr", "add", f"{THERE}/30", "dev", "eth0"),
        (*inside, "ip", "link", "set", "eth0", "up"),
        (*inside, "ip", "route", "add", "default", "via", HERE),
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


@contextmanager
def chromium(place: Network, *more: str) -> Iterator[Browser]:
    """A Chromium in that network."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=place.executable, args=[*ARGUMENTS, *more]
        )
        yield launched
        launched.close()
