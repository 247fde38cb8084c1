"""What the page of a failed flow offers and says."""

from __future__ import annotations

import re
from html import unescape

import httpx
import pytest
from discovery_core import actions as act
from discovery_core.errors import ErrorCode
from discovery_core.phases import PHASES, Phase
from discovery_core.resource_gate import Rerun

from tests.api.desk import ANN, url
from tests.api.kubernetes import FakeKubernetes
from tests.postgres import Stores
from tests.store.flows import Flow


async def failed(flow: Flow, in_phase: Phase) -> None:
    """Everything before the phase is done, and the phase fails."""
    await flow.queue()
    while (now := await flow.load()).phase != in_phase or now.request is not None:
        if now.request is not None:
            await flow.answer()
        else:
            await flow.run_phase()
    run_id = await flow.start()
    await flow.claim()
    await flow.stores.operator.apply(
        flow.flow_id,
        act.FailAttempt(
            run_id, code=ErrorCode.UNREADABLE_FILE, message="no table", retry_delay=None
        ),
    )


@pytest.mark.parametrize("phase", list(Phase))
async def test_a_failed_flow_offers_what_is_possible_and_its_own_phase_first(
    ann: httpx.AsyncClient, stores: Stores, kubernetes: FakeKubernetes, phase: Phase
) -> None:
    flow = Flow(stores)
    await failed(flow, phase)
    kubernetes.flow_uid = str(flow.flow_id)
    page = (await ann.get(f"/flows/{flow.flow_id}")).text
    offered = re.findall(r'<option value="(\w+)"( selected)?>', page)
    assert [name for name, selected in offered if selected] == [phase]
    before = [spec.name for spec in PHASES]
    possible = before[: before.index(phase) + 1]
    asked = ["approval"] if Phase.FIELD_MAPPING in possible[:-1] else []
    assert [name for name, _ in offered] == [*asked, *possible]
    for number, name in enumerate(offered):
        wanted = Rerun.model_validate({"id": f"r{number}", "fromPhase": name[0]})
        again = Flow(stores, tenant_id=flow.tenant_id, name=f"again-{number}")
        await failed(again, phase)
        await stores.operator.apply(again.flow_id, act.StartRound(wanted))
        assert (await again.load()).round == 2, name


async def test_why_a_flow_failed_stays_beside_what_was_refused(
    ann: httpx.AsyncClient, stores: Stores, kubernetes: FakeKubernetes
) -> None:
    flow = Flow(stores)
    await failed(flow, Phase.DATA_IMPORT)
    wanted = Rerun.model_validate({"id": "one", "fromPhase": "approval"})
    await stores.operator.apply(flow.flow_id, act.StartRound(wanted))
    kubernetes.flow_uid = str(flow.flow_id)
    told = (await ann.get(url(flow), headers=ANN)).json()["message"]
    assert told == "no table; rerun one is not possible: there are no mappings to ask about yet"
    assert told in unescape((await ann.get(f"/flows/{flow.flow_id}")).text)
