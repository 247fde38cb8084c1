"""Every alert of the chart fires for a real cause on a real cluster, and none on a healthy one.

A real Prometheus scrapes the installed pods, as the chart's PodMonitor has it. What the rules give
minutes gets seconds (see prometheus.py), and so do the operator's sweep, list and look at the
figures; the causes are what happens to an installation. This is about the native cluster, whose
pods this machine reaches and whose API server it can make hang. Each test puts back what it
changed, and begins when no alert is left.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kubernetes import config
from kubernetes.client import CoreV1Api

from tests.cluster.kube import Kubectl, eventually
from tests.cluster.outages import (
    COMPONENTS,
    configured,
    cordoned,
    database_away,
    frozen_api_server,
    locked_table,
    other_operator,
    people_ask,
    without_operators,
)
from tests.cluster.product import Flow, Product
from tests.cluster.prometheus import Prometheus, installed_pods, rules

# the cluster's own pods, API server and database are hurt here
pytestmark = [pytest.mark.alone, pytest.mark.native]

# flows of one namespace that may be at work at a time: enough for attempts that fail together
SLOTS = 7
SETTINGS = {
    "DISCOVERY_MAX_RUNNING_PER_TENANT": str(SLOTS),
    "DISCOVERY_SWEEP_SECONDS": "1",
    "DISCOVERY_RESYNC_SECONDS": "2",
    "DISCOVERY_METRICS_SECONDS": "1",
}
HOLD: dict[str, Any] = {"approvalPolicy": {"mode": "Always", "timeout": "1h", "onTimeout": "Hold"}}
# what the installation allows, and what is not there
RECEIVER = "http://receiver.webhook-receiver.svc:8080/hook"
ENDPOINT = "http://llm-stub.llm-stub.svc:8000/v1"
# the longest window of a rate, and what else may take time under load
QUIET_SECONDS = 120.0
PROVOKED: set[str] = set()
Fires = Callable[..., None]


@pytest.fixture(scope="module")
def product(kubectl: Kubectl) -> Product:
    return Product(kubectl)


@pytest.fixture(scope="module")
def prometheus(
    product: Product, kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """Scrapes what is installed until the end of this file."""
    core = CoreV1Api(config.new_client_from_config(config_file=str(kubectl.kubeconfig)))
    with configured(product, **SETTINGS):
        made = Prometheus(tmp_path_factory.mktemp("prometheus"), lambda: installed_pods(core))
        try:
            eventually(
                lambda: made.query("discoveryflow_leader == 1"), seconds=60, what="first figures"
            )
            yield made
        finally:
            made.close()


@pytest.fixture(autouse=True)
def _begins_healthy(prometheus: Prometheus) -> None:
    prometheus.wait_quiet(QUIET_SECONDS)


@pytest.fixture
def fires(prometheus: Prometheus) -> Fires:
    """Waits until an alert fires whose summary has these words."""

    def wait(name: str, words: str = "", seconds: float = 180) -> None:
        alert = prometheus.wait_firing(name, words, seconds)
        assert "<no value>" not in json.dumps(alert["annotations"])
        PROVOKED.add(name)

    return wait


@pytest.fixture
def flow(product: Product, namespace: Kubectl) -> Flow:
    """A flow and its file, in a namespace of its own; not created yet."""
    made = Flow(namespace, product)
    made.source()
    return made


def at_work(flow: Flow) -> str:
    """Creates the flow and waits for its first Job; returns its uid."""
    flow.create()
    eventually(flow.jobs, seconds=60, what="a crew at work")
    return flow.uid


def test_none_fires_on_a_healthy_installation(
    product: Product, prometheus: Prometheus, flow: Flow
) -> None:
    flow.create()
    with people_ask(product, flow.kubectl) as statuses:
        prometheus.stays_quiet(25)
    assert set(statuses) == {404}
    flow.wait("AwaitingApproval", seconds=120)
    assert prometheus.alerts() == []
    read = {name for rule in rules() for name in re.findall(r"discoveryflow_\w+", rule["expr"])}
    # breakers appear with the first that failed
    unknown = {name for name in read if not prometheus.query(name)}
    assert unknown <= {"discoveryflow_circuit_breaker"}
    found = prometheus.query("count by (container) (discoveryflow_database_up == 1)")
    assert {series["metric"]["container"] for series in found} == set(COMPONENTS)


def test_an_approval_that_nobody_gives(product: Product, flow: Flow, fires: Fires) -> None:
    flow.spec |= HOLD
    flow.create()
    flow.wait("AwaitingApproval", seconds=120)
    product.sql(
        "UPDATE approval_requests SET opened_at = now() - interval '3 days', "
        f"expires_at = now() - interval '1 hour' WHERE flow_id = '{flow.uid}' AND state = 'Open'"
    )
    fires("DiscoveryFlowApprovalOverdue", "1 approval requests")
    fires("DiscoveryFlowApprovalOld", "3d")
    assert flow.status()["state"] == "AwaitingApproval"


@pytest.mark.exhaustive
def test_leadership_that_nobody_can_take(product: Product, flow: Flow, fires: Fires) -> None:
    """The crew at work goes on meanwhile, and what comes after it is late."""
    uid = at_work(flow)
    product.sql("UPDATE leader SET holder = 'a ghost', expires_at = now() + interval '1 hour'")
    try:
        fires("DiscoveryFlowNoLeader")
        late = (
            f"SELECT phase FROM discovery_flows WHERE flow_id = '{uid}' AND state = 'Queued' "
            "AND state_since < now() - interval '6 seconds'"
        )
        eventually(lambda: product.sql(late), seconds=90, what="a phase that is late", every=1)
    finally:
        product.sql("UPDATE leader SET expires_at = now() WHERE holder = 'a ghost'")
    fires("DiscoveryFlowTransitionsSlow")


@pytest.mark.exhaustive
def test_a_flow_that_gets_no_slot(
    product: Product, kubectl: Kubectl, flow: Flow, fires: Fires
) -> None:
    """No node takes pods, so those who have a slot keep it."""
    states = (
        "SELECT state, count(*) FROM discovery_flows JOIN tenants ON id = tenant_id "
        f"WHERE namespace = '{flow.kubectl.namespace}' GROUP BY state ORDER BY state"
    )
    with cordoned(kubectl):
        for number in range(SLOTS + 1):
            flow.name = f"servers-{number}"
            flow.create()
        eventually(
            lambda: product.sql(states) == [["Queued", "1"], ["Running", str(SLOTS)]],
            seconds=60,
            what="all slots are taken",
        )
        product.sql(
            "UPDATE discovery_flows SET state_since = now() - interval '1 hour' "
            "FROM tenants WHERE id = tenant_id AND state = 'Queued' "
            f"AND namespace = '{flow.kubectl.namespace}'"
        )
        fires("DiscoveryFlowQueueOld", "1h")
        flow.kubectl("delete", "discoveryflows", "--all")


@pytest.mark.exhaustive
def test_files_that_are_empty_and_a_receiver_that_is_away(
    product: Product, namespace: Kubectl, fires: Fires
) -> None:
    secret = ("secret", "generic", "discoveryflow-webhook")
    namespace("create", *secret, f"--from-literal=url={RECEIVER}", "--from-literal=key=a key")
    flow = Flow(namespace, product)
    flow.source("")
    for number in range(SLOTS):
        flow.name = f"empty-{number}"
        flow.create()
    try:
        fires("DiscoveryFlowAttemptsFailing", "EmptyFile")
        fires("DiscoveryFlowNotificationsFailing", "discoveryflow")
    finally:
        namespace("delete", "secret", "discoveryflow-webhook")
        product.sql("UPDATE notifications SET next_try = now() WHERE state = 'Pending'")


@pytest.mark.exhaustive
def test_an_endpoint_that_is_not_asked_any_more(product: Product, flow: Flow, fires: Fires) -> None:
    flow.kubectl("create", "secret", "generic", "llm", "--from-literal=api-key=not-a-real-key")
    flow.spec["llm"] = {
        "provider": "openaiCompatible",
        "baseUrl": ENDPOINT,
        "model": "m",
        "apiKeySecret": {"name": "llm", "key": "api-key"},
    }
    flow.spec["retries"] = {"maxAttempts": 5, "initialDelay": "1s", "maxDelay": "1s"}
    flow.create()
    fires("DiscoveryFlowCircuitBreakerOpen", ENDPOINT)
    # its cool-down is over, and the alert with it, although no flow asks any more
    flow.set(state="Cancel")
    flow.wait_for("Cancelled")
    product.sql("UPDATE circuit_breakers SET retry_at = now() WHERE state = 'Open'")


@pytest.mark.exhaustive
def test_reconciliations_that_fail(product: Product, flow: Flow, fires: Fires) -> None:
    """Somebody has taken one of the operator's rights in the database."""
    product.sql("REVOKE INSERT ON flow_events FROM discovery_operator")
    try:
        flow.create()
        fires("DiscoveryFlowReconcileErrors")
    finally:
        product.sql("GRANT INSERT ON flow_events TO discovery_operator")
    eventually(flow.jobs, seconds=90, what="it goes on")


