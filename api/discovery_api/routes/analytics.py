"""Figures about flows, per namespace, and the overview for whoever may see them all."""

from __future__ import annotations

from collections import Counter
from typing import Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, Field

from ..context import Context
from ..views import FlowSummary
from .listing import Engagement, Namespace, all_flows, field_selector

router = APIRouter(prefix="/api/v1/discovery", tags=["analytics"])
NAMESPACES = 50
SHOWN = 50


class Analytics(BaseModel):
    """Per namespace: `flows` by state, `phases`, `failures`, `approvals`, `confidence`."""

    namespaces: dict[str, dict[str, Any]]
    truncated: bool = Field(description="more than 50 namespaces have flows; name one")


class Overview(BaseModel):
    """All flows of the cluster in figures, and those that wait for a person."""

    flows: int
    by_state: dict[str, int]
    by_namespace: dict[str, dict[str, int]]
    waiting: list[FlowSummary] = Field(description="requests open, the next to expire first")
    stalled: list[FlowSummary] = Field(description="failed, or waiting for something missing")


@router.get("/analytics", response_model=Analytics)
async def get_analytics(
    context: Context, namespace: Namespace = None, engagement: Engagement = None
) -> Analytics:
    """How long phases take, what people change, what models cost, what fails."""
    flows = await all_flows(context, namespace, field_selector(engagement, None))
    one_of: dict[str, UUID] = {}
    for item in flows:
        one_of.setdefault(item["metadata"]["namespace"], UUID(item["metadata"]["uid"]))
    found = {}
    for name in sorted(one_of)[:NAMESPACES]:
        location = await context.store.locate(one_of[name])
        if location is not None:
            found[name] = await context.store.analytics(location.tenant_id, engagement)
    return Analytics(namespaces=found, truncated=len(one_of) > NAMESPACES)


@router.get("/overview", response_model=Overview)
async def get_overview(context: Context) -> Overview:
    """Needs the right to list DiscoveryFlows in all namespaces."""
    await context.caller.require_everywhere("list")
    items = [FlowSummary.of(item) for item in await all_flows(context, None)]
    waiting = [item for item in items if item.approval_request is not None]
    waiting.sort(key=lambda item: str((item.approval_request or {}).get("expiresAt", "")))
    by_namespace: dict[str, Counter[str]] = {}
    for item in items:
        by_namespace.setdefault(item.namespace, Counter())[item.state] += 1
    return Overview(
        flows=len(items),
        by_state=dict(Counter(item.state for item in items)),
        by_namespace={name: dict(counts) for name, counts in sorted(by_namespace.items())},
        waiting=waiting[:SHOWN],
        stalled=[item for item in items if item.state in ("Failed", "Waiting")][:SHOWN],
    )
