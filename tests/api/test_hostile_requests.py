"""The table of hostile requests against both APIs as processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.api.hostile_requests import EXECUTION, USER, Hostile, sent
from tests.api.kubernetes import FakeKubernetes
from tests.api.processes import Process, running
from tests.postgres import Stores

pytestmark = pytest.mark.slow


@pytest.fixture
def kubernetes() -> FakeKubernetes:
    return FakeKubernetes(namespaces={"migration": str(uuid4())})


@pytest.fixture
async def user(
    stores: Stores, kubernetes: FakeKubernetes, tmp_path: Path
) -> AsyncIterator[Process]:
    async with running("discovery_api", stores.urls.api, kubernetes, tmp_path) as process:
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
