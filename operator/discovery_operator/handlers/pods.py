"""Watches crew pods."""

from __future__ import annotations

import kopf

from ..manifests.names import MANAGED_BY, PRODUCT
from ..slim import Kind


@kopf.on.event("", "v1", "pods", labels={MANAGED_BY: PRODUCT})
async def pod_changed(event: kopf.RawEvent, memo: kopf.Memo, **_: object) -> None:
    """A pod was listed, added, changed or deleted."""
    memo.intake.delivered(Kind.POD, event)
