"""The pages: each gathers what it shows and renders one template."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Annotated, Any

from discovery_core.credentials import ENDINGS, MARKS, PHRASES
from discovery_core.errors import NotFoundError
from discovery_core.phases import PHASES, Phase
from discovery_core.snapshots import AttemptRecord
from discovery_core.states import FlowState, is_ended
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from ..context import RequestContext
from ..problems import TooLargeError
from ..routes import results
from ..routes.analytics import get_analytics, get_overview
from ..routes.files import content
from ..routes.listing import all_flows, field_selector
from ..views import FlowSummary
from .graph import parts_of
from .signed_in import FlowPage, OnFlow, OnPage, SignedIn
from .templating import page

router = APIRouter(include_in_schema=False)
PER_PAGE = 100
DRAWN = 12
EDGES_LISTED = 500
_ASKS_AGAIN = (FlowState.REJECTED, FlowState.SUCCEEDED, FlowState.FAILED)


async def _flows(
    context: RequestContext, namespace: str, engagement: str, state: FlowState | None
) -> list[FlowSummary]:
    found = await all_flows(context, namespace or None, field_selector(engagement or None, state))
    return [FlowSummary.of(item) for item in found]


@router.get("/")
async def inbox(request: Request, session: SignedIn, context: OnPage) -> Response:
    """What waits for a person: open questions, the next to expire first, and what has stalled."""
    flows = await _flows(context, "", "", None)
    waiting = [flow for flow in flows if flow.approval_request is not None]
    waiting.sort(key=lambda flow: str((flow.approval_request or {}).get("expiresAt", "")))
    return page(
        request,
        "inbox.html",
        session,
        waiting=waiting,
        may=await _may_approve(context, waiting),
        stalled=[flow for flow in flows if flow.state in ("Failed", "Waiting")][:20],
        running=[flow for flow in flows if flow.state in ("Pending", "Queued", "Running")][:20],
        total=len(flows),
    )


async def _may_approve(context: RequestContext, flows: list[FlowSummary]) -> dict[str, bool]:
    """By namespace, whether the person may answer there."""
    names = sorted({flow.namespace for flow in flows})
    allowed = await asyncio.gather(*(context.caller.may("approve", name) for name in names))
    return dict(zip(names, allowed, strict=True))


@router.get("/flows")
async def flow_list(
    request: Request,
    session: SignedIn,
    context: OnPage,
    namespace: Annotated[str, Query(max_length=63)] = "",
    engagement: Annotated[str, Query(max_length=63)] = "",
    state: Annotated[str, Query(max_length=30)] = "",
    first: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> Response:
    """All flows that the person may list."""
    wanted = FlowState(state) if state in list(FlowState) else None
    flows = await _flows(context, namespace, engagement, wanted)
    flows.sort(key=lambda flow: (flow.created_at, flow.name), reverse=True)
    return page(
        request,
        "flows.html",
        session,
        flows=flows[first : first + PER_PAGE],
        total=len(flows),
        first=first,
        following=first + PER_PAGE if first + PER_PAGE < len(flows) else None,
        namespace=namespace,
        engagement=engagement,
        state=state,
    )


@router.get("/flows/new")
async def new_flow(request: Request, session: SignedIn, context: OnPage) -> Response:
    """The form for a new flow; a script sends it and shows the progress."""
    flows = await _flows(context, "", "", None)
    return page(
        request,
        "new.html",
        session,
        namespaces=sorted({flow.namespace for flow in flows}),
        engagements=sorted({flow.engagement for flow in flows if flow.engagement}),
        limit=context.settings.max_upload_bytes,
        credentials={
            "endings": ENDINGS,
            "phrases": PHRASES.pattern,
            "marks": MARKS.pattern,
        },
    )


@router.get("/flows/{flow_id}")
async def flow_page(request: Request, on: OnFlow) -> Response:
    """How a flow stands, live."""
    return page(request, "flow.html", on.session, **await _standing(on))


@router.get("/flows/{flow_id}/live")
async def flow_live(request: Request, on: OnFlow) -> Response:
    """The part of the flow's page that changes."""
    return page(request, "_standing.html", on.session, **await _standing(on))


