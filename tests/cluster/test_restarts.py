"""What the demo's PostgreSQL holds outlives its pod and the machine, and a waiting flow goes on.

Everything else of the product keeps its state there, so this is what "nothing is lost" rests on.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cluster.inventory import HAPPY, answer, assert_no_orphan
from tests.cluster.kube import ROOT, Kubectl, eventually
from tests.cluster.outages import COMPONENTS, rolled_out
from tests.cluster.product import DATABASE_POD, Flow, Product

# these end the database, or all of it
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
