"""What a crew reads of its engagement: all of it, nothing else, and the same in every attempt."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from discovery_core import actions as act
from discovery_core.errors import DiscoveryError, ErrorCode, NotFoundError, SupersededError
from discovery_core.phases import Phase
from discovery_core.wire.protocol import Complete, EngagementInputs
from discovery_core.wire.results import InventoryRecord

from tests.postgres import Stores
from tests.store.flows import RESULTS, SPEC, Flow, Pod


async def rows(*names: str, **more: Any) -> AsyncIterator[InventoryRecord]:
    """A row for each of these servers."""
    for number, name in enumerate(names, start=2):
        yield InventoryRecord(
            row=number, identity=f"hostname:{name}", name=name, asset_type="server",
            keys=[f"name:{name}"], identity_confidence=0.8, **({"values": {}} | more),
        )  # fmt: skip


def member(stores: Stores, tenant: UUID, name: str, engagement: str | None = "dc-east") -> Flow:
    spec: dict[str, object] = dict(SPEC)
    if engagement:
        spec["engagement"] = engagement
    return Flow(stores, spec=spec, tenant_id=tenant, name=name)


async def to_analysis(flow: Flow, records: AsyncIterator[InventoryRecord]) -> Pod:
    """Runs a flow up to a pod that has claimed its dependency analysis."""
    await flow.to_gate()
    await flow.answer()
    await flow.run_phase(records)
    await flow.start()
    return await flow.claim()


async def pin(pod: Pod, **more: Any) -> EngagementInputs:
    held: dict[str, Any] = {
        "tenant_id": pod.tenant_id,
        "pod_uid": pod.pod_uid,
        "fence": pod.claim.fence,
    }
    return await pod.stores.execution.engagement.pin(**held | {"max_bytes": 10_000_000} | more)


async def content(pod: Pod, digest: str) -> bytes:
    pieces = pod.stores.execution.read_artefact(
        tenant_id=pod.tenant_id, pod_uid=pod.pod_uid, fence=pod.claim.fence, digest=digest
    )
    return b"".join([piece async for piece in pieces])


async def assets(pod: Pod, pinned: EngagementInputs) -> list[dict[str, Any]]:
    lines = gzip.decompress(await content(pod, pinned.inventory.digest)).splitlines()
    return [json.loads(line) for line in lines]


async def test_the_second_flow_is_given_the_assets_of_both(stores: Stores) -> None:
    tenant = uuid4()
    await to_analysis(
        member(stores, tenant, "cmdb"),
        rows("web", "db", values={"owner": "ann"}, unmapped={"Rack": "R1", "Note": "old"}),
    )
    pod = await to_analysis(
        member(stores, tenant, "scan"),
        rows("db", "new", values={"memory_gb": 8}, unmapped={"Note": "newer"}),
    )
    assert pod.claim.phase is Phase.DEPENDENCY_ANALYSIS
    assert pod.claim.merged_inventory
    found = await assets(pod, await pin(pod))
    assert [(a["identity"], a["rows"], a["fields"], a["unmapped"]) for a in found] == [
        ("hostname:db", [2], {"owner": "ann", "memory_gb": 8}, {"Rack": "R1", "Note": "newer"}),
        ("hostname:new", [3], {"memory_gb": 8}, {"Note": "newer"}),
        ("hostname:web", [], {"owner": "ann"}, {"Rack": "R1", "Note": "old"}),
    ]
    assert found[0] | {"name": "db", "asset_type": "server", "identity_confidence": 0.8} == found[0]


async def test_what_people_decided_counts(stores: Stores) -> None:
    tenant = uuid4()
    await to_analysis(member(stores, tenant, "cmdb"), rows("db", values={"memory_gb": 8}))
    pod = await to_analysis(member(stores, tenant, "scan"), rows("db", values={"memory_gb": 9}))
    await stores.api.set_precedence(tenant, "dc-east", ["cmdb"])
    assert (await assets(pod, await pin(pod)))[0]["fields"] == {"memory_gb": 8}


async def test_no_asset_of_another_tenant_or_engagement_comes(stores: Stores) -> None:
    tenant, stranger = uuid4(), uuid4()
    others = [
        member(stores, stranger, "theirs"),
        member(stores, tenant, "west", engagement="dc-west"),
        member(stores, tenant, "alone", engagement=None),
    ]
    for flow in others:
        await to_analysis(flow, rows(f"secret-{flow.name}"))
        await flow.finish()
    pod = await to_analysis(member(stores, tenant, "own"), rows("mine"))
    pinned = await pin(pod)
    assert [asset["name"] for asset in await assets(pod, pinned)] == ["mine"]
    assert pinned.dependencies == []


async def test_a_deleted_flow_is_no_source(stores: Stores) -> None:
    tenant = uuid4()
    gone = member(stores, tenant, "gone")
    await to_analysis(gone, rows("old"))
    await gone.finish()
    await stores.operator.apply(gone.flow_id, act.MarkDeleted())
    pod = await to_analysis(member(stores, tenant, "own"), rows("mine"))
    pinned = await pin(pod)
    assert [asset["name"] for asset in await assets(pod, pinned)] == ["mine"]
    assert pinned.dependencies == []


async def test_later_attempts_and_phases_of_a_round_see_the_same(stores: Stores) -> None:
    tenant = uuid4()
    own = member(stores, tenant, "own")
    pod = await to_analysis(own, rows("mine"))
    pinned = await pin(pod)
    await to_analysis(member(stores, tenant, "later"), rows("later"))
    assert await pin(pod) == pinned
    await pod.do_phase()
    await own.start()
    planning = await own.claim()
    assert planning.claim.phase is Phase.MIGRATION_STRATEGY
    assert planning.claim.merged_inventory
    assert await pin(planning) == pinned
    assert [asset["name"] for asset in await assets(planning, pinned)] == ["mine"]


async def test_what_other_flows_have_found_can_be_read(stores: Stores) -> None:
    tenant = uuid4()
    first = member(stores, tenant, "first")
    analysing = await to_analysis(first, rows("a"))
    found = await analysing.upload(b"edges of first")
    await first.stores.execution.complete(
        tenant_id=tenant, pod_uid=analysing.pod_uid, message=_complete(analysing, found)
    )
    pod = await to_analysis(member(stores, tenant, "second"), rows("b"))
    with pytest.raises(NotFoundError):
        await content(pod, found)
    (reference,) = (await pin(pod)).dependencies
    assert reference.digest == found
    assert await content(pod, found) == b"edges of first"


def _complete(pod: Pod, dependencies: str) -> Complete:
    return Complete(
        fence=pod.claim.fence,
        result=RESULTS[Phase.DEPENDENCY_ANALYSIS],
        artefacts={"dependencies": dependencies},
    )


async def test_who_asks_at_once_is_told_the_same(stores: Stores) -> None:
    pod = await to_analysis(member(stores, uuid4(), "own"), rows("mine"))
    answers = await asyncio.gather(*(pin(pod) for _ in range(5)))
    assert len({answer.inventory.digest for answer in answers}) == 1


async def test_a_flow_without_engagement_has_its_own_inventory_only(stores: Stores) -> None:
    pod = await to_analysis(member(stores, uuid4(), "own", engagement=None), rows("mine"))
    assert not pod.claim.merged_inventory
    with pytest.raises(NotFoundError):
        await pin(pod)


async def test_a_pod_without_the_fence_is_told_nothing(stores: Stores) -> None:
    pod = await to_analysis(member(stores, uuid4(), "own"), rows("mine"))
    for held in ({"fence": pod.claim.fence - 1}, {"pod_uid": "another"}, {"tenant_id": uuid4()}):
        with pytest.raises(SupersededError):
            await pin(pod, **held)


@pytest.mark.parametrize(
    ("limit", "code"),
    [
        ({"max_bytes": 50}, ErrorCode.LIMIT_EXCEEDED),
        ({"tenant_bytes": 1}, ErrorCode.QUOTA_EXCEEDED),
    ],
)
async def test_its_bytes_count(stores: Stores, limit: dict[str, int], code: ErrorCode) -> None:
    pod = await to_analysis(member(stores, uuid4(), "own"), rows("mine"))
    with pytest.raises(DiscoveryError) as refused:
        await pin(pod, **limit)
    assert refused.value.code == code
    assert len((await pin(pod)).inventory.digest) == 71


async def test_many_assets_come_in_pieces(stores: Stores) -> None:
    names = [f"s{n:05}" for n in range(3000)]
    pod = await to_analysis(member(stores, uuid4(), "own"), rows(*names))
    assert [asset["name"] for asset in await assets(pod, await pin(pod))] == names
