"""The execution API's routes: thin, each one call of the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Protocol

from discovery_core.errors import NotFoundError
from discovery_core.store import Database, ExecutionStore
from discovery_core.wire import (
    Accepted,
    ArtefactReference,
    Claim,
    ClaimRequest,
    Complete,
    Digest,
    Fail,
    Heartbeat,
    HeartbeatAnswer,
    InventoryRecord,
    PinInputs,
    PinnedInputs,
    RecordsAnswer,
)
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import ValidationError

from .. import problems
from ..server import add_health, add_request_log
from ..settings import ExecutionSettings
from .identity import Identity

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
    request.state.log = {
        "flow": str(identity.flow_id),
        "tenant": str(identity.tenant_id),
        "namespace": identity.namespace,
        "pod": identity.pod_name,
    }
    return identity


def _store(request: Request) -> ExecutionStore:
    store: ExecutionStore = request.app.state.store
    return store


Caller = Annotated[Identity, Depends(_identity)]
Store = Annotated[ExecutionStore, Depends(_store)]
router = APIRouter(prefix="/execution/v1")


@router.post("/claim")
async def claim(caller: Caller, store: Store, request: Request, _: ClaimRequest) -> Claim:
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
        raise problems.ProblemError(
            403, "forbidden", "This pod is nobody's attempt", str(error)
        ) from error
    request.state.log |= {"phase": str(claimed.phase), "attempt": claimed.attempt}
    return claimed


@router.post("/heartbeat")
async def heartbeat(caller: Caller, store: Store, beat: Heartbeat) -> HeartbeatAnswer:
    """Proof of life with progress."""
    return await store.heartbeat(tenant_id=caller.tenant_id, pod_uid=caller.pod_uid, beat=beat)


@router.post("/inputs")
async def pin_inputs(caller: Caller, store: Store, pin: PinInputs) -> PinnedInputs:
    """Fixes the bytes that every later attempt reads."""
    return await store.pin_inputs(tenant_id=caller.tenant_id, pod_uid=caller.pod_uid, pin=pin)


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
    return await store.store_artefact(
        tenant_id=caller.tenant_id,
        pod_uid=caller.pod_uid,
        fence=fence,
        media_type=media_type,
        stream=request.stream(),
        max_bytes=request.app.state.settings.max_artefact_bytes,
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
    limit = request.app.state.settings.max_record_bytes
    staged = await store.stage_records(
        tenant_id=caller.tenant_id,
        pod_uid=caller.pod_uid,
        fence=fence,
        records=_records(request.stream(), limit),
    )
    return RecordsAnswer(records=staged)


@router.post("/complete")
async def complete(caller: Caller, store: Store, message: Complete) -> Accepted:
    """The attempt's result."""
    await store.complete(tenant_id=caller.tenant_id, pod_uid=caller.pod_uid, message=message)
    return Accepted()


@router.post("/fail")
async def fail(caller: Caller, store: Store, message: Fail) -> Accepted:
    """The attempt's failure."""
    await store.fail(tenant_id=caller.tenant_id, pod_uid=caller.pod_uid, message=message)
    return Accepted()


async def _records(stream: AsyncIterator[bytes], limit: int) -> AsyncIterator[InventoryRecord]:
    """Lines of NDJSON as records, without holding more than one line and one piece."""
    number = 0
    async for line in _lines(stream, limit):
        number += 1
        if not line.strip():
            continue
        try:
            yield InventoryRecord.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            raise problems.ProblemError(
                422,
                "invalid-record",
                "A record is not valid",
                f"line {number}, {'.'.join(map(str, first['loc'])) or 'document'}: {first['msg']}",
            ) from error


async def _lines(stream: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    buffer = bytearray()
    async for piece in stream:
        buffer += piece
        *complete_lines, rest = bytes(buffer).split(b"\n")
        for line in complete_lines:
            yield line
        buffer = bytearray(rest)
        if len(buffer) > limit:
            raise problems.ProblemError(
                413, "too-large", "A record is too large", f"a line exceeds {limit} bytes"
            )
    if buffer:
        yield bytes(buffer)


def create_app(db: Database, identifier: Identifies, settings: ExecutionSettings) -> FastAPI:
    """The application over an open database and something that identifies callers."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await db.close()

    app = FastAPI(
        title="DiscoveryFlow execution API",
        docs_url=None,
        redoc_url=None,
        openapi_url="/execution/v1/openapi.json",
        lifespan=lifespan,
    )
    app.state.identifier = identifier
    app.state.store = ExecutionStore(db)
    app.state.settings = settings
    app.include_router(router)
    add_health(app, db)
    add_request_log(app)
    problems.install(app)
    return app
