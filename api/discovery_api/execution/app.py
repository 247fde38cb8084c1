"""The execution API's routes: thin, each one call of the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Protocol

from discovery_core.errors import DiscoveryError, ErrorCode, NotFoundError
from discovery_core.logging import bind
from discovery_core.resource import GROUP
from discovery_core.store import Database, ExecutionStore
from discovery_core.store.moves.breakers import BreakerRules
from discovery_core.wire.model import ArtefactReference, Digest
from discovery_core.wire.protocol import (
    Accepted,
    Claim,
    ClaimRequest,
    Complete,
    EngagementInputs,
    Fail,
    Heartbeat,
    HeartbeatAnswer,
    PinEngagement,
    PinInputs,
    PinnedInputs,
    RecordsAnswer,
)
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from fastapi.responses import StreamingResponse
from starlette.requests import HTTPConnection

from ..callers import Callers
from ..kubernetes import own_client
from ..limits import AtATime, Failures, Requests
from ..middleware import declared_bytes
from ..server import finish
from ..settings import ExecutionSettings
from .identity import Identifier, Identity, NobodysPodError
from .records import records_of

Fence = Annotated[int, Query(ge=1)]


class Identifies(Protocol):
    """What turns an Authorization header into an identity."""

    async def identify(self, authorization: str | None) -> Identity:
        """Raises ProblemError where the caller is not accepted."""
        ...


async def _identity(
    request: Request, authorization: Annotated[str | None, Header()] = None
) -> Identity:
    identity: Identity = await request.app.state.identifier.identify(authorization)
    about = {
        "flow": str(identity.flow_id),
        "tenant": str(identity.tenant_id),
        "namespace": identity.namespace,
        "pod": identity.pod_name,
    }
    for name in ("round", "phase", "attempt"):
        about[name] = identity.labels.get(f"{GROUP}/{name}", "")
    request.state.log |= about
    bind(**about)
    return identity


def _given_token(connection: HTTPConnection) -> str | None:
    """The token that a connection comes with, whatever it is worth."""
    return connection.headers.get("authorization") or None


async def _pod(connection: HTTPConnection) -> str:
    """Raises ProblemError for whoever is no crew pod; who it is, is remembered for the route."""
    identifier: Identifies = connection.app.state.identifier
    return (await identifier.identify(_given_token(connection))).pod_uid


def _store(request: Request) -> ExecutionStore:
    store: ExecutionStore = request.app.state.store
    return store


Caller = Annotated[Identity, Depends(_identity)]
Store = Annotated[ExecutionStore, Depends(_store)]
router = APIRouter(prefix="/execution/v1")


@router.post("/claim")
async def claim(caller: Caller, store: Store, request: Request, asked: ClaimRequest) -> Claim:
    """Binds the attempt that the pod's Job was made for to the pod."""
    try:
        claimed = await store.claim(
            tenant_id=caller.tenant_id,
            job_name=caller.job_name,
            job_uid=caller.job_uid,
            flow_id=caller.flow_id,
            pod_uid=caller.pod_uid,
            pod_name=caller.pod_name,
        )
    except NotFoundError as error:
        raise NobodysPodError(str(error)) from error
    request.state.log |= {"runner": asked.runner_version[:64]}
    return claimed


@router.post("/heartbeat")
async def heartbeat(caller: Caller, store: Store, beat: Heartbeat) -> HeartbeatAnswer:
    """Proof of life with progress."""
    return await store.heartbeat(tenant_id=caller.tenant_id, pod_uid=caller.pod_uid, beat=beat)


@router.post("/inputs")
async def pin_inputs(caller: Caller, store: Store, pin: PinInputs) -> PinnedInputs:
    """Fixes the bytes that every later attempt reads."""
    return await store.pin_inputs(tenant_id=caller.tenant_id, pod_uid=caller.pod_uid, pin=pin)


@router.post("/engagement")
async def pin_engagement(
    caller: Caller, store: Store, request: Request, asked: PinEngagement
) -> EngagementInputs:
    """What every attempt of this round reads of the flow's engagement."""
    settings = request.app.state.settings
    return await store.engagement.pin(
        tenant_id=caller.tenant_id,
        pod_uid=caller.pod_uid,
        fence=asked.fence,
        max_bytes=settings.max_artefact_bytes,
        tenant_bytes=settings.stored_bytes_per_tenant,
    )


