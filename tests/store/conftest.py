"""The fixture that the tests of the whole operator share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from discovery_operator.cache import ObjectCache
from discovery_operator.queue import KeyedQueue

from tests.postgres import Stores
from tests.store.fake_cluster import FakeCluster
from tests.store.flows import SPEC, Flow
from tests.store.operator_world import NAMESPACE, World, controller_of


@pytest.fixture
async def world(stores: Stores) -> AsyncIterator[World]:
    cluster, cache = FakeCluster(), ObjectCache()
    queue: KeyedQueue[UUID] = KeyedQueue()
    cluster.config_maps[NAMESPACE, "servers"] = {"data": {"servers.csv": "name\nweb01\n"}}
    uid = cluster.apply(NAMESPACE, "servers", SPEC)
    controller = controller_of(stores.operator, cluster, cache, queue)
    flow = Flow(stores, tenant_id=cluster.namespaces[NAMESPACE], flow_id=uid)
    world = World(stores, cluster, cache, queue, controller, uid, flow)
    await world.see()
    yield world
    queue.close()
