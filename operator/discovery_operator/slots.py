"""Whom to wake when a slot is free, so that it is taken at once and not at the next poll.

Only a hint: the store decides who may start. What it would decide is followed as far as this
process has seen: the tenant with the fewest attempts first, then the one served longest ago.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from .observed import Rules

# looks per second at all flows that only wait, however many they are
LOOKS_PER_SECOND = 3.0


class Slots:
    """Flows that have a slot and flows that wait for one, by tenant."""

    def __init__(self) -> None:
        self._taken: dict[UUID, UUID] = {}
        self._waiting: dict[UUID, tuple[UUID, datetime]] = {}
        self._served: dict[UUID, int] = {}
        self._count = 0

    def waits(self, flow: UUID, tenant: UUID, since: datetime) -> None:
        """The flow is queued and due, and there is no slot for it."""
        self._waiting[flow] = (tenant, since)

    def waits_no_more(self, flow: UUID) -> None:
        """The flow has a slot, or does not want one."""
        self._waiting.pop(flow, None)

    def took(self, flow: UUID, tenant: UUID) -> None:
        """The flow has a slot."""
        if flow not in self._taken:
            self._taken[flow] = tenant
            self._count += 1
            self._served[tenant] = self._count

    def gave_up(self, flow: UUID) -> bool:
        """The flow has no slot; returns whether it had one."""
        return self._taken.pop(flow, None) is not None

    def next_in_line(self, limit: int) -> list[UUID]:
        """Waiting flows, whose turn comes first, first."""
        position: Counter[UUID] = Counter(self._taken.values())
        places: list[tuple[int, int, datetime, UUID]] = []
        for flow, (tenant, since) in sorted(self._waiting.items(), key=lambda item: item[1][1]):
            places.append((position[tenant], self._served.get(tenant, 0), since, flow))
            position[tenant] += 1
        return [flow for *_, flow in sorted(places)[:limit]]

    def eased(self, rules: Rules) -> Rules:
        """With many flows at work or in the queue, each is looked at without cause less often.

        Deadlines stay, and what happens is looked at at once.
        """
        return replace(
            rules,
            slot_poll=max(rules.slot_poll, len(self._waiting) / LOOKS_PER_SECOND),
            progress_poll=max(rules.progress_poll, len(self._taken) / LOOKS_PER_SECOND),
        )
