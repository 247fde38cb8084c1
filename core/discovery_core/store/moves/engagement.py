"""What a crew reads of its flow's engagement, fixed once for each round.

The merged inventory changes whenever a flow of the engagement is accepted, so it is kept as an
artefact when a crew first asks for it: every later attempt and phase of the round plans with the
same bytes, and its digest says with which. What other flows have found of dependencies is
referred to, not copied.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from uuid import UUID, uuid4

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from ...errors import NotFoundError
from ...phases import Phase
from ...states import RunState
from ...wire.model import ENGAGEMENT_INVENTORY, ArtefactReference
from ...wire.protocol import EngagementInputs
from ..artefacts import blobs
from ..artefacts.quota import require_room
from ..artefacts.streams import write_chunks
from ..database import Database, TenantScope
from ..inventory.merged import merged_inventory
from ..ledger.transition import lock_flow
from ..schema import Artefact, FlowArtefact, MasterFlow, PhaseRun
from .held import held_run

MEDIA_TYPE = "application/gzip"
# names that no result can have
_OTHERS = "engagement/"
_FOUND = "dependencies"


class EngagementReads:
    """Makes and finds what an engagement's crews read; few at a time in each process.

    While one is made it holds two of the database's connections.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._turns = asyncio.Semaphore(2)

    async def pin(
        self,
        *,
        tenant_id: UUID,
        pod_uid: str,
        fence: int,
        max_bytes: int,
        tenant_bytes: int | None = None,
    ) -> EngagementInputs:
        """What every attempt of this round reads of its engagement; the first to ask makes it.

        Raises SupersededError; NotFoundError for a flow without an engagement; DiscoveryError:
        LIMIT_EXCEEDED beyond `max_bytes`, QUOTA_EXCEEDED where the tenant's artefacts would have
        more than `tenant_bytes`.
        """
        scope, artefact_id = TenantScope(tenant_id), uuid4()

        async def begin(session: AsyncSession) -> EngagementInputs | tuple[UUID, str]:
            run = await held_run(session, pod_uid, fence)
            if (pinned := await _pinned(session, run)) is not None:
                return pinned
            flow = await session.get_one(MasterFlow, (tenant_id, run.flow_id))
            if flow.engagement is None:
                raise NotFoundError("the flow belongs to no engagement")
            await require_room(session, tenant_id, tenant_bytes, 1)
            if await session.get(Artefact, (tenant_id, artefact_id)) is None:
                session.add(
                    Artefact(
                        tenant_id=tenant_id,
                        id=artefact_id,
                        media_type=MEDIA_TYPE,
                        uploaded_by=run.id,
                    )
                )
            return run.flow_id, flow.engagement

        async with self._turns:
            begun = await self._db.run(scope, begin)
            if isinstance(begun, EngagementInputs):
                return begun
            flow_id, engagement = begun
            async with aclosing(
                merged_inventory(self._db, tenant_id, engagement, flow_id)
            ) as stream:
                digest, size = await write_chunks(
                    self._db, scope, artefact_id, stream, max_bytes, tenant_bytes
                )

        async def finish(session: AsyncSession) -> EngagementInputs:
            run = await held_run(session, pod_uid, fence)
            await lock_flow(session, run.flow_id)
            if (pinned := await _pinned(session, run)) is not None:
                await session.execute(
                    delete(Artefact).where(Artefact.id == artefact_id, Artefact.digest.is_(None))
                )
                return pinned
            await blobs.seal(
                session, tenant_id=tenant_id, artefact_id=artefact_id, digest=digest, size=size
            )
            found = await _found_by_others(session, run, engagement)
            named = {f"{_OTHERS}{other}": reference for other, reference in found.items()}
            for name, kept in ((ENGAGEMENT_INVENTORY, digest), *named.items()):
                await blobs.refer(
                    session,
                    tenant_id=tenant_id,
                    flow_id=run.flow_id,
                    run_id=run.id,
                    name=name,
                    digest=kept,
                )
            pinned = await _pinned(session, run)
            if pinned is None:
                raise AssertionError("it was pinned in this transaction")
            return pinned

        return await self._db.run(scope, finish)


async def _pinned(session: AsyncSession, run: PhaseRun) -> EngagementInputs | None:
    """What attempts of this round have pinned; None before the first."""
    rows = await session.execute(
        select(FlowArtefact.name, FlowArtefact.digest)
        .join(
            PhaseRun,
            (PhaseRun.tenant_id == FlowArtefact.tenant_id) & (PhaseRun.id == FlowArtefact.run_id),
        )
        .where(
            FlowArtefact.flow_id == run.flow_id,
            PhaseRun.round == run.round,
            (FlowArtefact.name == ENGAGEMENT_INVENTORY) | FlowArtefact.name.startswith(_OTHERS),
        )
        .order_by(FlowArtefact.name)
    )
    tenant = run.tenant_id
    found = {name: await blobs.reference(session, tenant, digest) for name, digest in rows.tuples()}
    inventory: ArtefactReference | None = found.pop(ENGAGEMENT_INVENTORY, None)
    if inventory is None:
        return None
    return EngagementInputs(inventory=inventory, dependencies=list(found.values()))


async def _found_by_others(
    session: AsyncSession, run: PhaseRun, engagement: str
) -> dict[UUID, str]:
    """Digests of what the engagement's other flows that count have found last, by flow."""
    rows = await session.execute(
        select(PhaseRun.flow_id, FlowArtefact.digest)
        .join(
            FlowArtefact,
            (FlowArtefact.tenant_id == PhaseRun.tenant_id) & (FlowArtefact.run_id == PhaseRun.id),
        )
        .join(
            MasterFlow,
            (MasterFlow.tenant_id == PhaseRun.tenant_id) & (MasterFlow.flow_id == PhaseRun.flow_id),
        )
        .where(
            PhaseRun.phase == Phase.DEPENDENCY_ANALYSIS,
            PhaseRun.state == RunState.SUCCEEDED,
            PhaseRun.flow_id != run.flow_id,
            MasterFlow.engagement == engagement,
            MasterFlow.deleted_at.is_(None) | MasterFlow.retired_at.is_not(None),
            FlowArtefact.name == _FOUND,
        )
        .order_by(PhaseRun.round)
    )
    # of several rounds the last
    return dict(rows.tuples().all())
