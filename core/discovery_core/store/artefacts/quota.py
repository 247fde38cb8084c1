"""How many bytes a tenant's artefacts may have together, those that are being stored among them.

An artefact's row says at each piece how much of it there is, so that files which come side by side
see each other. They may pass the limit by a piece each, which is what it costs to take no lock.
A small file costs rows, index entries and looks of the collector, whatever is in it, so each counts
64 KiB at least: that bounds their number too, and what it takes to add them up.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from ...errors import DiscoveryError, ErrorCode
from ..schema import Artefact

LEAST_BYTES = 64 * 1024


async def stored_bytes(session: AsyncSession, tenant_id: UUID) -> int:
    """Bytes of all artefacts of a tenant, sealed or not, each at least LEAST_BYTES."""
    counted = func.sum(func.greatest(Artefact.size, LEAST_BYTES))
    found = await session.scalar(
        select(func.coalesce(counted, 0)).where(Artefact.tenant_id == tenant_id)
    )
    return int(found or 0)


async def require_room(
    session: AsyncSession, tenant_id: UUID, most: int | None, declared: int | None = None
) -> None:
    """Raises DiscoveryError(QUOTA_EXCEEDED) where all artefacts have more than `most` bytes.

    `declared` are the bytes of one that is to come. `most` None: no limit.
    """
    if most is None:
        return
    stored = await stored_bytes(session, tenant_id)
    more = 0 if declared is None else max(declared, LEAST_BYTES)
    if stored + more > most:
        raise DiscoveryError(
            ErrorCode.QUOTA_EXCEEDED,
            f"the files of this namespace would have {stored + more} bytes, of at most {most} "
            "(Helm value tenants.maxStoredBytes; each file counts at least 64 KiB): delete or "
            "purge flows that are no longer needed, or have the limit raised",
        )
