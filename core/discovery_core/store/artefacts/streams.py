"""Bytes of artefacts on their way in and out, in pieces, without a transaction that stays open."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from ...errors import DiscoveryError, ErrorCode, NotFoundError
from ..database import Database, TenantScope
from ..schema import CHUNK_BYTES, Artefact, ArtefactChunk


async def write_chunks(
    db: Database,
    scope: TenantScope,
    artefact_id: UUID,
    stream: AsyncIterator[bytes],
    max_bytes: int,
) -> tuple[str, int]:
    """Stores a stream as chunks of an unsealed artefact; returns its digest and size.

    Raises DiscoveryError(LIMIT_EXCEEDED) beyond `max_bytes`, and NotFoundError where the artefact
    has been removed meanwhile.
    """
    hasher, size, sequence = hashlib.sha256(), 0, 0
    async for piece in pieces(stream):
        size += len(piece)
        if size > max_bytes:
            raise DiscoveryError(
                ErrorCode.LIMIT_EXCEEDED, f"the artefact is larger than {max_bytes} bytes"
            )
        hasher.update(piece)
        await _put_chunk(db, scope, artefact_id, sequence, piece)
        sequence += 1
    return "sha256:" + hasher.hexdigest(), size


async def _put_chunk(
    db: Database, scope: TenantScope, artefact_id: UUID, sequence: int, data: bytes
) -> None:
    async def work(session: AsyncSession) -> None:
        held = await session.scalar(
            select(Artefact.id)
            .where(Artefact.tenant_id == scope.tenant_id, Artefact.id == artefact_id)
            .with_for_update(read=True, key_share=True)
        )
        if held is None:
            raise NotFoundError("the upload took too long and has been removed; send it again")
        await session.merge(
            ArtefactChunk(
                tenant_id=scope.tenant_id, artefact_id=artefact_id, sequence=sequence, data=data
            )
        )

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
