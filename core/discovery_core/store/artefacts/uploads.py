"""Files that people upload before there is a flow to read them.

An upload is an artefact of the namespace that nobody sees until it is sealed; a row beside it says
who brought it and keeps it for a while. One that breaks off leaves nothing behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from sqlalchemy import delete, text
from sqlalchemy.ext.asyncio import AsyncSession

from ...errors import NotFoundError
from ..database import Database, TenantScope, database_now
from ..schema import Artefact, Upload
from . import blobs
from .quota import require_room
from .streams import write_chunks

UNFINISHED_HOURS = 2
KEPT_HOURS = 24


@dataclass(frozen=True)
class Uploaded:
    """A finished upload; `spec.source.artefact` names it by digest."""

    digest: str
    size: int
    name: str
    expires_at: datetime


async def offer_tenant(
    db: Database, namespace_uid: UUID, namespace: str, cluster_id: UUID | None
) -> bool:
    """Makes a namespace a tenant where it is none. False where it is not clear of which cluster."""

    async def work(session: AsyncSession) -> bool:
        cluster = await session.scalar(
            text("SELECT offer_tenant(CAST(:tenant AS uuid), :namespace, CAST(:cluster AS uuid))"),
            {"tenant": namespace_uid, "namespace": namespace, "cluster": cluster_id},
        )
        return cluster is not None

    return await db.run(None, work)


async def store_upload(
    db: Database,
    tenant_id: UUID,
    *,
    name: str,
    media_type: str,
    uploaded_by: str,
    stream: AsyncIterator[bytes],
    max_bytes: int,
    tenant_bytes: int | None = None,
    declared: int = 1,
) -> Uploaded:
    """Stores a stream under its digest; `declared` bytes have to have room from the beginning.

    Raises DiscoveryError: LIMIT_EXCEEDED beyond `max_bytes`, QUOTA_EXCEEDED where the tenant's
    artefacts would have more than `tenant_bytes`. Raises NotFoundError for one that took too long.
    """
    scope = TenantScope(tenant_id)
    artefact_id = uuid4()

    async def finish(session: AsyncSession) -> datetime:
        upload = await session.get(Upload, (tenant_id, artefact_id), with_for_update=True)
        if upload is None:
            raise NotFoundError(
                f"the upload took longer than {UNFINISHED_HOURS} hours; send the file again"
            )
        if await session.get(Artefact, (tenant_id, artefact_id)) is not None:
            await blobs.seal(
                session, tenant_id=tenant_id, artefact_id=artefact_id, digest=digest, size=size
            )
        upload.digest = digest
        upload.expires_at = await database_now(session) + timedelta(hours=KEPT_HOURS)
        return upload.expires_at

    async def begin(session: AsyncSession) -> None:
        await require_room(session, tenant_id, tenant_bytes, declared)
        await _begin(session, tenant_id, artefact_id, name, media_type, uploaded_by)

    await db.run(scope, begin)
    try:
        digest, size = await write_chunks(db, scope, artefact_id, stream, max_bytes, tenant_bytes)
        expires_at = await db.run(scope, finish)
    except BaseException:
        # also when the client went away, which cancels this task
        await asyncio.shield(_forget(db, scope, artefact_id))
        raise
    return Uploaded(digest, size, name, expires_at)


async def _begin(
    session: AsyncSession,
    tenant_id: UUID,
    artefact_id: UUID,
    name: str,
    media_type: str,
    uploaded_by: str,
) -> None:
    if await session.get(Upload, (tenant_id, artefact_id)) is not None:
        return
    now = await database_now(session)
    session.add(Artefact(tenant_id=tenant_id, id=artefact_id, media_type=media_type))
    session.add(
        Upload(
            tenant_id=tenant_id,
            id=artefact_id,
            name=name,
            uploaded_by=uploaded_by,
            expires_at=now + timedelta(hours=UNFINISHED_HOURS),
        )
    )


async def _forget(db: Database, scope: TenantScope, artefact_id: UUID) -> None:
    async def work(session: AsyncSession) -> None:
        await session.execute(delete(Upload).where(Upload.id == artefact_id))
        await session.execute(
            delete(Artefact).where(Artefact.id == artefact_id, Artefact.digest.is_(None))
        )

    await db.run(scope, work)
