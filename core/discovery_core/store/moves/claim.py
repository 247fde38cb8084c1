"""What a claim decides, and tells a crew pod: everything that its attempt needs to start."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import NoResultFound
from sqlalchemy.ext.asyncio import AsyncSession

from ...durations import parse_duration
from ...errors import NotFoundError
from ...mounts import SCHEMA_FOLDER, SOURCE_FOLDER, VOLUME_FOLDER
from ...phases import Phase, phase_spec
from ...resource import Source
from ...resource_llm import LLM
from ...states import RunState
from ...wire.model import ArtefactReference
from ...wire.protocol import Claim, LLMBudget, LLMSettings
from ..artefacts import blobs
from ..ledger.lessons import mapping_history
from ..ledger.snapshot import HEARTBEAT_SECONDS, spec_of, spent_by
from ..schema import DiscoveryFlowRow, MasterFlow, PhaseRun, Tenant
from .breakers import admit, endpoint_of


async def choose_planner(session: AsyncSession, flow: DiscoveryFlowRow, run: PhaseRun) -> None:
    """Decides once per attempt whether it may ask the flow's language model.

    A flow that waits for its model was let through when the attempt started.
    """
    llm = spec_of(flow).llm
    endpoint = endpoint_of(llm)
    if endpoint is None:
        return
    if llm.on_unavailable == "Builtin":
        refusal = await admit(session, flow, endpoint, run.id, actor="execution")
        if refusal is not None:
            run.llm_fallback = f"The built-in planner judges: {refusal.message}."
            return
    run.llm_endpoint = endpoint


async def claim_of(session: AsyncSession, flow: DiscoveryFlowRow, run: PhaseRun) -> Claim:
    """The answer to a claim. Raises NotFoundError where an earlier phase left no such artefact."""
    spec = spec_of(flow)
    master = await session.get_one(MasterFlow, (flow.tenant_id, flow.flow_id))
    tenant = await session.get_one(Tenant, flow.tenant_id)
    phase = phase_spec(run.phase)
    inputs = await _inputs(session, flow, phase.name)
    config_map, volume = spec.source.config_map, spec.source.persistent_volume_claim
    pinned = flow.source_digest is not None
    source_name = _source_name(spec.source)
    source_path = (
        f"{SOURCE_FOLDER}/{config_map.key}"
        if config_map
        else f"{VOLUME_FOLDER}/{volume.path if volume else ''}"
    )
    schema_path = (
        f"{SCHEMA_FOLDER}/{spec.target_schema.config_map.key}" if spec.target_schema else None
    )
    return Claim(
        flow_id=flow.flow_id,
        flow_name=master.name,
        tenant_id=flow.tenant_id,
        namespace=tenant.namespace,
        engagement=master.engagement,
        round=run.round,
        phase=phase.name,
        attempt=run.attempt,
        fence=run.fence or 0,
        deadline=run.deadline,
        heartbeat_seconds=HEARTBEAT_SECONDS,
        source_name=source_name.rsplit("/", 1)[-1],
        source_format=spec.source.format,
        source_path=None if pinned or spec.source.artefact else source_path,
        uploaded=None if pinned else await _uploaded(session, flow, spec.source),
        target_schema_path=None if pinned else schema_path,
        inputs=inputs,
        merged_inventory=phase.of_engagement and master.engagement is not None,
        llm=await _llm(session, run, spec.llm),
        mapping_history=(
            await mapping_history(session) if phase.name is Phase.FIELD_MAPPING else []
        ),
        hint=_hint(flow, phase.name),
    )


async def _llm(session: AsyncSession, run: PhaseRun, llm: LLM) -> LLMSettings:
    """Who judges: what the flow asks for, or the built-in planner where that is unavailable."""
    if run.llm_fallback:
        return LLMSettings(note=run.llm_fallback)
    return LLMSettings(
        provider=llm.provider,
        base_url=llm.base_url,
        model=llm.model,
        timeout_seconds=parse_duration(llm.timeout),
        budget=await _budget(session, run.flow_id, llm),
    )


async def _uploaded(
    session: AsyncSession, flow: DiscoveryFlowRow, source: Source
) -> ArtefactReference | None:
    if source.artefact is None:
        return None
    try:
        return await blobs.reference(session, flow.tenant_id, source.artefact.digest)
    except NoResultFound:
        raise NotFoundError(f"{source.artefact.digest} is not uploaded") from None


def _source_name(source: Source) -> str:
    if source.config_map is not None:
        return source.config_map.key
    if source.persistent_volume_claim is not None:
        return source.persistent_volume_claim.path
    return source.artefact.name if source.artefact is not None else ""


def _hint(flow: DiscoveryFlowRow, phase: Phase) -> str | None:
    """What a person asked for with the round, told to the phase that it begins with."""
    if flow.round_info.get("fromPhase") != phase:
        return None
    return flow.round_info.get("hint") or None


async def _budget(session: AsyncSession, flow_id: UUID, llm: LLM) -> LLMBudget | None:
    """What is left of the flow's budget."""
    budget = llm.budget
    if budget is None or llm.provider == "builtin":
        return None
    used = await spent_by(session, flow_id)
    return LLMBudget(
        tokens=None if budget.max_tokens is None else max(0, budget.max_tokens - used.tokens),
        cost=None if budget.max_cost is None else max(0.0, float(budget.max_cost) - used.cost),
        input_token_price=float(budget.input_token_price or 0),
        output_token_price=float(budget.output_token_price or 0),
        on_budget=llm.on_budget,
    )


async def _inputs(
    session: AsyncSession, flow: DiscoveryFlowRow, phase: Phase
) -> dict[str, ArtefactReference]:
    """Artefacts of earlier phases of this round, and the pinned ones, by name."""
    inputs: dict[str, ArtefactReference] = {}
    accepted = await session.scalars(
        select(PhaseRun)
        .where(PhaseRun.flow_id == flow.flow_id, PhaseRun.state == RunState.SUCCEEDED)
        .order_by(PhaseRun.round)
    )
    by_phase = {run.phase: run for run in accepted}
    for wanted in phase_spec(phase).inputs:
        made_by = by_phase.get(wanted.phase)
        artefacts = await blobs.run_artefacts(session, made_by) if made_by is not None else {}
        if wanted.artefact not in artefacts:
            if wanted.optional:
                continue
            raise NotFoundError(f"{wanted.phase} has left no artefact {wanted.artefact}")
        inputs[wanted.name] = artefacts[wanted.artefact]
    for name, digest in (
        ("source", flow.source_digest),
        ("targetSchema", flow.target_schema_digest),
    ):
        if digest is not None:
            inputs[name] = await blobs.reference(session, flow.tenant_id, digest)
    return inputs