@pytest.mark.exhaustive
def test_an_api_server_that_hangs(kubectl: Kubectl, fires: Fires) -> None:
    with frozen_api_server(kubectl):
        fires("DiscoveryFlowSweepStuck", seconds=25)
        fires("DiscoveryFlowWatchSilent", "DiscoveryFlow objects", seconds=5)


@pytest.mark.exhaustive
def test_two_operators_on_two_databases(product: Product, fires: Fires) -> None:
    at_work_now = (
        "SELECT job_name FROM phase_runs WHERE state IN ('Created', 'Launched', 'Running')"
    )
    # the other one would look for their pods, and find that they do not answer
    eventually(
        lambda: product.sql(at_work_now) == [], seconds=60, what="no crew is at work", every=1
    )
    with other_operator(product, "copy"):
        fires("DiscoveryFlowTwoLeaders")


@pytest.mark.exhaustive
def test_a_schema_of_another_version(product: Product, fires: Fires) -> None:
    ((revision,),) = product.sql("SELECT version_num FROM alembic_version")
    product.sql("UPDATE alembic_version SET version_num = '0001'")
    try:
        for component in COMPONENTS:
            fires("DiscoveryFlowSchemaMismatch", f"discoveryflow-{component}-")
    finally:
        product.sql(f"UPDATE alembic_version SET version_num = '{revision}'")


