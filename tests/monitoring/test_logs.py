"""One attempt is followed through the logs of three processes by the same fields."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from discovery_core.wire.protocol import TOKEN_AUDIENCE

from tests.monitoring.background import until
from tests.monitoring.conftest import Installation
from tests.monitoring.kubernetes import REVIEWS
from tests.monitoring.processes import ApiProcess, OperatorProcess

pytestmark = pytest.mark.slow

FIELDS = ("flow", "tenant", "namespace", "round", "phase", "attempt")
# what the runner does once it holds the attempt is another test's matter
RUNNER = """
import sys
from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_crews import runner

def fails(context):
    raise DiscoveryError(ErrorCode.EMPTY_FILE, "the file is empty")

runner.import_crewai = lambda: 0.1
runner.load_phase = lambda phase: fails
sys.exit(runner.main())
"""


def about(lines: list[dict[str, Any]], event: str) -> dict[str, str]:
    """What the first line of that event is about."""
    line = next(line for line in lines if line["event"] == event)
    return {name: str(line.get(name)) for name in FIELDS}


def crew_pod(installation: Installation, job: dict[str, Any]) -> None:
    """The Job's pod, and whose token is sent."""
    uid = str(uuid4())
    owner = {
        "apiVersion": "batch/v1", "kind": "Job", "name": job["metadata"]["name"],
        "uid": job["metadata"]["uid"], "controller": True,
    }  # fmt: skip
    pod = installation.background.run(
        installation.kubernetes.put("pods", "team-a", "crew-pod", status={"phase": "Running"})
    )
    pod["metadata"] |= {"uid": uid, "ownerReferences": [owner]}
    REVIEWS["tokenreviews"] = {
        "authenticated": True,
        "audiences": [TOKEN_AUDIENCE],
        "user": {
            "username": "system:serviceaccount:team-a:discoveryflow-crew",
            "extra": {
                "authentication.kubernetes.io/pod-name": ["crew-pod"],
                "authentication.kubernetes.io/pod-uid": [uid],
            },
        },
    }


def run_crew(api: ApiProcess, folder: Path) -> list[dict[str, Any]]:
    """The runner's log."""
    source = folder / "source" / "servers.csv"
    source.parent.mkdir()
    source.write_text("name\nweb01\n")
    (folder / "crew-token").write_text("crew-token")
    environment = os.environ | {
        "DISCOVERY_EXECUTION_URL": f"https://localhost:{api.https}",
        "DISCOVERY_EXECUTION_CA_FILE": str(folder / "ca.crt"),
        "DISCOVERY_EXECUTION_TOKEN_FILE": str(folder / "crew-token"),
        "DISCOVERY_WORKDIR": str(folder / "work"),
        "DISCOVERY_SOURCE_ROOT": "/",
    }
    done = subprocess.run(
        [sys.executable, "-c", RUNNER],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 0, lines
    return lines


def test_one_attempt_in_three_logs(installation: Installation, tmp_path: Path) -> None:
    kubernetes = installation.kubernetes
    operator = OperatorProcess(
        tmp_path / "operator", database=installation.url("operator"),
        kubeconfig=kubernetes.kubeconfig(),
    )  # fmt: skip
    api = ApiProcess(
        "discovery_api.execution", tmp_path, database=installation.url("execution"),
        kubernetes=kubernetes.url,
    )  # fmt: skip
    try:
        api.wait_ready()
        flow = installation.apply("servers")
        (job,) = until(
            lambda: [raw for (kind, *_), raw in kubernetes.objects.items() if kind == "jobs"],
            60,
            lambda: operator.text,
        )
        crew_pod(installation, job)
        crew = run_crew(api, tmp_path)
        until(lambda: "FailAttempt" in operator.text, 30, lambda: operator.text)
        expected = {
            "flow": str(flow),
            "tenant": kubernetes.get("namespaces", "", "team-a")["metadata"]["uid"],
            "namespace": "team-a",
            "round": "1",
            "phase": "data_import",
            "attempt": "1",
        }
        assert about(crew, "claimed") == about(crew, "failed") == expected
        assert about(api.lines(), "request") == expected
        actions = [line for line in operator.lines() if line["event"] == "action"]
        last = [line for line in actions if line["action"] == "FailAttempt"]
        assert about(last, "action") == expected
        assert {line["component"] for line in crew} == {"crews"}
        assert {line["component"] for line in api.lines()} == {"execution-api"}
        assert {line["component"] for line in operator.lines()} == {"operator"}
        whole = f"{operator.text}{api.text}{crew}"
        assert "crew-token" not in whole.replace(str(tmp_path / "crew-token"), "")
    finally:
        REVIEWS.pop("tokenreviews", None)
        operator.close()
        api.close()


def test_a_flow_s_lines_do_not_carry_what_was_bound_for_another(
    installation: Installation, tmp_path: Path
) -> None:
    """A worker takes one flow after the other; a flow that is new to it has no attempt yet."""
    operator = OperatorProcess(
        tmp_path, database=installation.url("operator"),
        kubeconfig=installation.kubernetes.kubeconfig(), DISCOVERY_WORKERS="1",
    )  # fmt: skip
    try:
        operator.wait_ready()
        flows = {str(installation.apply(f"flow-{number}", "team-b")): number for number in range(6)}
        until(
            lambda: sum(line.get("action") == "Register" for line in operator.lines()) >= 6,
            60,
            lambda: operator.text,
        )
        lines = [line for line in operator.lines() if line.get("flow") in flows]
        for line in lines:
            if "flow_name" in line:
                assert line["flow_name"] == f"flow-{flows[line['flow']]}"
        first = [line for line in lines if line.get("action") == "Register"]
        assert [line for line in first if {"flow_name", "attempt"} & line.keys()] == []
        assert [line for line in lines if "flow_name" in line]
    finally:
        operator.close()
