"""How many bytes a namespace may store, and how much at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from discovery_core.errors import ErrorCode, is_retryable
from discovery_core.store.artefacts.quota import stored_bytes
from discovery_core.store.database import TenantScope

from tests.api.desk import ANN, API, serving
from tests.api.kubernetes import FakeKubernetes
from tests.api.pods import POD, executing, launch
from tests.postgres import Stores
from tests.store.flows import Flow

MIB = 1024**2
WHERE = {"namespace": "migration", "name": "a.csv"}


@pytest.fixture
def namespaces() -> FakeKubernetes:
    return FakeKubernetes(namespaces={"migration": str(uuid4()), "other": str(uuid4())})


def pieces(count: int, *, hold: asyncio.Event | None = None) -> AsyncIterator[bytes]:
    """So many MiB, no two alike; the last one waits."""

    async def sent() -> AsyncIterator[bytes]:
        for number in range(count):
            if hold is not None and number == count - 1:
                await hold.wait()
            yield uuid4().bytes * (MIB // 16)

    return sent()


async def test_s04_a_namespace_stores_so_many_bytes_and_no_more(
    stores: Stores, namespaces: FakeKubernetes
) -> None:
    async with serving(stores, namespaces, stored_bytes_per_tenant=4 * MIB) as client:

        async def send(count: int, namespace: str = "migration") -> httpx.Response:
            query = WHERE | {"namespace": namespace}
            return await client.post(
                f"{API}/uploads", params=query, content=pieces(count), headers=ANN
            )

        assert (await send(3)).status_code == 201
        refused = await send(3)
        assert (refused.status_code, refused.json()["code"]) == (507, "QuotaExceeded")
        assert "tenants.maxStoredBytes" in refused.json()["detail"]
        assert (await send(1)).status_code == 201, "what was refused takes no room"
        assert (await send(4, "other")).status_code == 201, "others have room of their own"


async def test_s04_the_smallest_file_counts_64_kib(
    stores: Stores, namespaces: FakeKubernetes
) -> None:
    """Else a namespace could have rows without end, which all have to be added up."""
    async with serving(stores, namespaces, stored_bytes_per_tenant=MIB) as client:

        async def send(content: bytes) -> int:
            sent = await client.post(f"{API}/uploads", params=WHERE, content=content, headers=ANN)
            return sent.status_code

        statuses = [await send(b"%d" % number) for number in range(18)]
        assert statuses == [201] * 16 + [507] * 2


async def test_s04_a_file_that_is_said_to_be_too_large_is_refused_at_once(
    stores: Stores, namespaces: FakeKubernetes
) -> None:
    async def none() -> AsyncIterator[bytes]:
        yield pytest.fail("a byte was taken")

    async with serving(stores, namespaces, stored_bytes_per_tenant=4 * MIB) as client:
        headers = ANN | {"Content-Length": str(5 * MIB)}
        refused = await client.post(f"{API}/uploads", params=WHERE, content=none(), headers=headers)
    assert refused.status_code == 507, refused.text


async def test_s04_files_that_come_side_by_side_see_each_other(
    stores: Stores, namespaces: FakeKubernetes
) -> None:
    hold = asyncio.Event()
    async with serving(stores, namespaces, stored_bytes_per_tenant=4 * MIB) as client:
        first = asyncio.create_task(
            client.post(f"{API}/uploads", params=WHERE, content=pieces(4, hold=hold), headers=ANN)
        )
        tenant = namespaces.namespaces["migration"]
        await until_stored(stores, tenant, 3 * MIB)
        second = await client.post(f"{API}/uploads", params=WHERE, content=pieces(2), headers=ANN)
        hold.set()
        assert (second.status_code, (await first).status_code) == (507, 201)


async def until_stored(stores: Stores, tenant: str, least: int = 1) -> None:
    """Waits until a namespace has so many bytes."""
    scope = TenantScope(UUID(tenant))
    async with asyncio.timeout(30):
        while True:
            found = await stores.api.db.run(
                scope, lambda session: stored_bytes(session, scope.tenant_id)
            )
            if found >= least:
                return
            await asyncio.sleep(0.02)


async def test_s04_so_many_uploads_of_a_namespace_at_a_time(
    stores: Stores, namespaces: FakeKubernetes
) -> None:
    hold = asyncio.Event()
    async with serving(stores, namespaces, uploads_per_tenant=1) as client:
        first = asyncio.create_task(
            client.post(f"{API}/uploads", params=WHERE, content=pieces(2, hold=hold), headers=ANN)
        )
        tenant = namespaces.namespaces["migration"]
        await until_stored(stores, tenant)
        query: dict[str, Any] = {"params": WHERE, "headers": ANN}
        other = WHERE | {"namespace": "other"}
        refused = await client.post(f"{API}/uploads", content=b"a", **query)
        assert refused.status_code == 429
        assert "tenants.maxUploadsAtATime" in refused.json()["detail"]
        elsewhere = await client.post(f"{API}/uploads", params=other, content=b"a", headers=ANN)
        assert elsewhere.status_code == 201
        hold.set()
        assert (await first).status_code == 201
        assert (await client.post(f"{API}/uploads", content=b"a", **query)).status_code == 201


async def test_s04_a_crew_s_file_beyond_the_limit_fails_for_good(
    stores: Stores, kubernetes: FakeKubernetes
) -> None:
    flow = Flow(stores)
    await flow.queue()
    await launch(flow, kubernetes)
    async with executing(stores, kubernetes, stored_bytes_per_tenant=2 * MIB) as client:
        claim = (await client.post("/execution/v1/claim", json={}, headers=POD)).json()
        query = {"fence": claim["fence"]}
        statuses = [
            await client.put(
                "/execution/v1/artefacts", params=query, content=pieces(count), headers=POD
            )
            for count in (1, 2)
        ]
    assert [answer.status_code for answer in statuses] == [200, 507]
    told = statuses[1].json()
    assert told["code"] == ErrorCode.QUOTA_EXCEEDED
    assert "delete or purge flows" in told["detail"]
    assert not is_retryable(told["code"])


async def test_s04_a_crew_s_file_that_is_said_to_be_too_large_is_refused_at_once(
    stores: Stores, kubernetes: FakeKubernetes
) -> None:
    flow = Flow(stores)
    await flow.queue()
    await launch(flow, kubernetes)

    async def none() -> AsyncIterator[bytes]:
        yield pytest.fail("a byte was taken")

    async with executing(stores, kubernetes, stored_bytes_per_tenant=2 * MIB) as client:
        claim = (await client.post("/execution/v1/claim", json={}, headers=POD)).json()
        refused = await client.put(
            "/execution/v1/artefacts",
            params={"fence": claim["fence"]},
            content=none(),
            headers=POD | {"Content-Length": str(3 * MIB)},
        )
    assert refused.status_code == 507, refused.text


async def test_s04_a_pod_stores_so_many_files_at_a_time(
    stores: Stores, kubernetes: FakeKubernetes
) -> None:
    flow, hold = Flow(stores), asyncio.Event()
    await flow.queue()
    await launch(flow, kubernetes)
    async with executing(stores, kubernetes, bodies_per_pod=1) as client:
        claim = (await client.post("/execution/v1/claim", json={}, headers=POD)).json()
        query: dict[str, Any] = {"params": {"fence": claim["fence"]}, "headers": POD}
        first = asyncio.create_task(
            client.put("/execution/v1/artefacts", content=pieces(2, hold=hold), **query)
        )
        await until_stored(stores, str(flow.tenant_id))
        for path in ("artefacts", "records"):
            refused = await client.put(f"/execution/v1/{path}", content=b"{}", **query)
            assert refused.status_code == 429, path
        hold.set()
        assert (await first).status_code == 200
