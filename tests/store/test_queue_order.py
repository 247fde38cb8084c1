"""Whose turn it is: tenants one after the other, within a tenant the oldest first."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID, uuid4

import pytest
from discovery_core import actions as act
from discovery_core.errors import ErrorCode
from discovery_core.states import FlowState

from tests.postgres import Stores
from tests.store.flows import Flow


@dataclass
class Queue:
    """Flows of several tenants under the caps `limits` (in all, per tenant)."""

    stores: Stores
    limits: tuple[int, int]
    flows: dict[UUID, tuple[str, Flow]] = field(default_factory=dict)
    tenants: dict[str, UUID] = field(default_factory=dict)
    failing: set[UUID] = field(default_factory=set)

    async def add(self, tenant: str, count: int = 1) -> None:
        """Queues flows of a tenant, one after the other."""
        tenant_id = self.tenants.setdefault(tenant, uuid4())
        for _ in range(count):
            number = sum(1 for label, _ in self.flows.values() if label[0] == tenant)
            flow = Flow(self.stores, tenant_id=tenant_id, name=f"flow-{number}")
            await flow.queue()
            self.flows[flow.flow_id] = (f"{tenant}{number}", flow)

    async def hand_out(self) -> list[str]:
        """Starts whatever may start, asking the newest flow first; returns what has started."""
        started: list[str] = []
        while True:
            label = await self._start_one()
            if label is None:
                return started
            started.append(label)

    async def _start_one(self) -> str | None:
        for label, flow in reversed(self.flows.values()):
            if flow.flow_id in self.failing:
                continue
            if (started := await self.start(flow)) is not None:
                return label if started else None
        return None

    async def start(self, flow: Flow) -> bool | None:
        """Starts the flow, where it says that it may; None where it does not."""
        look = await self.stores.operator.look(flow.flow_id, self.limits, self.failing)
        if look.capacity is None or not look.capacity.free:
            return None
        assert look.flow is not None
        attempt = look.flow.last_attempt + 1
        run_id = await self.stores.operator.start_attempt(
            flow.flow_id,
            act.StartAttempt(
                round=1,
                phase=look.flow.phase,
                attempt=attempt,
                job_name=f"{flow.flow_id}-{attempt}",
                launch_timeout=600,
            ),
            self.limits,
        )
        return run_id is not None

    async def end(self, label: str, retry_delay: float | None = None) -> None:
        """Ends the attempt of that flow, for good or to be tried again."""
        (flow,) = [flow for name, flow in self.flows.values() if name == label]
        run = (await flow.load()).run
        assert run is not None
        await self.stores.operator.apply(
            flow.flow_id,
            act.FailAttempt(
                run.run_id, code=ErrorCode.CRASHED, message="x", retry_delay=retry_delay
            ),
        )


@pytest.mark.parametrize("cap", [1, 3])
async def test_one_flow_does_not_wait_for_the_many_of_another_tenant(
    stores: Stores, cap: int
) -> None:
    queue = Queue(stores, (cap, cap))
    await queue.add("a", 30)
    running = sorted(await queue.hand_out())
    assert running == [f"a{number}" for number in range(cap)]
    await queue.add("b")
    assert await queue.hand_out() == []
    await queue.end(running[0])
    assert await queue.hand_out() == ["b0"]
    await queue.end("b0")
    assert await queue.hand_out() == [f"a{cap}"]


async def test_with_one_slot_tenants_take_turns(stores: Stores) -> None:
    queue = Queue(stores, (1, 1))
    for tenant in "abc":
        await queue.add(tenant, 2)
    order = []
    for _ in range(6):
        (label,) = await queue.hand_out()
        order.append(label)
        await queue.end(label)
    assert order == ["a0", "b0", "c0", "a1", "b1", "c1"]


async def test_a_flow_that_fails_again_and_again_keeps_nobody_waiting(stores: Stores) -> None:
    queue = Queue(stores, (1, 1))
    await queue.add("a")
    await queue.hand_out()
    await queue.add("b")
    await queue.end("a0", retry_delay=0)
    assert await queue.hand_out() == ["b0"]
    await queue.end("b0", retry_delay=3600)
    assert await queue.hand_out() == ["a0"]


@pytest.mark.parametrize("other", ["a", "b"])
async def test_a_flow_that_cannot_be_reconciled_loses_its_turn_until_it_can(
    stores: Stores, other: str
) -> None:
    queue = Queue(stores, (1, 1))
    await queue.add("a")
    (broken,) = queue.flows
    await queue.add(other, 2)
    first, second = [label for label, _ in queue.flows.values()][1:]
    queue.failing.add(broken)
    assert await queue.hand_out() == [first]
    await queue.end(first)
    queue.failing.clear()
    assert await queue.hand_out() == ["a0"]
    await queue.end("a0")
    assert await queue.hand_out() == [second]


async def test_a_flow_that_was_passed_over_still_sees_its_own_turn(stores: Stores) -> None:
    queue = Queue(stores, (1, 1))
    await queue.add("a", 3)
    oldest, *others = queue.flows
    look = await stores.operator.look(oldest, queue.limits, {oldest})
    assert look.capacity is not None
    assert look.capacity.free
    for other in others:
        look = await stores.operator.look(other, queue.limits)
        assert look.capacity is not None
        assert not look.capacity.free


async def test_both_caps_hold_and_the_oldest_of_a_tenant_comes_first(stores: Stores) -> None:
    queue = Queue(stores, (5, 2))
    await queue.add("a", 10)
    await queue.add("b", 3)
    assert sorted(await queue.hand_out()) == ["a0", "a1", "b0", "b1"]
    await queue.add("c", 4)
    assert await queue.hand_out() == ["c0"]
    await queue.end("a1")
    assert await queue.hand_out() == ["a2"]
    assert [
        label
        for label, flow in queue.flows.values()
        if (await flow.load()).state is FlowState.RUNNING
    ] == ["a0", "a2", "b0", "b1", "c0"]


@pytest.mark.parametrize(
    ("limits", "labels"),
    [
        ((1, 1), ["a0"]),
        ((4, 4), ["a0", "b0", "c0", "a1"]),
        ((4, 1), ["a0", "b0", "c0"]),
        ((100, 3), ["a0", "b0", "c0", "a1", "c1", "a2"]),
    ],
)
async def test_who_may_start_is_as_many_as_there_are_slots_and_in_turn(
    stores: Stores, limits: tuple[int, int], labels: list[str]
) -> None:
    queue = Queue(stores, limits)
    for tenant, count in (("a", 3), ("b", 1), ("c", 2), ("a", 1)):
        await queue.add(tenant, count)
    found = await stores.operator.startable(limits)
    assert [queue.flows[flow][0] for flow in found] == labels
    for flow in found:
        assert await queue.start(queue.flows[flow][1])
    assert await stores.operator.startable(limits) == []


async def test_a_flow_whose_time_has_not_come_is_not_startable(stores: Stores) -> None:
    queue = Queue(stores, (1, 1))
    await queue.add("a")
    await queue.hand_out()
    await queue.end("a0", retry_delay=3600)
    assert await stores.operator.startable(queue.limits) == []
    await queue.add("a")
    found = await stores.operator.startable(queue.limits)
    assert [queue.flows[flow][0] for flow in found] == ["a1"]
