"""Who is woken when a slot is free."""

from __future__ import annotations

from uuid import UUID, uuid4

from discovery_operator.observed import Rules
from discovery_operator.slots import LOOKS_PER_SECOND, Slots

from tests.unit.operator.builders import at


def test_tenants_are_woken_in_turn_and_the_oldest_of_each_first() -> None:
    slots, many, few = Slots(), uuid4(), uuid4()
    running = uuid4()
    slots.took(running, many)
    crowd = [uuid4() for _ in range(50)]
    for age, flow in enumerate(crowd):
        slots.waits(flow, many, at(age))
    single = uuid4()
    slots.waits(single, few, at(1000))
    assert slots.gave_up(running)
    assert slots.next_in_line(3) == [single, crowd[0], crowd[1]]
    assert not slots.gave_up(running)


def test_whoever_has_a_slot_or_wants_none_is_not_woken() -> None:
    slots, tenant = Slots(), uuid4()
    flows: list[UUID] = [uuid4() for _ in range(2)]
    for flow in flows:
        slots.waits(flow, tenant, at(0))
    slots.waits_no_more(flows[0])
    assert slots.next_in_line(10) == [flows[1]]


def test_the_more_flows_wait_the_less_often_each_is_looked_at() -> None:
    slots, tenant, rules = Slots(), uuid4(), Rules()
    slots.took(uuid4(), tenant)
    slots.waits(uuid4(), tenant, at(0))
    assert slots.eased(rules) == rules
    for _ in range(999):
        slots.took(uuid4(), tenant)
    eased = slots.eased(rules)
    assert (eased.progress_poll, eased.slot_poll) == (1000 / LOOKS_PER_SECOND, rules.slot_poll)
    for _ in range(499):
        slots.waits(uuid4(), tenant, at(0))
    assert slots.eased(rules).slot_poll == 500 / LOOKS_PER_SECOND
    assert slots.eased(rules).stray_grace == rules.stray_grace
