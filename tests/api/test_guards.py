"""What anybody may send without harm: too much, too often, forged, or led elsewhere."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from discovery_api.web.account import safe_target
from discovery_api.web.assets import FOR_GOOD

from tests.api.desk import ANN, API, serving
from tests.api.kubernetes import FakeKubernetes
from tests.postgres import Stores
from tests.store.flows import Flow

FORM = {"Content-Type": "multipart/form-data; boundary=b"}
FIELD = b'--b\r\nContent-Disposition: form-data; name="%d"\r\n\r\n%s\r\n'


@pytest.fixture
def kubernetes() -> FakeKubernetes:
    return FakeKubernetes(namespaces={"migration": str(uuid4())})


@pytest.fixture
async def client(stores: Stores, kubernetes: FakeKubernetes) -> AsyncIterator[httpx.AsyncClient]:
    settings = {"public_url": "https://discovery.test", "failed_tokens": 20}
    settings |= {"failed_tokens_per_second": 0.01}
    async with serving(stores, kubernetes, **settings) as client:
        yield client


async def test_s02_a_stranger_s_form_is_not_even_read(client: httpx.AsyncClient) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        for number in range(200):
            read += 1
            yield FIELD % (number, b"x" * 60_000)

    headers = FORM | {"Authorization": "Bearer nobody"}
    refused = await client.post(f"{API}/flows", content=endless(), headers=headers)
    assert refused.status_code == 401
    assert read < 10


@pytest.mark.parametrize(
    ("size", "status", "says"),
    [(1, 400, "more than 20 fields"), (60_000, 413, "262144 B together")],
)
async def test_s02_a_form_has_so_many_fields_and_no_more(
    client: httpx.AsyncClient, size: int, status: int, says: str
) -> None:
    async def many() -> AsyncIterator[bytes]:
        for number in range(2000):
            yield FIELD % (number, b"x" * size)

    tracemalloc.start()
    try:
        refused = await client.post(f"{API}/flows", content=many(), headers=FORM | ANN)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert refused.status_code == status
    assert says in refused.json()["detail"]
    assert most < 40_000_000


@pytest.mark.parametrize(("count", "size"), [(17, 10), (1, 5000)])
async def test_s02_a_part_has_so_many_headers_and_no_more(
    client: httpx.AsyncClient, count: int, size: int
) -> None:
    async def many() -> AsyncIterator[bytes]:
        yield b"--b\r\n"
        for number in range(count):
            yield b"X-%d: %s\r\n" % (number, b"x" * size)

    refused = await client.post(f"{API}/flows", content=many(), headers=FORM | ANN)
    assert refused.status_code == 400
    assert "header" in refused.json()["detail"]


async def test_a_spec_that_is_nested_without_end_is_refused(client: httpx.AsyncClient) -> None:
    files: list[tuple[str, Any]] = [
        ("namespace", (None, "migration")),
        ("spec", (None, "[" * 60_000)),
        ("file", ("a.csv", b"a\n1\n", "text/csv")),
    ]
    refused = await client.post(f"{API}/flows", files=files, headers=ANN)
    assert refused.status_code == 422
    assert "spec is not JSON" in refused.text


async def signed_in(client: httpx.AsyncClient) -> None:
    """Begins a session of ann. The client keeps its cookie, as it would over TLS."""
    client.base_url = httpx.URL("https://discovery.test")
    begun = await client.post("/sign-in", data={"token": "token-ann"})
    assert begun.status_code == 303


async def flow_of(stores: Stores, kubernetes: FakeKubernetes) -> Flow:
    """A flow that waits."""
    flow = Flow(stores)
    await flow.to_gate()
    kubernetes.flow_uid = str(flow.flow_id)
    return flow


async def test_s19_tokens_cannot_be_tried_out_by_the_hundred(client: httpx.AsyncClient) -> None:
    # those who get in cost nobody an attempt
    for _ in range(21):
        assert (await client.post("/sign-in", data={"token": "token-ann"})).status_code == 303
    answers = [await client.post("/sign-in", data={"token": f"guess-{n}"}) for n in range(21)]
    assert [answer.status_code for answer in answers] == [401] * 20 + [429]
    assert int(answers[-1].headers["Retry-After"]) <= 301


@pytest.mark.parametrize("csrf", ["", "guess", "g\u00fcess", "\u4e16"])
async def test_a_forged_form_is_refused_whatever_it_says(
    client: httpx.AsyncClient, stores: Stores, kubernetes: FakeKubernetes, csrf: str
) -> None:
    flow = await flow_of(stores, kubernetes)
    await signed_in(client)
    refused = await client.post(f"/flows/{flow.flow_id}/suspend", data={"csrf": csrf})
    assert refused.status_code == 403
    assert kubernetes.changes == []


async def test_a_form_with_an_unknown_phase_is_refused_in_words(
    client: httpx.AsyncClient, stores: Stores, kubernetes: FakeKubernetes
) -> None:
    flow = await flow_of(stores, kubernetes)
    await signed_in(client)
    shown = await client.get("/flows/new")
    csrf = shown.text.split('data-csrf="', 1)[1].split('"', 1)[0]
    form = {"csrf": csrf, "fromPhase": "lunch"}
    refused = await client.post(f"/flows/{flow.flow_id}/rerun", data=form)
    assert refused.status_code == 422, refused.text
    assert "fromPhase" in refused.json()["detail"]
    assert kubernetes.changes == []


@pytest.mark.parametrize(
    "target",
    [
        *("https://evil.example", "//evil.example", "/\\evil.example", "\\\\evil.example"),
        *("/\t/evil.example", "/\n/evil.example", "javascript:alert(1)", "", "flows"),
        "/" + "x" * 1000,
    ],
)
def test_nobody_is_led_to_another_site(target: str) -> None:
    assert safe_target(target) == "/"


def test_a_place_of_ours_is_kept() -> None:
    assert safe_target("/flows?state=Failed") == "/flows?state=Failed"


async def test_tls_is_demanded_under_the_public_name_only(client: httpx.AsyncClient) -> None:
    """Through a port-forward it would be demanded of all of this machine's `localhost`."""
    for host, demanded in (("discovery.test", True), ("localhost:8444", False)):
        answer = await client.get("/sign-in", headers={"Host": host})
        assert ("strict-transport-security" in answer.headers) is demanded
        assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_a_browser_keeps_the_scripts_of_this_version_for_good(
    client: httpx.AsyncClient,
) -> None:
    """Only these: during an upgrade another version's page may ask for its own."""
    shown = await client.get("/sign-in")
    addresses = re.findall(r'(?:src|href)="(/static/[^"]+)"', shown.text)
    assert len(addresses) == 5
    for address in addresses:
        answer = await client.get(address)
        assert (answer.status_code, answer.headers["Cache-Control"]) == (200, FOR_GOOD)
        other = await client.get(f"{address}0")
        assert (other.status_code, other.headers["Cache-Control"]) == (200, "no-cache")
