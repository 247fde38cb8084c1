"""How many bytes a tenant's artefacts may have together, those that are being stored among them.

An artefact's row says at each piece how much of it there is, so that files which come side by side
see each other. They may pass the limit by a piece each, which is what it costs to take no lock.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from ...errors import DiscoveryError, ErrorCode
from ..schema import Artefact


async def stored_bytes(session: AsyncSession, tenant_id: UUID) -> int:
    """Bytes of all artefacts of a tenant, sealed or not."""
    found = await session.scalar(
        select(func.coalesce(func.sum(Artefact.size), 0)).where(Artefact.tenant_id == tenant_id)
    )
    return int(found or 0)


async def require_room(
    session: AsyncSession, tenant_id: UUID, most: int | None, more: int = 1
) -> None:
    """Raises DiscoveryError(QUOTA_EXCEEDED) unless `more` bytes fit; `most` None: no limit."""
    if most is None:
        return
    stored = await stored_bytes(session, tenant_id)
    if stored + more > most:
        raise DiscoveryError(
            ErrorCode.QUOTA_EXCEEDED,
            f"the files of this namespace have {stored} of at most {most} bytes (Helm value "
            f"tenants.maxStoredBytes), and there is no room for {more} more: delete or purge flows "
            "that are no longer needed, or have the limit raised",
        )