@router.put("/artefacts")
async def put_artefact(
    caller: Caller,
    store: Store,
    request: Request,
    fence: Fence,
    media_type: Annotated[
        str, Query(alias="mediaType", max_length=128, pattern=r"^[\w.+-]+/[\w.+-]+$")
    ] = "application/octet-stream",
) -> ArtefactReference:
    """Stores a stream of bytes; the answer names its digest."""
    limit = request.app.state.settings.max_artefact_bytes
    declared = _check_declared(request, limit)
    with request.app.state.bodies.one(caller.pod_uid):
        return await store.store_artefact(
            tenant_id=caller.tenant_id,
            pod_uid=caller.pod_uid,
            fence=fence,
            media_type=media_type,
            stream=request.stream(),
            max_bytes=limit,
            tenant_bytes=request.app.state.settings.stored_bytes_per_tenant,
            declared=declared,
        )


@router.get("/artefacts/{digest}")
async def get_artefact(
    caller: Caller, store: Store, digest: Digest, fence: Fence
) -> StreamingResponse:
    """The bytes of an artefact of the attempt's own flow."""
    pieces = store.read_artefact(
        tenant_id=caller.tenant_id, pod_uid=caller.pod_uid, fence=fence, digest=digest
    )
    # the first piece is read here, so that "not found" can still be said with a status
    first = await anext(pieces)

    async def body() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return StreamingResponse(body(), media_type="application/octet-stream")


@router.put("/records")
async def put_records(
    caller: Caller, store: Store, request: Request, fence: Fence
) -> RecordsAnswer:
    """Stages inventory rows, one JSON object a line."""
    settings = request.app.state.settings
    _check_declared(request, settings.max_artefact_bytes)
    with request.app.state.bodies.one(caller.pod_uid):
        staged = await store.stage_records(
            tenant_id=caller.tenant_id,
            pod_uid=caller.pod_uid,
            fence=fence,
            records=records_of(
                request.stream(),
                max_line=settings.max_record_bytes,
                max_bytes=settings.max_artefact_bytes,
            ),
        )
    return RecordsAnswer(records=staged)


@router.post("/complete")
async def complete(caller: Caller, store: Store, message: Complete) -> Accepted:
    """The attempt's result."""
    await store.complete(
        tenant_id=caller.tenant_id, pod_uid=caller.pod_uid, message=message, node=caller.node
    )
    return Accepted()


@router.post("/fail")
async def fail(caller: Caller, store: Store, message: Fail) -> Accepted:
    """The attempt's failure."""
    await store.fail(tenant_id=caller.tenant_id, pod_uid=caller.pod_uid, message=message)
    return Accepted()


def _check_declared(request: Request, limit: int) -> int:
    """The bytes that a body says it has, or 1. Raises DiscoveryError(LIMIT_EXCEEDED)."""
    size = declared_bytes(request.headers) or 1
    if size > limit:
        raise DiscoveryError(ErrorCode.LIMIT_EXCEEDED, f"the body is larger than {limit} bytes")
    return size


def create_app(
    db: Database, settings: ExecutionSettings, identifier: Identifies | None = None
) -> FastAPI:
    """The application over an open database; closes it at the end.

    Callers are identified by `identifier`, by default with this pod's own Kubernetes client.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        client = None
        if identifier is None:
            # the client has to be made inside the running event loop
            client = own_client(settings)
            app.state.identifier = Identifier(client, settings.identity_cache_seconds)
        yield
        if client is not None:
            await client.close()
        await db.close()

    app = FastAPI(
        title="DiscoveryFlow execution API",
        version="v1",
        docs_url=None,
        redoc_url=None,
        openapi_url="/execution/v1/openapi.json",
        lifespan=lifespan,
    )
    app.state.identifier = identifier
    app.state.store = ExecutionStore(
        db,
        BreakerRules(settings.llm_breaker_failures, settings.llm_breaker_cool_down_seconds),
    )
    app.state.settings = settings
    app.include_router(router)
    app.state.bodies = AtATime(
        settings.bodies_per_pod, "artefacts and streams of records per crew pod at once"
    )
    app.add_middleware(
        Callers,
        token_of=_given_token,
        identify=_pod,
        requests=Requests(settings.requests_per_second, settings.request_burst),
        failures=Failures(settings.failed_tokens, settings.failed_tokens_per_second),
        public=("/execution/v1/openapi.json",),
    )
    return finish(
        app,
        db,
        settings,
        max_message_bytes=settings.max_message_bytes,
        streamed=("/execution/v1/artefacts", "/execution/v1/records"),
    )
