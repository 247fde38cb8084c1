"""What is counted of requests: by template, never by id, and streams apart."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from discovery_api.metrics import IN_PROGRESS, LISTENERS, RequestMetrics, serve_metrics
from discovery_api.middleware import QUIET
from discovery_core.store.monitoring import DatabaseMonitor
from fastapi import FastAPI
from prometheus_client import REGISTRY
from starlette.responses import StreamingResponse

from tests.api.desk import ANN, serving, url
from tests.api.kubernetes import FakeKubernetes
from tests.postgres import Stores
from tests.store.flows import Flow

TEMPLATES = Path(__file__).parents[2] / "charts" / "discoveryflow" / "templates"
FLOW = "/api/v1/discovery/flows/{flow_id}"


def counted(route: str, status: str, method: str = "GET") -> float:
    labels = {"route": route, "method": method, "status": status}
    return REGISTRY.get_sample_value("discoveryflow_api_requests_total", labels) or 0.0


def timed(route: str) -> float:
    labels = {"route": route, "method": "GET"}
    return REGISTRY.get_sample_value("discoveryflow_api_request_seconds_count", labels) or 0.0


@pytest.fixture
async def client(stores: Stores) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(stores, FakeKubernetes()) as client:
        yield client


async def test_routes_are_counted_by_their_template(client: httpx.AsyncClient) -> None:
    before = counted(FLOW, "4xx"), timed(FLOW)
    for _ in range(3):
        assert (await client.get(f"/api/v1/discovery/flows/{uuid4()}", headers=ANN)).is_error
    assert (counted(FLOW, "4xx"), timed(FLOW)) == (before[0] + 3, before[1] + 3)


async def test_what_is_no_route_is_counted_as_one(client: httpx.AsyncClient) -> None:
    before, strange = counted("unmatched", "4xx"), counted("unmatched", "4xx", "other")
    for _ in range(2):
        assert (await client.get(f"/no/such/{uuid4()}", headers=ANN)).status_code == 404
    await client.request("BREW", f"/no/such/{uuid4()}", headers=ANN)
    assert counted("unmatched", "4xx") == before + 2
    assert counted("unmatched", "4xx", "other") == strange + 1


async def test_no_id_of_a_request_is_in_the_metrics(
    client: httpx.AsyncClient, stores: Stores
) -> None:
    flow = Flow(stores)
    await flow.queue()
    for action in ("", "/history", "/assets", "/review"):
        await client.get(url(flow, action), headers=ANN)
    await client.get(f"/static/{flow.flow_id}.js")
    await client.get(f"/flows/{flow.flow_id}")
    samples = str([list(family.samples) for family in REGISTRY.collect()])
    assert str(flow.flow_id) not in samples
    assert str(flow.tenant_id) not in samples


async def test_probes_are_not_counted(client: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/readyz"):
        assert (await client.get(path)).status_code == 200
        assert counted(path, "2xx") == 0


async def test_s02_probes_are_answered_on_a_port_of_their_own(stores: Stores) -> None:
    """Where no stranger fills the places."""
    monitor = DatabaseMonitor(stores.api.db)
    runner = await serve_metrics("127.0.0.1", 0, monitor)
    port = runner.addresses[0][1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        paths = ("/healthz", "/readyz", "/metrics")
        answers = {path: (await client.get(path)).status_code for path in paths}
    await runner.cleanup()
    assert answers == dict.fromkeys(paths, 200)


@pytest.mark.parametrize("component", ["api", "execution"])
def test_s02_the_kubelet_asks_there(component: str) -> None:
    template = (TEMPLATES / f"{component}.yaml").read_text(encoding="utf-8")
    asked = dict(re.findall(r"(\w+)Probe:\n\s+httpGet: \{path: /\w+, port: (\w+)", template))
    assert asked == {"startup": "https", "liveness": "metrics", "readiness": "metrics"}


async def test_an_error_of_ours_is_counted_as_one() -> None:
    app = FastAPI()

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("a bug")

    app.add_middleware(RequestMetrics, quiet=QUIET)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        assert (await client.get("/broken")).status_code == 500
    assert counted("/broken", "5xx") == 1


async def test_streams_of_events_are_not_timed_and_requests_under_way_are_shown() -> None:
    app = FastAPI()
    shown: list[float] = []

    async def events() -> AsyncIterator[str]:
        shown.append(IN_PROGRESS._value.get())
        yield ": beat\n\n"

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(events(), media_type="text/event-stream")

    app.add_middleware(RequestMetrics, quiet=QUIET)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        assert (await client.get("/stream")).status_code == 200
    assert (counted("/stream", "2xx"), timed("/stream")) == (1, 0)
    assert shown == [1]
    assert IN_PROGRESS._value.get() == 0


def test_listeners_are_counted_while_they_listen() -> None:
    from discovery_api.live import Live

    live = Live(store=None)  # type: ignore[arg-type]
    gauge = LISTENERS.labels(about="flow")
    with live.subscribed(uuid4()), live.subscribed(uuid4()):
        assert gauge._value.get() == 2
    assert gauge._value.get() == 0
