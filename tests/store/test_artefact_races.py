"""The same bytes at once, and bytes that come while the collector is at work: none are lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from uuid import UUID, uuid4

import pytest
from discovery_core.errors import NotFoundError
from discovery_core.store.artefacts import blobs
from discovery_core.store.artefacts.uploads import store_upload
from discovery_core.store.database import ClusterScope, Database, TenantScope, database_url
from discovery_core.store.schema import CHUNK_BYTES, Artefact, ArtefactChunk, Upload
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from tests.postgres import Stores
from tests.store.flows import Flow, digest_of

DATA = b"name\nweb01\n"
DIGEST = digest_of(DATA)


async def until_it_waits(stores: Stores, task: asyncio.Task[object]) -> None:
    """Until the task has ended or waits for a lock in this database."""
    query = text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    engine = create_async_engine(database_url(stores.urls.superuser))
    async with asyncio.timeout(20), engine.connect() as connection:
        while not task.done() and not await connection.scalar(query):
            await connection.rollback()
    await engine.dispose()


async def begin(db: Database, tenant: UUID) -> UUID:
    """An upload of DATA that only has to be sealed."""
    artefact_id = uuid4()
    async with db.transaction(TenantScope(tenant)) as session:
        session.add(Artefact(tenant_id=tenant, id=artefact_id, media_type="text/csv"))
        await session.flush()
        session.add(
            Upload(
                tenant_id=tenant,
                id=artefact_id,
                name="x",
                uploaded_by="ann",
                expires_at=(await session.scalar(select(text("now() + interval '1 hour'")))),
            )
        )
        session.add(ArtefactChunk(tenant_id=tenant, artefact_id=artefact_id, sequence=0, data=DATA))
    return artefact_id


async def seal(session: AsyncSession, tenant: UUID, artefact_id: UUID) -> None:
    await blobs.seal(
        session, tenant_id=tenant, artefact_id=artefact_id, digest=DIGEST, size=len(DATA)
    )
    await session.execute(update(Upload).where(Upload.id == artefact_id).values(digest=DIGEST))


def scoped(stores: Stores, tenant: UUID) -> AbstractAsyncContextManager[AsyncSession]:
    return stores.api.db.transaction(TenantScope(tenant))


async def there(stores: Stores, tenant: UUID) -> list[bytes]:
    """The pieces of all artefacts that have a digest."""
    async with scoped(stores, tenant) as session:
        rows = await session.scalars(
            select(ArtefactChunk.data)
            .join(Artefact, Artefact.id == ArtefactChunk.artefact_id)
            .where(Artefact.digest == DIGEST)
        )
        return list(rows)


@pytest.fixture
async def tenant(stores: Stores) -> UUID:
    flow = Flow(stores)
    await flow.register()
    return flow.tenant_id


async def test_the_same_bytes_sealed_at_once(stores: Stores, tenant: UUID) -> None:
    first, second = [await begin(stores.api.db, tenant) for _ in range(2)]

    async def other() -> None:
        async with scoped(stores, tenant) as session:
            await seal(session, tenant, second)

    async with scoped(stores, tenant) as session:
        await seal(session, tenant, first)
        task = asyncio.create_task(other())
        await until_it_waits(stores, task)
        assert not task.done()
    await task
    assert await there(stores, tenant) == [DATA]


async def test_many_uploads_of_the_same_bytes(stores: Stores, tenant: UUID) -> None:
    count = 4
    sent = asyncio.Barrier(count)

    async def body() -> AsyncIterator[bytes]:
        yield DATA
        await sent.wait()

    uploads = [
        store_upload(
            stores.api.db, tenant, name=f"{n}.csv", media_type="text/csv", uploaded_by="ann",
            stream=body(), max_bytes=1000,
        )
        for n in range(count)
    ]  # fmt: skip
    done = await asyncio.gather(*uploads)
    assert {upload.digest for upload in done} == {DIGEST}
    assert await there(stores, tenant) == [DATA]


async def test_what_is_being_sealed_is_not_collected(stores: Stores, tenant: UUID) -> None:
    """Nobody refers to the older copy until the newer upload has been sealed onto it."""
    older = await begin(stores.api.db, tenant)
    async with scoped(stores, tenant) as session:
        await seal(session, tenant, older)
        upload = await session.get_one(Upload, (tenant, older))
        await session.delete(upload)
    newer = await begin(stores.api.db, tenant)
    async with scoped(stores, tenant) as session:
        await seal(session, tenant, newer)
        task = asyncio.create_task(stores.operator.collect_garbage())
        await until_it_waits(stores, task)
    await task
    assert await there(stores, tenant) == [DATA]


async def test_bytes_that_are_just_being_collected_are_kept_anew(
    stores: Stores, tenant: UUID
) -> None:
    older = await begin(stores.api.db, tenant)
    async with scoped(stores, tenant) as session:
        await seal(session, tenant, older)
        upload = await session.get_one(Upload, (tenant, older))
        await session.delete(upload)
    newer = await begin(stores.api.db, tenant)

    async def other() -> None:
        async with scoped(stores, tenant) as session:
            await seal(session, tenant, newer)

    operator = stores.operator
    async with operator.db.transaction(
        ClusterScope(operator.cluster_id, operator.epoch)
    ) as session:
        assert (await blobs.collect(session)).artefacts == 1
        task = asyncio.create_task(other())
        await until_it_waits(stores, task)
        assert not task.done()
    await task
    assert await there(stores, tenant) == [DATA]


async def test_what_nobody_refers_to_is_collected(stores: Stores, tenant: UUID) -> None:
    older = await begin(stores.api.db, tenant)
    async with scoped(stores, tenant) as session:
        await seal(session, tenant, older)
    assert await stores.operator.collect_garbage() == (0, False)
    async with scoped(stores, tenant) as session:
        await session.delete(await session.get_one(Upload, (tenant, older)))
    assert await stores.operator.collect_garbage() == (1, False)
    assert await there(stores, tenant) == []


async def test_s04_one_tenant_s_garbage_is_collected_alone(stores: Stores, tenant: UUID) -> None:
    kept = await begin(stores.api.db, tenant)
    async with scoped(stores, tenant) as session:
        await seal(session, tenant, kept)
        await session.delete(await session.get_one(Upload, (tenant, kept)))
    assert await stores.operator.collect_garbage(uuid4()) == (0, False)
    assert await there(stores, tenant) == [DATA]
    assert await stores.operator.collect_garbage(tenant) == (1, False)
    assert await there(stores, tenant) == []


@pytest.mark.parametrize("sent", [DATA, b"x" * CHUNK_BYTES])
async def test_an_upload_that_took_too_long_says_so(
    stores: Stores, tenant: UUID, sent: bytes
) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield sent
        async with scoped(stores, tenant) as session:
            past = text("now() - interval '1 hour'")
            await session.execute(update(Upload).values(expires_at=past))
        await stores.operator.collect_garbage()

    with pytest.raises(NotFoundError, match="again"):
        await store_upload(
            stores.api.db, tenant, name="x", media_type="text/csv", uploaded_by="ann",
            stream=body(), max_bytes=2 * CHUNK_BYTES,
        )  # fmt: skip
