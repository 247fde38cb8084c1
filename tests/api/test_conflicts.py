"""Conflicts are seen by whoever sees the flow, and decided by whoever may approve."""

from __future__ import annotations

import httpx
import pytest

from tests.api.kubernetes import FakeKubernetes
from tests.api.test_lessons_and_attempts import BOB, EVE
from tests.api.test_user_api import ANN, _url, client, kubernetes
from tests.postgres import Stores
from tests.store.flows import Flow
from tests.store.test_assets import COPY, ORIGINAL, disagreeing, engaged, member

__all__ = ["client", "kubernetes"]
OWNER = {"identity": "hostname:web1", "field": "owner"}


@pytest.fixture
async def flow(stores: Stores, kubernetes: FakeKubernetes) -> Flow:
    """A flow of an engagement whose sources disagree on memory and owner of web1."""
    flow = member(stores, await disagreeing(stores), "asking")
    await flow.register()
    kubernetes.flow_uid = str(flow.flow_id)
    return flow


async def test_decide_and_take_back(client: httpx.AsyncClient, flow: Flow) -> None:
    url = _url(flow, "/conflicts")
    shown = (await client.get(url, headers=BOB)).json()
    assert [(entry["field"], entry["current"]) for entry in shown] == [
        ("memory_gb", 16), ("owner", "bo"),
    ]  # fmt: skip
    assert [entry["flow"] for entry in shown[1]["values"]] == ["cmdb", "scan"]
    done = await client.put(url, json=OWNER | {"choice": "keep"}, headers=ANN)
    assert (done.status_code, done.json()["updated"]) == (200, 1)
    after = (await client.get(url, headers=BOB)).json()
    assert [(e["field"], e["current"], e["decided_by"]) for e in after] == [
        ("memory_gb", 16, None), ("owner", "ann", "ann"),
    ]  # fmt: skip
    assert (await client.delete(url, params=OWNER, headers=ANN)).json()["updated"] == 1
    assert (await client.delete(url, params=OWNER, headers=ANN)).status_code == 404


async def test_what_cannot_be_decided_is_said(client: httpx.AsyncClient, flow: Flow) -> None:
    url = _url(flow, "/conflicts")
    merge = {"identity": "hostname:web1", "field": "memory_gb", "choice": "merge"}
    refused = await client.put(url, json=merge, headers=ANN)
    assert refused.status_code == 422
    assert "only texts can be merged" in refused.text
    agreed = OWNER | {"field": "hostname", "choice": "keep"}
    assert (await client.put(url, json=agreed, headers=ANN)).status_code == 404
    unknown = OWNER | {"choice": "burn"}
    assert (await client.put(url, json=unknown, headers=ANN)).status_code == 422


async def test_precedence(client: httpx.AsyncClient, flow: Flow) -> None:
    url = _url(flow, "/source-precedence")
    assert (await client.get(url, headers=BOB)).json() == {"flows": []}
    done = await client.put(url, json={"flows": ["cmdb"]}, headers=ANN)
    assert (done.status_code, done.json()["updated"]) == (200, 1)
    assert (await client.get(url, headers=BOB)).json() == {"flows": ["cmdb"]}
    shown = (await client.get(_url(flow, "/conflicts"), headers=BOB)).json()
    assert [entry["current"] for entry in shown] == [8, "ann"]


@pytest.mark.parametrize("headers", [BOB, EVE])
async def test_only_approvers_decide(
    client: httpx.AsyncClient, flow: Flow, headers: dict[str, str]
) -> None:
    conflicts, order = _url(flow, "/conflicts"), _url(flow, "/source-precedence")
    answers = [
        await client.put(conflicts, json=OWNER | {"choice": "keep"}, headers=headers),
        await client.delete(conflicts, params=OWNER, headers=headers),
        await client.put(order, json={"flows": ["cmdb"]}, headers=headers),
    ]
    assert {answer.status_code for answer in answers} == {403 if headers is BOB else 404}
    shown = (await client.get(conflicts, headers=ANN)).json()
    assert all(entry["choice"] is None for entry in shown)


async def test_machines_that_share_a_key_are_decided(
    client: httpx.AsyncClient, flow: Flow, stores: Stores
) -> None:
    await engaged(stores, flow.tenant_id, original=[ORIGINAL], copy=[COPY])
    url, key = _url(flow, "/conflicts"), {"identity": "asset_id:u", "field": "(identity)"}
    first = (await client.get(url, headers=BOB)).json()[0]
    assert (first["kind"], first["identity"], first["field"]) == ("identity", *key.values())
    assert [value["value"] for value in first["values"]] == ["erp", "erp-copy"]
    refused = await client.put(url, json=key | {"choice": "merge"}, headers=ANN)
    assert refused.status_code == 422
    done = await client.put(url, json=key | {"choice": "same"}, headers=ANN)
    assert (done.status_code, done.json()["removed"]) == (200, 2)
    last = (await client.get(url, headers=BOB)).json()[-1]
    assert (last["identity"], last["choice"], last["decided_by"]) == ("asset_id:u", "same", "ann")
    assert (await client.delete(url, params=key, headers=ANN)).json()["added"] == 2
    assert (await client.delete(url, params=key, headers=ANN)).status_code == 404
