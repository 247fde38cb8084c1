"""What the demo and the API's manual tell people to type is typed here, as it is printed.

The demo's cluster is the one that is there already, so only what comes after its installation runs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples import demo
from tests.cluster.kube import ROOT, Kubectl, cluster_environment
from tests.cluster.product import SAMPLE, Flow, Product

# the printed commands take a fixed port, and the demo a fixed namespace
pytestmark = pytest.mark.alone

EDITOR = ("discoveryflow-edit", "discoveryflow-approve", "view")


@pytest.fixture
def followed(kubectl: Kubectl, capsys: pytest.CaptureFixture[str]) -> Iterator[str]:
    """What the demo has printed when its flow waits for approval."""
    kubectl("delete", "namespace", demo.NAMESPACE, "--ignore-not-found", timeout=120)
    assert demo.demonstrate(demo.SAMPLE, approved=False) == 0
    yield capsys.readouterr().out
    kubectl("delete", "namespace", demo.NAMESPACE, timeout=120)


def block(printed: str, title: str) -> str:
    """The commands below the line that begins so."""
    (found,) = re.findall(rf"^{re.escape(title)}.*\n((?:  .*\n)+)", printed, re.MULTILINE)
    return str(found)


def typed(folder: Path, *commands: str) -> str:
    """What bash prints that is given these lines; fails the test where one of them fails."""
    script = "\n".join(["set -eo pipefail", "trap 'kill $(jobs -p) 2>/dev/null' EXIT", *commands])
    kubeconfig, path = cluster_environment()
    environment = os.environ | {
        "KUBECONFIG": str(kubeconfig),
        # as after `pip install '.[cli]'`
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{path}",
    }
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


# the port-forward, which is the last that went into the background, needs a moment
LISTENS = "until (echo >/dev/tcp/127.0.0.1/8444) 2>/dev/null; do kill -0 $!; sleep 0.2; done"


def test_what_the_demo_says_to_do_next_does_it(followed: str) -> None:
    command_line = block(followed, "By the command line").splitlines()
    shown = [line for line in command_line if "approve" not in line]
    assert len(shown) == len(command_line) - 1
    said = typed(
        ROOT,
        block(followed, "First, in this shell"),
        LISTENS,
        *shown,
        block(followed, "With curl"),
        block(followed, "Then the inventory is built"),
    )
    assert "memory_gb" in said
    (page,) = re.findall(r"https://localhost:8444/flows/[0-9a-f-]{36}(?=/review)", followed)
    assert page in said.splitlines(), "`open` prints the page's address"
    assert '"decision":"Approved"' in said.replace(" ", "")
    assert "condition met" in said


def test_approved_by_itself_the_demo_tells_the_inventory(
    kubectl: Kubectl, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        assert demo.demonstrate(demo.SAMPLE, approved=True) == 0
        told = capsys.readouterr().out
    finally:
        kubectl("delete", "namespace", demo.NAMESPACE, "--ignore-not-found", timeout=120)
    assert re.search(r"Inventory: \d+ assets from 245 rows \(4 rejected\)", told)
    assert re.search(r"^ +\d+  server$", told, re.MULTILINE)
    assert "https://localhost:8444/flows/" in told


def test_the_manual_s_curl_lines_work_as_printed(
    kubectl: Kubectl, product: Product, tmp_path: Path
) -> None:
    """docs/api.md: reading a flow, and making one from a file, as its namespace and people."""
    manual = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    blocks = [
        re.sub(r"^\$ ", "", text, flags=re.MULTILINE)
        for text in re.findall(r"```console\n(.*?)```", manual, re.DOTALL)
        if "curl" in text
    ]
    assert len(blocks) == 2
    kubectl("create", "namespace", "dc-east")
    try:
        inside = kubectl.within("dc-east")
        inside("create", "serviceaccount", "ann")
        for role in EDITOR:
            inside("create", "rolebinding", f"ann-{role}", f"--clusterrole={role}",
                   "--serviceaccount=dc-east:ann")  # fmt: skip
        flow = Flow(inside, product)
        flow.source()
        flow.create()
        flow.wait("Queued", "Running", "AwaitingApproval")
        (tmp_path / "servers.csv").write_text(SAMPLE)
        first = blocks[0].replace("8444 &", f"8444 &\n{LISTENS}")
        said = typed(tmp_path, first, blocks[1])
        assert flow.uid in said
        names = [item["metadata"]["name"] for item in inside.json("get", "dflow")["items"]]
        assert len(names) == 2
    finally:
        kubectl("delete", "namespace", "dc-east", timeout=120)


def test_the_command_line_is_installed_as_the_demo_says() -> None:
    """In the tests' own environment; `tests/unit` tries it in an empty one."""
    assert shutil.which("kubectl-discoveryflow", path=str(Path(sys.executable).parent))
