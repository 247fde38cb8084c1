"""What most tests of the user API begin with."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.api.desk import signed_in
from tests.api.kubernetes import FakeKubernetes
from tests.postgres import Stores


@pytest.fixture
def kubernetes() -> FakeKubernetes:
    """Kubernetes' stand-in; tests that need another replace it."""
    return FakeKubernetes()


@pytest.fixture
async def ann(stores: Stores, kubernetes: FakeKubernetes) -> AsyncIterator[httpx.AsyncClient]:
    """A client in whose session ann is signed in."""
    async with signed_in(stores, kubernetes) as client:
        yield client
