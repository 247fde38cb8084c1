"""What every cluster test gets: kubectl, helm, a namespace of its own, a failure's story."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.cluster.browsers import Network, network
from tests.cluster.kube import Helm, Kubectl, cluster_environment
from tests.cluster.people import Person, make_person, reached
from tests.cluster.product import DATABASE_POD, INSTALLED_IN, PSQL, Flow, Product
from tests.cluster.provision.__main__ import chosen
from tests.cluster.sandbox import Sandbox

_HERE = Path(__file__).parent
_NAMESPACE = pytest.StashKey[Kubectl]()
_BEGAN = pytest.StashKey[datetime]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.cluster)
    native = [item for item in items if item.get_closest_marker("native")]
    if native and chosen().name != "native":
        # deselected, so that the summary counts them
        config.hook.pytest_deselected(items=native)
        items[:] = [item for item in items if item not in native]


@pytest.fixture(scope="session")
def kubectl() -> Kubectl:
    """Runs kubectl as cluster admin. Fails, and does not skip, where there is no cluster."""
    kubeconfig, path = cluster_environment()
    tool = Kubectl(kubeconfig, path)
    answer = tool.try_("get", "--raw", "/readyz", timeout=20)
    assert answer.ok, (
        f"no cluster answers with {kubeconfig}: {answer.stderr.strip()}\n"
        "Start one with: python3 -m tests.cluster.provision up"
    )
    return tool


@pytest.fixture(scope="session")
def helm(kubectl: Kubectl) -> Helm:
    """Runs helm on the same cluster."""
    return Helm(kubectl.kubeconfig, kubectl.path)


@pytest.fixture(scope="session")
def sandbox(kubectl: Kubectl, helm: Helm) -> Iterator[Sandbox]:
    """The resource under another name, beside whatever is installed on the cluster."""
    copy = Sandbox(kubectl, helm, f"dft{uuid4().hex[:8]}")
    copy.define()
    yield copy
    copy.remove()


@pytest.fixture
def namespace(kubectl: Kubectl, request: pytest.FixtureRequest) -> Iterator[Kubectl]:
    """Runs kubectl within a namespace that only this test uses."""
    name = f"test-{uuid4().hex[:12]}"
    request.node.stash[_BEGAN] = datetime.now(UTC)
    kubectl("create", "namespace", name)
    inside = kubectl.within(name)
    request.node.stash[_NAMESPACE] = inside
    yield inside
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def api(kubectl: Kubectl) -> Iterator[httpx.Client]:
    """A client of the installed user API."""
    with reached(Product(kubectl), "api", 8444) as client:
        yield client


@pytest.fixture(scope="session")
def browser_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Where a browser sees no pod's interface come and go."""
    with network(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture
def person(namespace: Kubectl) -> Callable[..., Person]:
    """Makes people of the flow's namespace, or of another."""

    def make(name: str, *roles: str, within: Kubectl | None = None) -> Person:
        return make_person(within or namespace, name, *roles)

    return make


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Adds events, objects and logs of the test's namespace to the report of a failure."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    inside = item.stash.get(_NAMESPACE, None)
    if report.when in ("setup", "call") and report.failed and inside is not None:
        report.sections.append((f"namespace {inside.namespace}", _story(inside)))
        since = item.stash[_BEGAN].strftime("%Y-%m-%dT%H:%M:%SZ")
        report.sections.append((f"the product since {since}", _of_the_product(inside, since)))
    return report  # type: ignore[return-value]


def _story(kubectl: Kubectl) -> str:
    parts = []
    for arguments in (
        ("get", "discoveryflows", "-o", "yaml"),
        ("get", "all", "-o", "wide"),
        ("get", "events", "--sort-by=.lastTimestamp"),
    ):
        outcome = kubectl.try_(*arguments)
        parts.append(f"$ kubectl {' '.join(arguments)}\n{outcome.stdout}{outcome.stderr}")
    pods = kubectl.try_("get", "pods", "-o", "name").stdout.split()
    for pod in pods:
        outcome = kubectl.try_("logs", pod, "--all-containers", "--tail=100", "--prefix")
        parts.append(f"$ kubectl logs {pod}\n{outcome.stdout}{outcome.stderr}")
    return "\n".join(parts)


def _of_the_product(kubectl: Kubectl, since: str) -> str:
    """Pods, events and logs of operators, APIs and database, and the namespace's transitions."""
    product = Product(kubectl.within(INSTALLED_IN))
    transitions = (
        "SELECT e.at, f.flow_id, e.from_state, e.to_state, e.trigger, e.message FROM flow_events e "
        "JOIN discovery_flows f USING (flow_id) JOIN tenants t ON t.id = f.tenant_id "
        f"WHERE t.namespace = '{kubectl.namespace}' ORDER BY e.at"
    )
    parts = []
    for arguments in (
        ("get", "pods", "-o", "wide"),
        ("get", "events", "--sort-by=.lastTimestamp"),
        *(
            ("logs", "-l", f"app.kubernetes.io/component={component}", f"--since-time={since}",
             "--prefix", "--tail=400", "--max-log-requests=10")
            for component in ("operator", "execution", "api", "postgresql")
        ),
        ("exec", DATABASE_POD, "--", *PSQL, "-c", transitions),
    ):  # fmt: skip
        outcome = product.kubectl.try_(*arguments)
        parts.append(f"$ kubectl {' '.join(arguments)}\n{outcome.stdout}{outcome.stderr}")
    return "\n".join(parts)


@pytest.fixture
def product(kubectl: Kubectl) -> Product:
    """The release that is installed on the cluster."""
    return Product(kubectl)


@pytest.fixture
def flow(product: Product, namespace: Kubectl) -> Flow:
    """A flow of an engagement of its own, in a namespace that enforces restricted pods."""
    label = "pod-security.kubernetes.io/enforce=restricted"
    product.admin("label", "namespace", str(namespace.namespace), label)
    namespace("create", "serviceaccount", "approver")
    namespace(
        *("create", "rolebinding", "approver", "--clusterrole=discoveryflow-approve"),
        f"--serviceaccount={namespace.namespace}:approver",
    )
    return Flow(namespace, product, spec={"engagement": f"e-{uuid4().hex[:8]}"})
