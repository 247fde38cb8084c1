"""Every page that can be reached: on what the real crews make of sources, and in every state."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Awaitable, Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit
from uuid import UUID, uuid4

import httpx
import pytest
from discovery_api.web import pages
from discovery_core import actions as act
from discovery_core.errors import ErrorCode
from discovery_core.files import MEDIA_TYPES
from discovery_core.phases import Phase
from discovery_core.states import FlowState

from tests.api.desk import resource, url
from tests.api.kubernetes import FakeKubernetes
from tests.api.real_flow import CMDB, SCAN, run_all_phases
from tests.postgres import Stores
from tests.store.flows import SPEC, Flow

ENGAGEMENT = SPEC | {"engagement": "dc-east"}
BEGINS = {".parquet": b"PAR1", ".xlsx": b"PK", ".zip": b"PK"}
WRONG = re.compile(r"Status \d{3}|Internal|Traceback|Undefined|has no attribute|\bNone\b|not found")


class Page(HTMLParser):
    """Where a page leads to, and what it says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.said = ""
        self._silent = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent = tag in ("script", "style")
        found = dict(attrs)
        for name in ("href", "src", "hx-get"):
            if found.get(name):
                self.links.append(str(found[name]))

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.said += data


@pytest.fixture
async def kubernetes() -> FakeKubernetes:
    return FakeKubernetes(cluster_viewers={"ann"})


@pytest.fixture
async def flow(stores: Stores, kubernetes: FakeKubernetes, tmp_path: Path) -> Flow:
    """The second source of an engagement; the two contradict each other."""
    tenant: UUID = uuid4()
    for name, file, text in (("scan", "scan.csv", SCAN), ("cmdb", "cmdb.csv", CMDB)):
        flow = Flow(stores, spec=dict(ENGAGEMENT), tenant_id=tenant, name=name)
        await run_all_phases(flow, file, text, tmp_path)
    kubernetes.flow_uid = str(flow.flow_id)
    kubernetes.resources = [resource(flow, state="Succeeded", phase="migration_strategy")]
    return flow


async def walk(client: httpx.AsyncClient, start: str) -> dict[str, Page | None]:
    """Every page that can be reached, and every other thing as None. All answer 200."""
    seen: dict[str, Page | None] = {}
    waiting = deque([start])
    while waiting:
        place = waiting.popleft()
        if place in seen:
            continue
        answer = await client.get(place)
        assert answer.status_code == 200, (place, answer.status_code, answer.text[:2000])
        seen[place] = None
        if answer.headers["content-type"].startswith("text/html"):
            page = seen[place] = Page(answer.text)
            assert not (found := WRONG.search(page.said)), (place, found, page.said)
            for link in page.links:
                address = urlsplit(urljoin(place, link))
                assert not address.netloc, f"{place} leads elsewhere: {link}"
                waiting.append(address._replace(fragment="").geturl())
    return seen


def routes() -> list[str]:
    """What the product serves as pages."""
    return [route.path for route in pages.router.routes]  # type: ignore[attr-defined]


def check_file(name: str, media_type: str, content: bytes) -> None:
    """That a file is what its name and its media type say."""
    suffix = name[name.rindex(".") :]
    assert media_type.split(";", maxsplit=1)[0] == MEDIA_TYPES[suffix], name
    if suffix in BEGINS:
        assert content.startswith(BEGINS[suffix]), name
    else:
        assert content.decode("utf-8").isprintable() or b"\n" in content, name
    if suffix == ".json":
        json.loads(content)


async def check_files(client: httpx.AsyncClient, flow: Flow) -> None:
    """Each has a name of its own, the flow's in it, and is what the name says."""
    listed = (await client.get(url(flow, "/artefacts"))).json()
    places = {
        f"/artefacts/{entry['phase']}/{entry['name']}": entry["file_name"] for entry in listed
    }
    assert {Phase(entry["phase"]) for entry in listed} == set(Phase)
    assert len(set(places.values())) == len(places)
    # what was given holds what the import leaves out
    assert not [name for name in places.values() if "source" in name]
    assert "cmdb-assets.xlsx" in places.values()
    assert "cmdb-google-import.zip" in places.values()
    assert "cmdb-data-import-rejected.csv" in places.values()
    places["/rejected-rows"] = "cmdb-rejected-rows.csv"
    for place, name in places.items():
        answer = await client.get(url(flow, place))
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
        assert name.startswith("cmdb-")
        check_file(name, answer.headers["Content-Type"], answer.content)


