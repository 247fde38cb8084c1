"""Watches Jobs of the product."""

from __future__ import annotations

import kopf

from ..manifests.names import MANAGED_BY, PRODUCT
from ..slim import Kind


@kopf.on.event("batch", "v1", "jobs", labels={MANAGED_BY: PRODUCT})
async def job_changed(event: kopf.RawEvent, memo: kopf.Memo, **_: object) -> None:
    """A Job was listed, added, changed or deleted."""
    memo.intake.delivered(Kind.JOB, event)
