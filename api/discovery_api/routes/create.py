"""New flows from a file: upload it, and create the resource in the caller's name.

The file becomes an artefact first; the resource names it by its digest, so that what was uploaded
is what is read. Kubernetes decides whether the caller may create flows there, before a byte is
taken.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from typing import Annotated, Any
from uuid import UUID

from discovery_core.errors import ProblemError
from discovery_core.files import media_type
from discovery_core.resource import API_VERSION, KIND
from discovery_core.store.artefacts.uploads import Uploaded
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from ..context import Context, RequestContext
from ..limits import AtATime
from ..middleware import declared_bytes
from ..multipart import Form, Part
from ..problems import ForbiddenError, InvalidRequestError, UnavailableError

router = APIRouter(prefix="/api/v1/discovery", tags=["flows"])

NAMESPACE = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
_NAME_LENGTH = 40
_TAKEN = {"source", "approval", "requestedBy", "engagement"}
CREATED: dict[int | str, dict[str, Any]] = {
    400: {"description": "the form cannot be read"},
    403: {"description": "you may not create flows there; `detail` has Kubernetes' words"},
    409: {"description": "a flow of that name exists"},
    413: {"description": "the file is too large"},
    415: {"description": "not multipart/form-data"},
    429: {"description": "too many uploads to the namespace at once; `Retry-After` says when"},
    507: {"description": "the namespace's files have all the bytes that they may have"},
}


class KeyReusedError(ProblemError):
    """An Idempotency-Key stands for one file."""

    status = 422
    kind = "idempotency-key-reused"
    title = "The key was used for another file"


class Created(BaseModel):
    """The new flow. The API knows it as soon as the operator has registered it."""

    flow_id: UUID
    name: str
    namespace: str


class UploadView(BaseModel):
    """A file that a new flow may name as `spec.source.artefact`, until it expires."""

    digest: str
    size: int
    name: str
    expires_at: str


@router.post("/uploads", response_model=UploadView, status_code=201, responses=CREATED)
async def upload(
    request: Request,
    context: Context,
    namespace: Annotated[str, Query(pattern=NAMESPACE, description="where the flow will be")],
    name: Annotated[str, Query(min_length=1, max_length=253, description="name of the file")],
) -> UploadView:
    """Stores the request's body, as a stream, for a flow of that namespace."""
    tenant_id, user = await _may_create(context, namespace)
    stored = await _store(request, context, tenant_id, user, name, request.stream())
    return UploadView(
        digest=stored.digest,
        size=stored.size,
        name=stored.name,
        expires_at=stored.expires_at.isoformat(),
    )


@router.post(
    "/flows",
    response_model=Created,
    status_code=201,
    responses=CREATED,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["namespace", "file"],
                        "properties": {
                            "namespace": {"type": "string"},
                            "name": {"type": "string", "description": "default: from the file's"},
                            "engagement": {"type": "string"},
                            "format": {"type": "string", "description": "default: auto"},
                            "spec": {
                                "type": "string",
                                "description": "JSON with further fields of spec, such as "
                                "approvalPolicy, llm, targetSchema",
                            },
                            "file": {
                                "type": "string",
                                "format": "binary",
                                "description": "comes last",
                            },
                        },
                    }
                }
            },
        }
    },
)
async def create_flow(
    request: Request,
    context: Context,
    idempotency_key: Annotated[
        str | None,
        Header(max_length=255, description="the same key creates one flow, however often sent"),
    ] = None,
) -> JSONResponse:
    """Creates a flow from an uploaded file. Fields come first, `file` comes last."""
    fields: dict[str, str] = {}
    async for part in Form(request, context.settings.body_seconds).parts():
        if part.file_name is None:
            fields[part.name] = await part.text()
            continue
        made = await _create(request, context, fields, part, idempotency_key)
        place = f"/api/v1/discovery/flows/{made.flow_id}"
        return JSONResponse(
            made.model_dump(mode="json"), status_code=201, headers={"Location": place}
        )
    raise InvalidRequestError("the form has no part `file`", title="No file")


