"""Artefacts: immutable blobs, named by the SHA-256 of their bytes, in pieces of 1 MiB.

A blob is invisible until it is sealed. Sealing gives it to its flow in the same transaction
(`flow_artefacts`), so that the collector can take whatever nobody refers to without a race.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, and_, delete, exists, func, select, text, true, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from ...errors import NotFoundError
from ...states import FlowState, is_ended
from ...wire.model import ArtefactReference
from ..schema import (
    CHUNK_BYTES,
    LIVE_RUN_STATES,
    Artefact,
    ArtefactChunk,
    DiscoveryFlowRow,
    FlowArtefact,
    PhaseRun,
    Upload,
)

UPLOAD_PREFIX = "upload/"
_CLAIMS_AT_ONCE = 1000
# one artefact may have thousands of pieces of 1 MiB, and a transaction should be short
_ARTEFACTS_AT_ONCE = 20
_PIECES_AT_ONCE = 100
_CLAIM = tuple_(
    FlowArtefact.tenant_id, FlowArtefact.flow_id, FlowArtefact.run_id, FlowArtefact.name
)
_ENDED = [str(state) for state in FlowState if is_ended(state)]


async def put_blob(
    session: AsyncSession,
    *,
    tenant_id: UUID,
    flow_id: UUID,
    run_id: UUID,
    name: str,
    data: bytes,
    media_type: str,
) -> str:
    """Stores a small blob that the store itself makes. Returns its digest."""
    artefact_id = uuid4()
    session.add(
        Artefact(tenant_id=tenant_id, id=artefact_id, media_type=media_type, uploaded_by=run_id)
    )
    await session.flush()
    for sequence, start in enumerate(range(0, max(len(data), 1), CHUNK_BYTES)):
        session.add(
            ArtefactChunk(
                tenant_id=tenant_id,
                artefact_id=artefact_id,
                sequence=sequence,
                data=data[start : start + CHUNK_BYTES],
            )
        )
    await session.flush()
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    await seal(session, tenant_id=tenant_id, artefact_id=artefact_id, digest=digest, size=len(data))
    await refer(
        session, tenant_id=tenant_id, flow_id=flow_id, run_id=run_id, name=name, digest=digest
    )
    return digest


async def seal(
    session: AsyncSession, *, tenant_id: UUID, artefact_id: UUID, digest: str, size: int
) -> None:
    """Makes an upload readable under its digest, or drops it where those bytes exist already.

    Whoever seals the same bytes at the same time waits for the first. The lock on the older copy
    keeps the collector from taking it until this transaction has referred to it; where it has been
    taken, the upload itself is sealed. Raises NotFoundError where the upload has been removed.
    """
    await session.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"),
        {"key": f"{tenant_id} {digest}"},
    )
    held = await session.scalar(
        select(Artefact.id)
        .where(Artefact.tenant_id == tenant_id, Artefact.digest == digest)
        .with_for_update(read=True, key_share=True)
    )
    if held is not None:
        if held != artefact_id:
            await session.execute(
                delete(Artefact).where(Artefact.tenant_id == tenant_id, Artefact.id == artefact_id)
            )
        return
    sealed = await session.execute(
        update(Artefact)
        .where(Artefact.tenant_id == tenant_id, Artefact.id == artefact_id)
        .values(digest=digest, size=size, sealed_at=func.clock_timestamp())
        .returning(Artefact.id)
    )
    if sealed.first() is None:
        raise NotFoundError("the upload has been removed; send it again")


async def refer(
    session: AsyncSession, *, tenant_id: UUID, flow_id: UUID, run_id: UUID, name: str, digest: str
) -> None:
    """Keeps an artefact for a flow under `name`."""
    await session.execute(
        insert(FlowArtefact)
        .values(tenant_id=tenant_id, flow_id=flow_id, run_id=run_id, name=name, digest=digest)
        .on_conflict_do_update(
            index_elements=["tenant_id", "flow_id", "run_id", "name"], set_={"digest": digest}
        )
    )


async def reference(session: AsyncSession, tenant_id: UUID, digest: str) -> ArtefactReference:
    """Digest, size (bytes) and media type of a sealed artefact. Raises NoResultFound."""
    row = (
        await session.execute(
            select(Artefact).where(Artefact.tenant_id == tenant_id, Artefact.digest == digest)
        )
    ).scalar_one()
    return ArtefactReference(digest=digest, size=row.size, media_type=row.media_type)


async def run_artefacts(session: AsyncSession, run: PhaseRun) -> dict[str, ArtefactReference]:
    """The artefacts of an attempt's result by name."""
    rows = await session.execute(
        select(FlowArtefact.name, FlowArtefact.digest).where(
            FlowArtefact.tenant_id == run.tenant_id,
            FlowArtefact.run_id == run.id,
            ~FlowArtefact.name.startswith(UPLOAD_PREFIX),
        )
    )
    return {name: await reference(session, run.tenant_id, digest) for name, digest in rows.tuples()}


async def let_go(session: AsyncSession, tenant_id: UUID, flow_id: UUID, limit: int) -> bool:
    """Takes up to `limit` of a flow's claims on artefacts away. Returns whether it had any."""
    some = (
        select(*_CLAIM.clauses)
        .where(FlowArtefact.tenant_id == tenant_id, FlowArtefact.flow_id == flow_id)
        .limit(limit)
    )
    return await _remove(session, FlowArtefact, _CLAIM.in_(some)) > 0