@pytest.mark.exhaustive
def test_connections_that_are_all_in_use(
    product: Product, namespace: Kubectl, fires: Fires
) -> None:
    with people_ask(product, namespace, people=24), locked_table(product, "master_flows"):
        fires("DiscoveryFlowConnectionsExhausted", "discoveryflow-api-")


@pytest.mark.exhaustive
def test_a_database_that_is_away(product: Product, namespace: Kubectl, fires: Fires) -> None:
    events = "SELECT count(*), max(at) FROM flow_events"
    before = product.sql(events)
    with database_away(product):
        for component in COMPONENTS:
            fires("DiscoveryFlowDatabaseDown", f"discoveryflow-{component}-")
        fires("DiscoveryFlowOperatorNotReady", "discoveryflow-operator-")
        with people_ask(product, namespace) as statuses:
            fires("DiscoveryFlowApiErrors", "api")
        assert set(statuses) == {503}
    assert product.sql(events) == before, "a crash loses nothing"


@pytest.mark.exhaustive
def test_no_operator_at_all(product: Product, flow: Flow, fires: Fires) -> None:
    """The crew at work hands in its result all the same."""
    uid = at_work(flow)
    with without_operators(product):
        fires("DiscoveryFlowOperatorDown")
        eventually(
            lambda: {state for _, _, state in flow.attempts(uid)} == {"Succeeded"},
            seconds=90,
            what="the crew's result",
            every=1,
        )
        before = flow.attempts(uid)
    eventually(
        lambda: len(flow.attempts(uid)) > len(before), seconds=90, what="the next phase", every=1
    )


@pytest.mark.exhaustive
def test_every_alert_has_been_provoked(request: pytest.FixtureRequest) -> None:
    """Only where the whole module has run."""
    module = [item for item in request.session.items if item.path == request.path]
    names: list[Callable[..., object]] = [item.function for item in module]  # type: ignore[attr-defined]
    if len(set(names)) < sum(name.startswith("test_") for name in globals()):
        return
    assert {rule["alert"] for rule in rules()} == PROVOKED
