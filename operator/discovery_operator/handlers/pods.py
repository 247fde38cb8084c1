"""Watches crew pods."""

from __future__ import annotations

import kopf

from ..cache import Kind
from ..manifests.names import MANAGED_BY, PRODUCT


@kopf.on.event("", "v1", "pods", labels={MANAGED_BY: PRODUCT})
async def pod_changed(event: kopf.RawEvent, memo: kopf.Memo, **_: object) -> None:
    """A pod was listed, added, changed or deleted."""
    memo.intake.changed(Kind.POD, event["type"], event["object"])
