"""A browser's session is worth nothing to another site, whatever it can make the browser send."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.api.desk import serving, url
from tests.api.kubernetes import FakeKubernetes
from tests.postgres import Stores
from tests.store.flows import Flow

OWN = "http://api"


@pytest.fixture
async def flow(stores: Stores) -> Flow:
    flow = Flow(stores)
    await flow.queue()
    return flow


@pytest.fixture
async def browser(stores: Stores, flow: Flow) -> AsyncIterator[httpx.AsyncClient]:
    """Signed in as ann; sends cookies as a browser does."""
    kubernetes = FakeKubernetes(flow_uid=str(flow.flow_id))
    async with serving(stores, kubernetes) as client:
        answer = await client.post("/sign-in", data={"token": "token-ann"})
        assert answer.status_code == 303, answer.text
        client.kubernetes = kubernetes  # type: ignore[attr-defined]
        yield client


def changes(browser: httpx.AsyncClient) -> int:
    return len(browser.kubernetes.changes)  # type: ignore[attr-defined]


async def csrf(browser: httpx.AsyncClient, flow: Flow) -> str:
    page = await browser.get(f"/flows/{flow.flow_id}")
    assert page.status_code == 200, page.text
    return page.text.split('data-csrf="', 1)[1].split('"', 1)[0]


async def test_our_own_page_may(browser: httpx.AsyncClient, flow: Flow) -> None:
    """The counterpart, without which the refusals would prove nothing."""
    token = await csrf(browser, flow)
    own = {"X-CSRF-Token": token, "Origin": OWN, "Sec-Fetch-Site": "same-origin"}
    assert (await browser.post(url(flow, "/suspend"), headers=own)).status_code == 200
    form = await browser.post(
        f"/flows/{flow.flow_id}/resume", data={"csrf": token}, headers={"Origin": OWN}
    )
    assert form.status_code == 303
    assert changes(browser) == 2


@pytest.mark.parametrize("token", ["", "guess"])
async def test_without_the_pages_token(browser: httpx.AsyncClient, flow: Flow, token: str) -> None:
    await csrf(browser, flow)
    headers = {"X-CSRF-Token": token} if token else {}
    answer = await browser.post(url(flow, "/suspend"), headers=headers)
    assert answer.status_code == 403
    assert answer.json()["type"].endswith("/forged")
    form = await browser.post(f"/flows/{flow.flow_id}/suspend", data={"csrf": token})
    assert form.status_code == 403
    assert changes(browser) == 0


@pytest.mark.parametrize(
    "foreign",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
    ids=["origin", "opaque", "fetch-site"],
)
async def test_from_another_site(
    browser: httpx.AsyncClient, flow: Flow, foreign: dict[str, str]
) -> None:
    """Even with the token, should it ever leak."""
    token = await csrf(browser, flow)
    answer = await browser.post(url(flow, "/suspend"), headers=foreign | {"X-CSRF-Token": token})
    assert answer.status_code == 403
    form = await browser.post(
        f"/flows/{flow.flow_id}/suspend", data={"csrf": token}, headers=foreign
    )
    assert form.status_code == 403
    assert changes(browser) == 0


async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(stores: Stores) -> None:
    async with serving(stores, FakeKubernetes()) as client:
        answer = await client.post("/sign-in", data={"token": "token-ann"})
        cookies = [cookie.lower() for cookie in answer.headers.get_list("set-cookie")]
        written = [cookie for cookie in cookies if "max-age=0" not in cookie]
        assert written
        for cookie in written:
            assert "httponly" in cookie
            assert "samesite=strict" in cookie
            assert "token-ann" not in cookie