class Collected(NamedTuple):
    """What one step of the collection has removed; nothing at all where nothing is left."""

    artefacts: int
    pieces: int
    claims: int


async def collect(session: AsyncSession, tenant_id: UUID | None = None) -> Collected:
    """Removes some of what nobody refers to, as far as the transaction's scope sees.

    Of one tenant, or of all.

    Uploads of an attempt that has ended lose their claim; unsealed uploads of such attempts and
    sealed artefacts without a reference go. A person's upload stays until it expires, and as long
    as an open flow that has not read it yet names it.
    """
    live = exists().where(
        PhaseRun.tenant_id == FlowArtefact.tenant_id,
        PhaseRun.id == FlowArtefact.run_id,
        PhaseRun.state.in_(LIVE_RUN_STATES),
    )
    ended = select(*_CLAIM.clauses).where(FlowArtefact.name.startswith(UPLOAD_PREFIX), ~live)
    upload = tuple_(Upload.tenant_id, Upload.id)
    expired = select(*upload.clauses).where(Upload.expires_at <= func.clock_timestamp())
    claims = 0
    for kind, key, over in ((FlowArtefact, _CLAIM, ended), (Upload, upload, expired)):
        if tenant_id is not None:
            over = over.where(kind.tenant_id == tenant_id)  # noqa: PLW2901 - the same, of one
        claims += await _remove(session, kind, key.in_(over.limit(_CLAIMS_AT_ONCE)))
    artefacts, pieces = await _remove_unused(session, tenant_id)
    return Collected(artefacts, pieces, claims)


async def _remove_unused(session: AsyncSession, tenant_id: UUID | None) -> tuple[int, int]:
    """Removes some of what nobody refers to. Returns how many artefacts, and how many pieces.

    In two statements: what is being sealed or referred to right now is locked, and skipped; what
    was referred to before the lock was taken is seen by the second one, which looks again. That one
    takes the digest away, so that nobody finds bytes of which some are gone already.
    """
    keys = tuple_(Artefact.tenant_id, Artefact.id)
    own = true() if tenant_id is None else Artefact.tenant_id == tenant_id
    found = await session.execute(
        select(Artefact.tenant_id, Artefact.id)
        .where(own, _is_unused())
        .limit(_ARTEFACTS_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    locked = [tuple(row) for row in found.tuples()]
    hidden = await session.execute(
        update(Artefact)
        .where(keys.in_(locked), _is_unused())
        .values(digest=None, sealed_at=None)
        .returning(Artefact.tenant_id, Artefact.id)
    )
    unused = [tuple(row) for row in hidden.tuples()]
    piece = tuple_(ArtefactChunk.tenant_id, ArtefactChunk.artefact_id, ArtefactChunk.sequence)
    whose = tuple_(ArtefactChunk.tenant_id, ArtefactChunk.artefact_id)
    some = select(*piece.clauses).where(whose.in_(unused)).limit(_PIECES_AT_ONCE)
    pieces = await _remove(session, ArtefactChunk, piece.in_(some))
    left = exists().where(
        ArtefactChunk.tenant_id == Artefact.tenant_id, ArtefactChunk.artefact_id == Artefact.id
    )
    return await _remove(session, Artefact, keys.in_(unused), ~left), pieces


async def _remove(
    session: AsyncSession,
    kind: type[Artefact | ArtefactChunk | FlowArtefact | Upload],
    *which: ColumnElement[bool],
) -> int:
    """Deletes these rows. Returns how many there were."""
    gone = await session.execute(delete(kind).where(*which).returning(kind.tenant_id))
    return len(gone.all())


def _is_unused() -> ColumnElement[bool]:
    """Referred to by no flow, not being uploaded, not offered or wanted by a person."""
    uploading = exists().where(
        PhaseRun.tenant_id == Artefact.tenant_id,
        PhaseRun.id == Artefact.uploaded_by,
        PhaseRun.state.in_(LIVE_RUN_STATES),
    )
    referred = exists().where(
        FlowArtefact.tenant_id == Artefact.tenant_id, FlowArtefact.digest == Artefact.digest
    )
    offered = exists().where(Upload.tenant_id == Artefact.tenant_id, _is_upload())
    named = exists().where(
        DiscoveryFlowRow.tenant_id == Artefact.tenant_id,
        DiscoveryFlowRow.source_digest.is_(None),
        DiscoveryFlowRow.state.not_in(_ENDED),
        DiscoveryFlowRow.spec["source"]["artefact"]["digest"].as_string() == Artefact.digest,
    )
    return and_(~uploading, ~referred, ~offered, ~named)


def _is_upload() -> ColumnElement[bool]:
    """A person's upload, finished or under way."""
    return (Upload.digest == Artefact.digest) | (Upload.id == Artefact.id)


async def is_there(session: AsyncSession, tenant_id: UUID, digest: str) -> bool:
    """Whether the tenant has a sealed artefact of that digest."""
    found = await session.scalar(
        select(Artefact.id).where(Artefact.tenant_id == tenant_id, Artefact.digest == digest)
    )
    return found is not None
