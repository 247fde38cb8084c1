"""Server-sent events and a WebSocket: what happens to flows, as it happens.

A stream about one flow sends its history entries, with their numbers as event ids; after a
reconnect with Last-Event-ID nothing is missed and nothing comes twice. A stream about all flows
begins with where each of them stands, and so does every reconnect.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Any
from uuid import UUID

from discovery_core.errors import NotFoundError, ProblemError
from discovery_core.loops import set_aside
from discovery_core.phases import progress
from discovery_core.snapshots import FlowEvent, FlowSnapshot
from discovery_core.states import STATES, FlowState, is_ended
from fastapi import APIRouter, Header, Query, Request, WebSocket
from fastapi.responses import StreamingResponse
from starlette.websockets import WebSocketDisconnect

from ..auth import token_of
from ..context import Context, RequestContext, Visit, Visited, context_of
from ..limits import AtATime
from ..live import Live
from ..problems import TooManyRequestsError
from .listing import Namespace, all_flows

router = APIRouter(prefix="/api/v1/discovery", tags=["live"])

# a client that hears nothing for longer is to reconnect
BEAT_SECONDS = 10.0
PROGRESS_SECONDS = 2.0
# how often it is asked again whether the caller may still see what is sent
RECHECK_SECONDS = 60.0
STREAM_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@dataclass(frozen=True)
class Message:
    """One message; without `event` it only shows that the connection lives."""

    event: str = ""
    data: dict[str, Any] | None = None
    id: str = ""

    def as_event(self) -> str:
        """As server-sent events have it."""
        if not self.event:
            return ": beat\n\n"
        head = f"id: {self.id}\n" if self.id else ""
        return f"{head}event: {self.event}\ndata: {json.dumps(self.data, ensure_ascii=False)}\n\n"

    def as_text(self) -> str:
        """As the WebSocket has it."""
        return json.dumps(
            {"event": self.event or "beat", "id": self.id, "data": self.data}, ensure_ascii=False
        )


@router.get("/flows/{flow_id}/events", response_class=StreamingResponse)
async def flow_events(
    request: Request,
    visited: Visited,
    last_event_id: Annotated[str, Header(max_length=32)] = "",
    after: Annotated[int, Query(ge=0, le=2**62, description="as Last-Event-ID")] = 0,
) -> StreamingResponse:
    """What happens to one flow: `entry` (history), `progress`, `gone`; SSE."""
    begin = int(last_event_id) if last_event_id.isdecimal() else after
    messages = _counted(request, of_flow(_live(request), visited, begin))
    return StreamingResponse(
        _events(messages), media_type="text/event-stream", headers=STREAM_HEADERS
    )


@router.get("/events", response_class=StreamingResponse)
async def all_events(
    request: Request, context: Context, namespace: Namespace = None
) -> StreamingResponse:
    """Where the flows that you may see stand: `flow` whenever one moves; SSE."""
    # refused here, while an error can still be an answer
    await all_flows(context, namespace)
    messages = _counted(request, of_all(_live(request), context, namespace))
    return StreamingResponse(
        _events(messages), media_type="text/event-stream", headers=STREAM_HEADERS
    )


@router.websocket("/ws")
async def socket(
    websocket: WebSocket,
    flow_id: UUID | None = None,
    namespace: Namespace = None,
    after: Annotated[int, Query(ge=0, le=2**62)] = 0,
) -> None:
    """The same messages as the streams of events: of one flow, or of all."""
    try:
        async with context_of(websocket, token_of(websocket)) as context:
            live = _live(websocket)
            if flow_id is None:
                await all_flows(context, namespace)
                messages = of_all(live, context, namespace)
            else:
                messages = of_flow(live, await context.visit(flow_id), after)
            counted = _counted(websocket, messages)
            await websocket.accept()
            async for message in counted:
                await websocket.send_text(message.as_text())
        await websocket.close(code=1000)
    except ProblemError as refused:
        # before accept() this is an HTTP answer 403; its reason is in the log
        await websocket.close(code=1008, reason=refused.title[:100])
    except WebSocketDisconnect:
        return


def _counted(
    connection: Request | WebSocket, messages: AsyncIterator[Message]
) -> AsyncIterator[Message]:
    """The messages of a stream, which is counted for whoever asks. Raises ProblemError 429."""
    streams: AtATime = connection.app.state.streams
    person: str = connection.state.principal
    streams.require(person)

    async def counted() -> AsyncIterator[Message]:
        # begun side by side, the last ones find no place: they end, and are told when they return
        with contextlib.suppress(TooManyRequestsError), streams.one(person):
            async for message in messages:
                yield message

    return counted()


def _live(connection: Request | WebSocket) -> Live:
    live: Live = connection.app.state.live
    return live


async def _events(messages: AsyncIterator[Message]) -> AsyncIterator[str]:
    yield "retry: 2000\n\n"
    async for message in messages:
        yield message.as_event()


async def of_flow(live: Live, visited: Visit, after: int) -> AsyncIterator[Message]:
    """History entries after a number as they come, and progress in between; ends when gone."""
    store, tenant_id, flow_id = visited.store, visited.tenant_id, visited.flow_id
    clock = asyncio.get_running_loop().time
    shown: dict[str, Any] | None = None
    spoken = checked = clock()
    with live.subscribed(flow_id) as subscription:
        while not subscription.closed:
            flow = await store.flow(tenant_id, flow_id)
            messages = [
                Message("entry", _entry(entry), str(entry.sequence))
                for entry in await store.history(tenant_id, flow_id, after)
            ]
            after = int(messages[-1].id) if messages else after
            now = moment_of(flow)
            if now != shown:
                shown = now
                messages.append(Message("progress", now))
            if not messages and clock() - spoken >= BEAT_SECONDS:
                messages.append(Message())
            for message in messages:
                spoken = clock()
                yield message
            await subscription.wait(
                PROGRESS_SECONDS if flow.state is FlowState.RUNNING else BEAT_SECONDS
            )
            if clock() - checked >= RECHECK_SECONDS:
                checked = clock()
                if not await _still_visible(visited):
                    yield Message("gone", {"flow_id": str(flow_id)})
                    return


async def _still_visible(visited: Visit) -> bool:
    """Whether the caller may still see this very flow; an API server that is away decides nothing.

    In a namespace that was made anew, a flow of the same name is somebody else's.
    """
    try:
        resource = await visited.look()
    except ProblemError as refused:
        return refused.status == 503
    return bool(resource["metadata"]["uid"] == str(visited.flow_id))


def _entry(entry: FlowEvent) -> dict[str, Any]:
    return {
        "sequence": entry.sequence,
        "at": entry.at.isoformat(),
        "actor": entry.actor,
        "trigger": entry.trigger,
        "from_state": entry.from_state,
        "to_state": entry.to_state,
        "phase": entry.phase,
        "round": entry.round,
        "attempt": entry.attempt,
        "message": entry.message,
    }


def moment_of(flow: FlowSnapshot) -> dict[str, Any]:
    """How a flow stands, for whoever watches it."""
    run = flow.run
    return {
        "flow_id": str(flow.flow_id),
        "state": str(flow.state),
        "phase": str(flow.phase),
        "phase_status": STATES[flow.state].phase_status,
        "progress": progress(flow.phase, finished=flow.state is FlowState.SUCCEEDED),
        "round": flow.round,
        "version": flow.version,
        "ended": is_ended(flow.state),
        "request_id": str(flow.request.request_id) if flow.request is not None else None,
        "message": flow.told,
        "rows_done": run.progress_done if run is not None else None,
        "rows_total": run.progress_total if run is not None else None,
        "activity": run.progress_message if run is not None else "",
    }


async def of_all(
    live: Live, context: RequestContext, namespace: str | None
) -> AsyncIterator[Message]:
    """Where each visible flow stands, now and whenever one moves.

    Kubernetes is asked about a flow when it first moves, and about all of them once a minute.
    """
    clock = asyncio.get_running_loop().time
    seen = Seen(namespace)
    checked, spoken = float("-inf"), clock()
    with live.subscribed(None) as subscription:
        pending: set[UUID] = set()
        while not subscription.closed:
            if clock() - checked >= RECHECK_SECONDS:
                checked = clock()
                listed = await all_flows(context, namespace)
                visible = {UUID(item["metadata"]["uid"]) for item in listed}
                seen.keep(visible)
                pending |= visible
            for flow_id in pending:
                moved = await _moved_or_nothing(context, flow_id, seen)
                if moved is not None:
                    spoken = clock()
                    yield moved
            if clock() - spoken >= BEAT_SECONDS:
                spoken = clock()
                yield Message()
            pending, rescan = await subscription.wait(BEAT_SECONDS)
            checked = float("-inf") if rescan else checked


@dataclass
class Seen:
    """What a stream about all flows knows.

    `tenants` says whose each flow is (None: not to be shown), `versions` what was sent last.
    """

    namespace: str | None
    tenants: dict[UUID, UUID | None] = field(default_factory=dict)
    versions: dict[UUID, int] = field(default_factory=dict)

    def keep(self, visible: set[UUID]) -> None:
        """Forgets what is not visible (any more), so that it is asked about anew."""
        self.tenants = {key: self.tenants[key] for key in visible & self.tenants.keys()}


async def _moved_or_nothing(context: RequestContext, flow_id: UUID, seen: Seen) -> Message | None:
    """As `_moved`; a flow that cannot be told ends no stream about all the others."""
    with set_aside("live", flow=str(flow_id)):
        try:
            return await _moved(context, flow_id, seen)
        except NotFoundError:
            # its data has just been purged
            return None
    return None


async def _moved(context: RequestContext, flow_id: UUID, seen: Seen) -> Message | None:
    """A message where the flow is visible to the caller and has moved since the last one."""
    if flow_id not in seen.tenants:
        location = await context.store.locate(flow_id)
        if location is None:
            return None
        try:
            resource = await context.caller.flow(location.namespace, location.name)
        except ProblemError as refused:
            if refused.status == 503:
                return None
            resource = {"metadata": {"uid": ""}}
        shown = resource["metadata"]["uid"] == str(flow_id)
        shown = shown and seen.namespace in (None, location.namespace)
        seen.tenants[flow_id] = location.tenant_id if shown else None
    tenant_id = seen.tenants[flow_id]
    if tenant_id is None:
        return None
    flow = await context.store.flow(tenant_id, flow_id)
    if seen.versions.get(flow_id, -1) >= flow.version:
        return None
    seen.versions[flow_id] = flow.version
    named = {"name": flow.name, "namespace": flow.namespace, "engagement": flow.engagement}
    return Message("flow", moment_of(flow) | named)
