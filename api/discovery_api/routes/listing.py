"""Lists of flows: what Kubernetes shows the caller, with the state that the resources carry.

Nothing is read from the database here, so nothing can be shown that RBAC would not show. A caller
who may not list everywhere is asked about namespace by namespace.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from discovery_core.errors import ProblemError
from discovery_core.states import STATES, FlowState
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from ..context import Context, RequestContext
from ..problems import InvalidRequestError
from ..views import FlowSummary

router = APIRouter(prefix="/api/v1/discovery", tags=["flows"])
AT_ONCE = 20
PAGE = 500

Namespace = Annotated[
    str | None, Query(max_length=63, description="only this namespace; default: all you may list")
]
Engagement = Annotated[str | None, Query(max_length=63, description="only this engagement")]


class FlowList(BaseModel):
    """A page of flows."""

    items: list[FlowSummary]
    next_cursor: str | None = Field(
        description="give it as `cursor` for what follows; null: the end"
    )


class Me(BaseModel):
    """Who the API server takes the caller for."""

    user: str
    groups: list[str]


@router.get("/flows", response_model=FlowList)
async def list_flows(
    context: Context,
    namespace: Namespace = None,
    engagement: Engagement = None,
    state: Annotated[FlowState | None, Query(description="only flows in this state")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: Annotated[str, Query(max_length=4096)] = "",
) -> FlowList:
    """The flows that the caller may list, by namespace and name.

    Without `namespace` and without the right to list everywhere, all that the caller may list
    comes as one page.
    """
    selector = field_selector(engagement, state)
    try:
        page = await context.caller.flows(namespace, selector=selector, limit=limit, after=cursor)
    except ProblemError as refused:
        if refused.status != 403 or namespace is not None:
            raise
        items = await of_allowed_namespaces(context, selector)
        return FlowList(items=[FlowSummary.of(item) for item in items], next_cursor=None)
    return FlowList(
        items=[FlowSummary.of(item) for item in page.items], next_cursor=page.next or None
    )


@router.get("/me", response_model=Me)
async def me(context: Context) -> Me:
    """Who you are to Kubernetes: the name that goes into `decidedBy`."""
    user = await context.caller.user()
    return Me(user=user.name, groups=list(user.groups))


def field_selector(engagement: str | None, state: FlowState | None) -> str:
    """As the resource's selectable fields have it. Raises ProblemError 422."""
    parts = []
    if engagement is not None:
        if any(character in engagement for character in ",=!\\"):
            raise InvalidRequestError(repr(engagement), title="Not an engagement")
        parts.append(f"spec.engagement={engagement}")
    if state is not None:
        parts.append(f"status.state={STATES[state].state}")
    return ",".join(parts)


async def all_flows(
    context: RequestContext, namespace: str | None, selector: str = ""
) -> list[dict[str, Any]]:
    """Every flow that the caller may list, page after page. Raises ProblemError."""
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        try:
            page = await context.caller.flows(namespace, selector=selector, limit=PAGE, after=after)
        except ProblemError as refused:
            if refused.status != 403 or namespace is not None:
                raise
            return await of_allowed_namespaces(context, selector)
        found += page.items
        after = page.next
        if not after:
            return found


async def of_allowed_namespaces(context: RequestContext, selector: str) -> list[dict[str, Any]]:
    """Flows of each namespace that the caller may list."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def of(namespace: str) -> list[dict[str, Any]]:
        async with gate:
            try:
                return await all_flows(context, namespace, selector)
            except ProblemError as refused:
                if refused.status in (403, 404):
                    return []
                raise

    names = await context.store.known_namespaces()
    lists = await asyncio.gather(*(of(name) for name in names))
    return [item for items in lists for item in items]
