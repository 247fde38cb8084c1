"""What the demo's PostgreSQL holds outlives its pod and the machine, and a waiting flow goes on.

Everything else of the product keeps its state there, so this is what "nothing is lost" rests on.
"""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pytest

from tests.cluster.inventory import HAPPY, answer, assert_no_orphan
from tests.cluster.kube import ROOT, Kubectl, eventually
from tests.cluster.outages import COMPONENTS, rolled_out
from tests.cluster.product import DATABASE_POD, Flow, Product

# these end the database, or what it holds, or all of it
pytestmark = pytest.mark.alone


@pytest.fixture
def waiting(flow: Flow) -> Flow:
    """A flow that waits for approval."""
    flow.to_gate()
    return flow


def back(product: Product, before: str) -> None:
    """Waits until another PostgreSQL answers than the one with that start time."""
    started = "SELECT pg_postmaster_start_time()"
    probe = ("exec", DATABASE_POD, "--", "psql", "-U", "postgres", "-h", "/var/run/postgresql")
    eventually(
        lambda: (
            (told := product.kubectl.try_(*probe, "-At", "-c", started)).ok
            and told.stdout.strip() != before
        ),
        seconds=120,
        what="PostgreSQL is there again",
    )
    for component in COMPONENTS:
        rolled_out(product, component)


def goes_on(flow: Flow) -> None:
    """The same question is open, and its answer leads to the inventory."""
    assert flow.status()["state"] == "AwaitingApproval"
    answer(flow)
    flow.wait("Succeeded", seconds=180)
    assert flow.history() == HAPPY
    assert_no_orphan(flow)


def test_the_database_s_pod_is_deleted(waiting: Flow, product: Product) -> None:
    ((before,),) = product.sql("SELECT pg_postmaster_start_time()")
    product.kubectl("delete", "pod", DATABASE_POD, timeout=120)
    back(product, before)
    goes_on(waiting)


def test_an_emptied_database_is_told_and_filled_again(waiting: Flow, product: Product) -> None:
    """Operator and APIs go on without a restart; the flow, unknown now, begins anew."""
    request = waiting.status()["approvalRequest"]["requestId"]
    began = datetime.now(UTC).isoformat(timespec="seconds")
    product.empty_database()
    said = ("logs", "-l", "app.kubernetes.io/component=operator", f"--since-time={began}")
    eventually(
        lambda: "the database refuses this process" in product.kubectl(*said),
        seconds=60,
        what="the operator says what it waits for",
    )
    product.kubectl("create", "job", "migrate-now", "--from=cronjob/discoveryflow-migration")
    try:
        finished = ("wait", "--for=condition=Complete", "job/migrate-now", "--timeout=100s")
        product.kubectl(*finished, timeout=110)
    finally:
        product.kubectl("delete", "job", "migrate-now")
    for component in COMPONENTS:
        rolled_out(product, component)
    eventually(
        lambda: waiting.status().get("approvalRequest", {}).get("requestId", request) != request,
        seconds=180,
        what="the flow asks again",
    )
    answer(waiting)
    waiting.wait("Succeeded", seconds=180)
    assert_no_orphan(waiting)


@pytest.mark.native
def test_the_whole_cluster_is_stopped_and_started(
    waiting: Flow, product: Product, kubectl: Kubectl
) -> None:
    ((before,),) = product.sql("SELECT pg_postmaster_start_time()")
    for action in ("stop", "up"):
        done = subprocess.run(
            [sys.executable, "-m", "tests.cluster.provision", action],
            cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "anew" not in done.stdout
    back(product, before)
    goes_on(waiting)