async def _standing(on: FlowPage) -> dict[str, Any]:
    visit, flow = on.visit, on.flow
    attempts = await visit.store.attempts(visit.tenant_id, visit.flow_id)
    found = await visit.store.results(visit.tenant_id, visit.flow_id)
    order = [spec.name for spec in PHASES]
    mapped = any(a.phase == Phase.FIELD_MAPPING and a.state == "Succeeded" for a in attempts)
    return on.shown(
        # a round begins where everything before it has a result
        starts=order[: order.index(flow.phase) + 1],
        may_ask=mapped
        and flow.state in (FlowState.REJECTED, FlowState.SUCCEEDED, FlowState.FAILED),
        timeline=_timeline(on, attempts),
        results=found,
        ended=is_ended(flow.state),
        asking=flow.state is FlowState.AWAITING_APPROVAL and flow.request is not None,
    )


def _timeline(on: FlowPage, attempts: list[AttemptRecord]) -> list[dict[str, Any]]:
    """Each phase: whether it is done, at work or to come, since when and for how long."""
    flow = on.flow
    order = [spec.name for spec in PHASES]
    here = order.index(flow.phase)
    steps = []
    for number, spec in enumerate(PHASES):
        mine = [a for a in attempts if a.phase == spec.name]
        done = next((a for a in reversed(mine) if a.state == "Succeeded"), None)
        if flow.state is FlowState.SUCCEEDED or number < here:
            state = "done"
        elif number == here:
            failed = flow.state in (FlowState.FAILED, FlowState.REJECTED, FlowState.CANCELLED)
            asks = flow.state is FlowState.AWAITING_APPROVAL
            state = "failed" if failed else "asks" if asks else "active"
        else:
            state = "to come"
        seconds = None
        if done is not None and done.claimed_at and done.finished_at:
            seconds = (done.finished_at - done.claimed_at).total_seconds()
        steps.append(
            {
                "phase": str(spec.name),
                "state": state,
                "attempts": len(mine),
                "seconds": seconds,
                "finished": done.finished_at if done is not None else None,
                "activity": _activity(on) if state == "active" else "",
            }
        )
    return steps


def _activity(on: FlowPage) -> str:
    run = on.flow.run
    if run is None or not run.progress_message:
        return ""
    rows = ""
    if run.progress_done is not None:
        rows = f", {run.progress_done} of {run.progress_total or '?'} rows"
    return f"{run.progress_message}{rows}"


@router.get("/flows/{flow_id}/review")
async def review(request: Request, on: OnFlow) -> Response:
    """The mappings in question, to be judged; or what was decided about them."""
    return await review_page(request, on)


async def review_page(
    request: Request,
    on: FlowPage,
    *,
    problems: list[str] | None = None,
    typed: dict[str, dict[str, str]] | None = None,
    words: dict[str, str] | None = None,
    status_code: int = 200,
) -> Response:
    """The review with what a person had typed, where it was refused."""
    visit, flow = on.visit, on.flow
    mappings = []
    if flow.request is not None:
        mappings = await visit.store.mappings(visit.tenant_id, flow.request.request_id)
    decided = [
        entry
        for entry in await visit.store.history(visit.tenant_id, visit.flow_id)
        if entry.trigger in ("Approved", "Rejected", "AskedAgain", "ExpiredRejected",
                             "ExpiredApproved")
    ]  # fmt: skip
    return page(
        request,
        "review.html",
        on.session,
        status_code=status_code,
        **on.shown(
            mappings=mappings,
            asking=flow.state is FlowState.AWAITING_APPROVAL and flow.request is not None,
            decided=decided[-1] if decided else None,
            problems=problems or [],
            typed=typed or {},
            words=words or {"reason": "", "hint": ""},
        ),
    )


@router.get("/flows/{flow_id}/quality")
async def quality(request: Request, on: OnFlow) -> Response:
    """The quality report, the first rows, and what was rejected."""
    report = preview = None
    with suppress(NotFoundError):
        report = await results.get_quality(on.visit)
        preview = await results.get_records(on.visit, limit=20, phase=None)
    return page(request, "quality.html", on.session, **on.shown(report=report, preview=preview))


