"""Bytes of artefacts on their way in and out, in pieces, without a transaction that stays open."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from ...errors import DiscoveryError, ErrorCode, NotFoundError
from ..database import Database, TenantScope
from ..schema import CHUNK_BYTES, Artefact, ArtefactChunk
from .quota import require_room


async def write_chunks(
    db: Database,
    scope: TenantScope,
    artefact_id: UUID,
    stream: AsyncIterator[bytes],
    max_bytes: int,
    tenant_bytes: int | None = None,
) -> tuple[str, int]:
    """Stores a stream as chunks of an unsealed artefact; returns its digest and size.

    Raises DiscoveryError: LIMIT_EXCEEDED beyond `max_bytes`, QUOTA_EXCEEDED where all of the
    tenant's would have more than `tenant_bytes`. Raises NotFoundError where the artefact has been
    removed meanwhile.
    """
    hasher, size, sequence = hashlib.sha256(), 0, 0
    async for piece in pieces(stream):
        size += len(piece)
        if size > max_bytes:
            raise DiscoveryError(
                ErrorCode.LIMIT_EXCEEDED, f"the artefact is larger than {max_bytes} bytes"
            )
        hasher.update(piece)
        chunk = ArtefactChunk(
            tenant_id=scope.tenant_id, artefact_id=artefact_id, sequence=sequence, data=piece
        )
        await _put_chunk(db, scope, chunk, size, tenant_bytes)
        sequence += 1
    return "sha256:" + hasher.hexdigest(), size


async def _put_chunk(
    db: Database, scope: TenantScope, chunk: ArtefactChunk, size: int, tenant_bytes: int | None
) -> None:
    """Stores a piece with which the artefact has `size` bytes."""

    async def work(session: AsyncSession) -> None:
        held = await session.scalar(
            update(Artefact)
            .where(Artefact.tenant_id == scope.tenant_id, Artefact.id == chunk.artefact_id)
            .values(size=size)
            .returning(Artefact.id)
        )
        if held is None:
            raise NotFoundError("the upload took too long and has been removed; send it again")
        await require_room(session, scope.tenant_id, tenant_bytes)
        await session.merge(chunk)

    await db.run(scope, work)


async def read_chunks(
    db: Database, scope: TenantScope, artefact_id: UUID, size: int
) -> AsyncIterator[bytes]:
    """The bytes of a sealed artefact. Raises NotFoundError where they have been removed."""
    for sequence in range(max(-(-size // CHUNK_BYTES), 1)):

        async def read(session: AsyncSession, sequence: int = sequence) -> bytes:
            data = await session.scalar(
                select(ArtefactChunk.data).where(
                    ArtefactChunk.artefact_id == artefact_id, ArtefactChunk.sequence == sequence
                )
            )
            if data is None:
                raise NotFoundError("the artefact has been removed")
            return data

        yield await db.run(scope, read)


async def pieces(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Re-cuts a stream into pieces of exactly CHUNK_BYTES, the last one shorter."""
    buffer = bytearray()
    empty = True
    async for data in stream:
        buffer += data
        while len(buffer) >= CHUNK_BYTES:
            empty = False
            yield bytes(buffer[:CHUNK_BYTES])
            del buffer[:CHUNK_BYTES]
    if buffer or empty:
        yield bytes(buffer)
