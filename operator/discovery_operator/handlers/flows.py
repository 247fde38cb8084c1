"""Watches DiscoveryFlows."""

from __future__ import annotations

import kopf
from discovery_core.resource import GROUP, PLURAL, VERSION

from ..slim import Kind


@kopf.on.event(GROUP, VERSION, PLURAL)
async def flow_changed(event: kopf.RawEvent, memo: kopf.Memo, **_: object) -> None:
    """A DiscoveryFlow was listed, added, changed or deleted."""
    memo.intake.delivered(Kind.FLOW, event)
