"""A person has the data of an ended flow removed: who may, what is told, what is kept."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from discovery_core import actions as act
from discovery_core.store import OperatorStore
from discovery_operator.retention import Retention

from tests.api.test_user_api import ANN, _url, client, flow, kubernetes
from tests.postgres import Stores
from tests.store.fake_cluster import FakeCluster
from tests.store.flows import Flow

__all__ = ["client", "flow", "kubernetes"]
BOB = {"Authorization": "Bearer token-bob"}
EVE = {"Authorization": "Bearer token-eve"}


async def carry_out(store: OperatorStore) -> None:
    """The operator does what is asked of it."""
    cluster: Any = FakeCluster()
    cluster.namespaces = {"kube-system": store.cluster_id}
    retention = Retention(
        store,
        cluster,
        leads=asyncio.Event(),
        purged=lambda _: None,
        finished_flows=None,
        deleted_namespaces=None,
        delete_resources=False,
        poll=1,
    )
    await retention.round()


async def test_the_data_of_an_ended_flow_is_purged(
    client: httpx.AsyncClient, flow: Flow, stores: Stores
) -> None:
    await flow.answer()
    await flow.finish()
    asked = await client.delete(_url(flow, "/data"), headers=ANN)
    assert asked.status_code == 202
    assert (asked.json()["outcome"], asked.json()["inventory"]) == ("Running", False)
    again = await client.delete(_url(flow, "/data"), headers=ANN)
    assert again.json()["purge_id"] == asked.json()["purge_id"]
    await carry_out(stores.operator)
    (record,) = (await client.get(_url(flow, "/purges"), headers=BOB)).json()
    assert record["outcome"] == "Done"
    assert record["requested_by"] == "ann"
    assert record["summary"]["decisions"][0]["by"] == "ann"
    assert record["removed"]["flow_events"] > 5
    # every page of the flow still answers
    for action in ("", "/history", "/artefacts", "/attempts", "/lessons", "/conflicts"):
        assert (await client.get(_url(flow, action), headers=ANN)).status_code == 200, action
    assert (await client.get(_url(flow, "/history"), headers=ANN)).json() == []
    late = await client.delete(_url(flow, "/data"), headers=ANN)
    assert late.status_code == 409
    assert "purged already" in late.json()["detail"]


async def test_the_inventory_goes_where_that_is_asked_for(
    client: httpx.AsyncClient, flow: Flow, stores: Stores
) -> None:
    await flow.answer()
    await flow.finish()
    assert len(await stores.api.list_assets(flow.tenant_id, None)) == 3
    odd = await client.delete(_url(flow, "/data"), params={"inventory": "yes"}, headers=ANN)
    assert odd.status_code == 422
    asked = await client.delete(_url(flow, "/data"), params={"inventory": "remove"}, headers=ANN)
    assert asked.json()["inventory"] is True
    await carry_out(stores.operator)
    assert await stores.api.list_assets(flow.tenant_id, None) == []


async def test_it_needs_the_verb_purge_and_an_ended_flow(
    client: httpx.AsyncClient, flow: Flow, stores: Stores
) -> None:
    url = _url(flow, "/data")
    open_flow = await client.delete(url, headers=ANN)
    assert open_flow.status_code == 409
    assert "AwaitingApproval; cancel it first" in open_flow.json()["detail"]
    await stores.operator.apply(flow.flow_id, act.Cancel())
    refused = await client.delete(url, headers=BOB)
    assert refused.status_code == 403
    assert "verb 'purge'" in refused.json()["detail"]
    assert (await client.delete(url, headers=EVE)).status_code == 404
    assert (await client.delete(url)).status_code == 401
    assert (await client.get(_url(flow, "/purges"), headers=ANN)).json() == []
