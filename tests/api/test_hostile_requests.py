"""The table of hostile requests against both APIs as processes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import trustme

from tests.api.desk import API
from tests.api.hostile_requests import EXECUTION, MIB, USER, Hostile, sent
from tests.api.kubernetes import FakeKubernetes
from tests.api.processes import ANN, Process, running
from tests.postgres import Stores

pytestmark = pytest.mark.slow


@pytest.fixture
def kubernetes() -> FakeKubernetes:
    return FakeKubernetes(namespaces={"migration": str(uuid4())})


@pytest.fixture
async def user(
    stores: Stores, kubernetes: FakeKubernetes, tmp_path: Path
) -> AsyncIterator[Process]:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    settings = {"uploads_per_tenant": "50", "kubernetes_ca_file": str(tmp_path / "ca.pem")}
    async with running(
        "discovery_api", stores.urls.api, kubernetes, tmp_path, **settings
    ) as process:
        yield process


@pytest.fixture
async def execution(
    stores: Stores, kubernetes: FakeKubernetes, tmp_path: Path
) -> AsyncIterator[Process]:
    module, url = "discovery_api.execution", stores.urls.execution
    async with running(module, url, kubernetes, tmp_path) as process:
        yield process


async def tried(api: Process, table: tuple[Hostile, ...]) -> list[str]:
    """What a server did otherwise than the table says, in words."""
    wrong = []
    for hostile in table:
        outcome = await sent(api, hostile)
        if not hostile.answered_by(outcome.status):
            wrong.append(f"{hostile.name}: {outcome.status}, not {hostile.status}")
        if outcome.cost > hostile.costs:
            wrong.append(f"{hostile.name}: {outcome.cost} B, more than {hostile.costs}")
    return wrong


async def test_s02_no_request_costs_the_user_api_memory(user: Process) -> None:
    assert await tried(user, USER) == []


async def test_s02_no_request_costs_the_execution_api_memory(execution: Process) -> None:
    assert await tried(execution, EXECUTION) == []


async def test_s07_the_memory_of_a_burst_comes_back(user: Process) -> None:
    """What fifty uploads at once have taken; the first one only warms up."""
    headers = {"Authorization": f"Bearer {ANN}"}

    async with httpx.AsyncClient(
        base_url=f"https://{user.address}", verify=user.trust, headers=headers, timeout=60
    ) as client:

        async def upload(number: int) -> None:
            query = {"namespace": "migration", "name": f"{number}.csv"}
            content = os.urandom(4 * MIB)
            sent = await client.post(f"{API}/uploads", params=query, content=content)
            assert sent.status_code == 201, sent.text

        await upload(0)
        before = user.begin_to_measure()
        await asyncio.gather(*(upload(number) for number in range(1, 51)))
    for _ in range(60):
        kept = user.begin_to_measure() - before
        if kept <= 40 * MIB:
            break
        await asyncio.sleep(0.5)
    assert kept <= 40 * MIB
