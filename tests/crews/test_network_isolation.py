"""A crew talks to its execution API and its language model, and to nobody else.

The crew runs in a network namespace of its own, whose nftables rules let only those two addresses
through and count what they drop. Needs root; cleans up after itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from discovery_core.wire.protocol import LLMSettings

from tests.crews.fake_execution import FakeExecution
from tests.stubs.llm_server import serve

pytestmark = pytest.mark.netns

NAMESPACE = "dfcrewtest"
HOST, CREW = "10.251.9.1", "10.251.9.2"
ROOT = Path(__file__).resolve().parents[2]
REACH = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2)
except OSError as error:
    print("NOT REACHED", error)
else:
    print("REACHED")
"""


def sh(*command: str, stdin: str | None = None) -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


@pytest.fixture
def cable() -> Iterator[None]:
    """A network namespace with one cable to the host."""
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("nft"):
        pytest.skip("needs root, ip and nft")
    subprocess.run(["ip", "netns", "delete", NAMESPACE], capture_output=True, check=False)
    sh("ip", "netns", "add", NAMESPACE)
    try:
        sh("ip", "link", "add", "dfcrew0", "type", "veth", "peer", "name", "dfcrew1")
        sh("ip", "link", "set", "dfcrew1", "netns", NAMESPACE)
        sh("ip", "addr", "add", f"{HOST}/30", "dev", "dfcrew0")
        sh("ip", "link", "set", "dfcrew0", "up")
        inside = ("ip", "netns", "exec", NAMESPACE)
        sh(*inside, "ip", "addr", "add", f"{CREW}/30", "dev", "dfcrew1")
        sh(*inside, "ip", "link", "set", "dfcrew1", "up")
        sh(*inside, "ip", "link", "set", "lo", "up")
        sh(*inside, "ip", "route", "add", "default", "via", HOST)
        yield
    finally:
        subprocess.run(["ip", "netns", "delete", NAMESPACE], capture_output=True, check=False)
        subprocess.run(["ip", "link", "delete", "dfcrew0"], capture_output=True, check=False)


@pytest.fixture
def llm(cable: None) -> Iterator[ThreadingHTTPServer]:
    """A stub model on the host's end of the cable."""
    server = serve(HOST, 0, "accept")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def execution(llm: ThreadingHTTPServer, tmp_path: Path) -> Iterator[FakeExecution]:
    """An execution API there, too; only these two are let through, the rest is counted."""
    source = tmp_path / "mount" / "servers.csv"
    source.parent.mkdir()
    source.write_text("Server Name,OS\nweb01,Debian 12\n")
    port = llm.server_address[1]
    settings = LLMSettings(
        provider="openaiCompatible",
        model="stub",
        base_url=f"http://{HOST}:{port}/v1",
        timeout_seconds=20,
    )
    with FakeExecution(host=HOST, llm=settings, source_path=str(source)) as fake:
        rules = f"""
        table inet crew {{
          counter dropped {{ }}
          chain out {{
            type filter hook output priority 0; policy accept;
            oifname "lo" accept
            ip daddr {HOST} tcp dport {{ {port}, {fake.port} }} accept
            meta l4proto ipv6-icmp accept
            counter name "dropped" drop
          }}
        }}"""
        sh("ip", "netns", "exec", NAMESPACE, "nft", "-f", "-", stdin=rules)
        yield fake


def _inside(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        ["ip", "netns", "exec", NAMESPACE, sys.executable, *arguments],
        env=os.environ | environment | {"PYTHONPATH": f"{ROOT / 'core'}:{ROOT / 'crews'}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _dropped() -> int:
    listed = sh(
        *("ip", "netns", "exec", NAMESPACE, "nft", "list", "counter", "inet", "crew", "dropped")
    )
    return int(listed.split("packets ")[1].split()[0])


def test_a_crew_connects_to_its_api_and_its_model_only(
    execution: FakeExecution, llm: ThreadingHTTPServer, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(execution.token)
    _inside(
        *("-m", "discovery_crews.runner"),
        DISCOVERY_EXECUTION_URL=execution.url,
        DISCOVERY_EXECUTION_CA=execution.ca_pem,
        DISCOVERY_EXECUTION_TOKEN_FILE=str(tmp_path / "token"),
        DISCOVERY_WORKDIR=str(tmp_path / "work"),
        DISCOVERY_SOURCE_ROOT=str(tmp_path / "mount"),
        HOME=str(tmp_path),
    )
    assert not execution.failed, execution.failed
    (message,) = execution.completed
    assert message.usage.planner == "stub"
    assert message.usage.llm_requests >= 3, "the model was really asked"
    assert _dropped() == 0


def test_the_counter_sees_a_violation(execution: FakeExecution) -> None:
    """Without this, the counter of the test above could be one that never counts."""
    assert "NOT REACHED" in _inside("-c", REACH, HOST, str(execution.port + 1))
    assert _dropped() > 0