@router.get("/flows/{flow_id}/rejected")
async def rejected(request: Request, on: OnFlow) -> Response:
    """Rows that were not imported, the first of them on the page, all in the file."""
    rows: list[list[str]] = []
    with suppress(NotFoundError, TooLargeError):
        text = (await content(on.visit, Phase.DATA_IMPORT, "rejected")).decode("utf-8-sig")
        rows = results.table_of(text, 201)
    return page(request, "rejected.html", on.session, **on.shown(rows=rows))


@router.get("/flows/{flow_id}/inventory")
async def inventory(
    request: Request,
    on: OnFlow,
    q: Annotated[str, Query(max_length=200)] = "",
    kind: Annotated[str, Query(max_length=63)] = "",
    cursor: Annotated[str, Query(max_length=1024)] = "",
) -> Response:
    """The assets of the flow's engagement, with charts."""
    found = await results.get_assets(on.visit, q=q, asset_type=kind, limit=PER_PAGE, cursor=cursor)
    strategies = None
    with suppress(NotFoundError):
        strategies = await results.get_strategies(on.visit)
    conflicts = await on.visit.store.conflicts(on.visit.tenant_id, on.flow.engagement)
    return page(
        request,
        "inventory.html",
        on.session,
        **on.shown(
            assets=found,
            q=q,
            kind=kind,
            strategies=strategies,
            conflicts=conflicts[:PER_PAGE],
            conflicts_in_all=len(conflicts),
        ),
    )


@router.get("/flows/{flow_id}/inventory/asset")
async def asset(
    request: Request,
    on: OnFlow,
    identity: Annotated[str, Query(min_length=1, max_length=512)],
) -> Response:
    """One asset: every value with the text, the unit and the rule that it came from."""
    sources = await results.get_asset_sources(on.visit, identity)
    return page(request, "asset.html", on.session, **on.shown(identity=identity, sources=sources))


@router.get("/flows/{flow_id}/dependencies")
async def dependencies(request: Request, on: OnFlow) -> Response:
    """What needs what: drawn by group, and as a table."""
    graph = None
    with suppress(NotFoundError):
        graph = await results.dependency_graph(on.visit)
    parts = parts_of(graph)[:DRAWN] if graph is not None else []
    return page(
        request,
        "dependencies.html",
        on.session,
        **on.shown(graph=graph, parts=parts, listed=EDGES_LISTED),
    )


@router.get("/flows/{flow_id}/history")
async def history(request: Request, on: OnFlow) -> Response:
    """Who did what, when; and every attempt with what it judged and cost."""
    visit = on.visit
    return page(
        request,
        "history.html",
        on.session,
        **on.shown(
            entries=await visit.store.history(visit.tenant_id, visit.flow_id),
            attempts=await visit.store.attempts(visit.tenant_id, visit.flow_id),
        ),
    )


@router.get("/flows/{flow_id}/files")
async def files(request: Request, on: OnFlow) -> Response:
    """What can be downloaded."""
    return page(
        request,
        "files.html",
        on.session,
        **on.shown(files=await results.list_artefacts(on.visit)),
    )


@router.get("/analytics")
async def analytics(
    request: Request,
    session: SignedIn,
    context: OnPage,
    namespace: Annotated[str, Query(max_length=63)] = "",
    engagement: Annotated[str, Query(max_length=63)] = "",
) -> Response:
    """Durations, approvals, confidence, cost."""
    figures = await get_analytics(
        context, namespace=namespace or None, engagement=engagement or None
    )
    return page(
        request,
        "analytics.html",
        session,
        figures=figures,
        namespace=namespace,
        engagement=engagement,
    )


@router.get("/overview")
async def overview(request: Request, session: SignedIn, context: OnPage) -> Response:
    """All flows of the cluster, for whoever may list them."""
    return page(request, "overview.html", session, overview=await get_overview(context))
