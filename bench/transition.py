"""How long a flow stands still between two phases: measured on an installed product.

Runs small flows one after the other on an idle cluster, approves each, and reads the times from
the database, whose clock is the only one involved. What is printed, in milliseconds:

- commit → Job recorded: from the commit that made a phase ready (the result of the phase before,
  or the approval) until the uid of the new Job is recorded. The Job exists a little earlier, so
  this is an upper bound of commit → Job created.
- commit → Job created, as the operator itself counts it (a histogram, so in steps).
- commit → claim: until the Job's pod has reported for work (scheduling, container, Python).
- import and crew: inside the pod, the import of CrewAI and the crew itself.

Usage: `python -m bench.transition [--flows 10]` with the product installed as the cluster tool
does it (`python3 -m tests.cluster.provision install`).
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from uuid import uuid4

from tests.cluster.kube import Kubectl, cluster_environment
from tests.cluster.product import INSTALLED_IN, Flow, Product

NAMESPACE = f"bench-{uuid4().hex[:8]}"
QUERY = """
SELECT extract(epoch FROM started.at - ready.at) * 1000,
       extract(epoch FROM run.launched_at - ready.at) * 1000,
       extract(epoch FROM run.claimed_at - ready.at) * 1000,
       (run.usage->>'secondsImport')::float * 1000,
       (run.usage->>'secondsCrew')::float * 1000
FROM flow_events ready
JOIN flow_events started ON started.flow_id = ready.flow_id
    AND started.sequence = ready.sequence + 1 AND started.trigger = 'AttemptStarted'
JOIN phase_runs run ON run.flow_id = started.flow_id AND run.phase = started.phase
    AND run.attempt = started.attempt AND run.round = started.round
WHERE ready.trigger IN ('PhaseSucceeded', 'Approved') AND ready.flow_id = '{flow}'
ORDER BY ready.sequence
"""
COLUMNS = (
    "commit -> intent committed", "commit -> Job recorded", "commit -> claim",
    "import of CrewAI", "crew",
)  # fmt: skip


def approve(flow: Flow, admin: str) -> None:
    """Answers the open request as the cluster's administrator."""
    shown = flow.status()["approvalRequest"]
    answer = {
        "requestId": shown["requestId"],
        "artefactDigest": shown["artefactDigest"],
        "decision": "Approve",
        "decidedBy": admin,
    }
    patch = [{"op": "add", "path": "/spec/approval", "value": answer}]
    done = flow.kubectl.try_patch("discoveryflow", flow.name, patch)
    assert done.ok, done.stderr


def measure(product: Product, inside: Kubectl, count: int) -> list[list[float]]:
    """Runs the flows and returns one row per transition."""
    whoami = product.admin.json("auth", "whoami")
    admin = whoami["status"]["userInfo"]["username"]
    rows: list[list[float]] = []
    for number in range(1, count + 1):
        flow = Flow(inside, product, name=f"bench-{number}")
        flow.create()
        flow.wait("AwaitingApproval")
        approve(flow, admin)
        flow.wait("Succeeded")
        found = product.sql(" ".join(QUERY.format(flow=flow.uid).split()))
        rows += [[float(value) for value in row] for row in found]
        print(f"flow {number} of {count}: {len(found)} transitions", flush=True)
    return rows


def report(rows: list[list[float]]) -> dict[str, dict[str, float]]:
    """Median, 95th percentile, least and most of each column."""
    figures = {}
    for position, name in enumerate(COLUMNS):
        values = sorted(row[position] for row in rows)
        figures[name] = {
            "p50": round(statistics.median(values), 1),
            "p95": round(values[min(len(values) - 1, int(len(values) * 0.95))], 1),
            "min": round(values[0], 1),
            "max": round(values[-1], 1),
        }
    return figures


def created_within(product: Product) -> dict[float, int]:
    """The operator's histogram: how many Jobs were created within so many seconds."""
    selector = ("-l", "app.kubernetes.io/component=operator")
    (pod,) = product.kubectl.json("get", "pods", *selector)["items"]
    path = f"/api/v1/namespaces/{INSTALLED_IN}/pods/{pod['metadata']['name']}:8080/proxy/metrics"
    found = re.findall(
        r'^discoveryflow_transition_seconds_bucket{le="([^"]+)"} (\S+)$',
        product.admin("get", "--raw", path),
        flags=re.MULTILINE,
    )
    return {float(limit): int(float(count)) for limit, count in found}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--flows", type=int, default=10, help="three transitions each")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON too")
    arguments = parser.parse_args()
    product = Product(Kubectl(*cluster_environment()))
    inside = product.admin.within(NAMESPACE)
    product.admin("create", "namespace", NAMESPACE)
    try:
        Flow(inside, product).source()
        before = created_within(product)
        rows = measure(product, inside, arguments.flows)
        after = created_within(product)
    finally:
        product.admin("delete", "namespace", NAMESPACE, "--wait=false")
    figures = report(rows)
    print(f"\n{len(rows)} transitions, milliseconds")
    for name, values in figures.items():
        print(f"{name:28}" + "".join(f"{key} {value:9.1f}  " for key, value in values.items()))
    print("\ncommit -> Job created, starts of flows included (operator's histogram):")
    for limit, count in after.items():
        print(f"  within {limit * 1000:7.0f} ms: {count - before.get(limit, 0)}")
    if arguments.json:
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