async def _create(
    request: Request,
    context: RequestContext,
    fields: dict[str, str],
    part: Part,
    key: str | None,
) -> Created:
    namespace = fields.get("namespace", "")
    if not namespace:
        raise InvalidRequestError(
            "send the field `namespace` before the file", title="No namespace"
        )
    if not re.fullmatch(NAMESPACE, namespace):
        raise InvalidRequestError(
            f"{namespace[:63]!r}: write at most 63 lower-case letters, digits and hyphens, such as "
            "migration-east",
            title="Not a namespace",
        )
    spec = _further_spec(fields)
    tenant_id, user = await _may_create(context, namespace)
    file_name = (part.file_name or "").replace("\\", "/").rsplit("/", 1)[-1][:253] or "upload"
    stored = await _store(request, context, tenant_id, user, file_name, part.stream())
    name = fields.get("name") or _name_for(file_name, user, key)
    artefact = {"digest": stored.digest, "name": stored.name}
    body = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec
        | {
            "source": {"artefact": artefact, "format": fields.get("format") or "auto"},
            "requestedBy": user,
        },
    }
    try:
        made = await context.caller.create_flow(namespace, body)
    except ProblemError as refused:
        if refused.status != 409 or key is None:
            raise
        made = await context.caller.flow(namespace, name)
        if (made["spec"].get("source") or {}).get("artefact") != artefact:
            raise KeyReusedError("send a new Idempotency-Key") from refused
    return Created(flow_id=UUID(made["metadata"]["uid"]), name=name, namespace=namespace)


def _further_spec(fields: dict[str, str]) -> dict[str, Any]:
    """Fields of the spec beside the source. Raises ProblemError 422."""
    try:
        spec = json.loads(fields.get("spec") or "{}")
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(str(error), title="spec is not JSON") from error
    if not isinstance(spec, dict) or set(spec) & _TAKEN:
        raise InvalidRequestError(
            "spec is a JSON object without source, approval, requestedBy and engagement",
            title="Not a spec",
        )
    if fields.get("engagement"):
        spec["engagement"] = fields["engagement"]
    return spec


async def _may_create(context: RequestContext, namespace: str) -> tuple[UUID, str]:
    """The namespace's tenant and the caller's name. Raises ProblemError 403, 404 or 503."""
    user = await context.user_name(namespace=namespace)
    if not await context.caller.may("create", namespace):
        raise ForbiddenError(f"{user} may not create DiscoveryFlows in namespace {namespace}")
    tenant_id = await context.caller.namespace_uid(namespace)
    if not await context.store.offer_tenant(tenant_id, namespace, context.settings.cluster_id):
        raise UnavailableError(
            "it is not clear which cluster this is: the operator has not registered it yet, or "
            "several clusters share the database and the Helm value api.clusterId is not set"
        )
    return tenant_id, user


async def _store(
    request: Request, context: RequestContext, tenant_id: UUID, user: str, name: str, stream: Any
) -> Uploaded:
    """Takes the file. Raises ProblemError 413, 429 for too many at a time, and 507."""
    context.log["tenant"] = str(tenant_id)
    uploads: AtATime = request.app.state.uploads
    with uploads.one(str(tenant_id)):
        return await context.store.store_upload(
            tenant_id,
            name=name,
            media_type=media_type(name),
            uploaded_by=user,
            stream=stream,
            max_bytes=context.settings.max_upload_bytes,
            tenant_bytes=context.settings.stored_bytes_per_tenant,
            declared=declared_bytes(request.headers) or 1,
        )


def _name_for(file_name: str, user: str, key: str | None) -> str:
    """A name from the file's, with an ending that no other flow has (or the key's own)."""
    stem = re.sub(r"[^a-z0-9]+", "-", file_name.rsplit(".", 1)[0].lower()).strip("-")
    ending = (
        secrets.token_hex(4)
        if key is None
        else hashlib.sha256(f"{user}\n{key}".encode()).hexdigest()[:12]
    )
    return f"{stem[:_NAME_LENGTH].strip('-') or 'flow'}-{ending}"