async def test_every_page_and_file_of_a_real_flow_opens(
    ann: httpx.AsyncClient, flow: Flow, stores: Stores
) -> None:
    assert await stores.api.conflicts(flow.tenant_id, "dc-east")
    imported = await flow.load()
    assert imported.records_imported
    assert imported.records_rejected
    seen = await walk(ann, "/")
    for route in routes():
        pattern = re.sub(r"\\\{flow_id\\\}", str(flow.flow_id), re.escape(route)) + r"(\?.*)?"
        assert [place for place in seen if re.fullmatch(pattern, place)], (
            f"nothing leads to {route}"
        )
    assets = await stores.api.list_assets(flow.tenant_id, "dc-east")
    assert len(assets) > 5
    for asset in assets:
        place = f"/flows/{flow.flow_id}/inventory/asset?identity={quote(asset.identity)}"
        page = seen[place]
        assert page is not None
        assert asset.identity in page.said
    await check_files(ann, flow)


async def _failed(flow: Flow) -> None:
    await flow.queue()
    run_id = await flow.start()
    await flow.claim()
    await flow.stores.operator.apply(
        flow.flow_id,
        act.FailAttempt(
            run_id, code=ErrorCode.UNREADABLE_FILE, message="no table", retry_delay=None
        ),
    )


async def _running(flow: Flow) -> None:
    await flow.queue()
    await flow.start()
    await flow.claim()


async def _waiting(flow: Flow) -> None:
    await flow.register()
    await flow.stores.operator.apply(flow.flow_id, act.ReferenceMissing(("ConfigMap servers",)))


async def _suspended(flow: Flow) -> None:
    await flow.to_gate()
    await flow.stores.operator.apply(flow.flow_id, act.Suspend())


async def _answered(flow: Flow, decision: str) -> None:
    await flow.to_gate()
    await flow.answer(decision, reason="as it is")


async def _cancelled(flow: Flow) -> None:
    await flow.queue()
    await flow.stores.operator.apply(flow.flow_id, act.Cancel())


async def _succeeded(flow: Flow) -> None:
    await _answered(flow, "Approve")
    await flow.finish()


STATES: dict[str, Callable[[Flow], Awaitable[object]]] = {
    "Pending": Flow.register,
    "Queued": Flow.queue,
    "Running": _running,
    "AwaitingApproval": Flow.to_gate,
    "Waiting": _waiting,
    "Suspended": _suspended,
    "Rejected": lambda flow: _answered(flow, "Reject"),
    "Failed": _failed,
    "Cancelled": _cancelled,
    "Succeeded": _succeeded,
}


@pytest.mark.parametrize("state", STATES)
async def test_every_page_opens_in_every_state(
    ann: httpx.AsyncClient, stores: Stores, kubernetes: FakeKubernetes, state: str
) -> None:
    flow = Flow(stores)
    await STATES[state](flow)
    now = await flow.load()
    assert now.state == state
    kubernetes.flow_uid = str(flow.flow_id)
    asks: dict[str, Any] = {}
    if now.request is not None:
        request = {"requestId": str(now.request.request_id), "mappings": now.request.mappings}
        asks = {"approvalRequest": request | {"expiresAt": now.request.expires_at.isoformat()}}
    kubernetes.resources = [resource(flow, state=state, phase=str(now.phase), **asks)]
    seen = await walk(ann, "/")
    standing = seen[f"/flows/{flow.flow_id}"]
    assert standing is not None
    assert flow.name in standing.said


def test_no_state_is_forgotten() -> None:
    assert set(STATES) == set(FlowState)
