"""What a crew pod may say that its flow's artefacts are: what its own flow has uploaded."""

from __future__ import annotations

import pytest
from discovery_core import actions as act
from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_core.phases import Phase
from discovery_core.wire.protocol import MOST_ARTEFACTS, Complete, PinInputs
from pydantic import ValidationError

from tests.postgres import Stores
from tests.store.flows import RESULTS, Flow, Pod, digest_of

THEIRS = b"what another flow of the same namespace has uploaded"


async def running(stores: Stores) -> tuple[Flow, Pod]:
    """A flow whose import runs, beside another one of its tenant that has uploaded something."""
    flow = Flow(stores)
    other = Flow(stores, tenant_id=flow.tenant_id, name="other")
    for started in (other, flow):
        await started.queue()
        await started.start()
    await (await other.claim()).upload(THEIRS)
    return flow, await flow.claim()


async def pin(pod: Pod, source: str, target_schema: str | None = None) -> None:
    await pod.stores.execution.pin_inputs(
        tenant_id=pod.tenant_id,
        pod_uid=pod.pod_uid,
        pin=PinInputs(fence=pod.claim.fence, source=source, target_schema=target_schema),
    )


async def test_s17_a_result_names_no_artefact_of_another_flow(stores: Stores) -> None:
    flow, pod = await running(stores)
    with pytest.raises(DiscoveryError, match="not uploaded for this flow") as refused:
        await pod.complete(RESULTS[Phase.DATA_IMPORT], records=digest_of(THEIRS))
    assert refused.value.code is ErrorCode.INVALID_RESULT
    assert (await flow.load()).phase is Phase.DATA_IMPORT


async def test_s17_no_artefact_of_another_flow_is_pinned(stores: Stores) -> None:
    _, pod = await running(stores)
    own = await pod.upload(b"name\nweb01\n")
    for given in ((digest_of(THEIRS), None), (own, digest_of(THEIRS))):
        with pytest.raises(DiscoveryError, match="not uploaded for this flow"):
            await pin(pod, *given)
    await pin(pod, own)


async def test_s17_what_an_earlier_attempt_has_pinned_is_the_flows_own(stores: Stores) -> None:
    flow = Flow(stores)
    await flow.queue()
    run = await flow.start()
    first = await flow.claim()
    source = await first.upload(b"name\nweb01\n")
    await pin(first, source)
    await stores.operator.apply(
        flow.flow_id,
        act.FailAttempt(run, code=ErrorCode.HEARTBEAT_LOST, message="silent", retry_delay=0),
    )
    await flow.start()
    second = await flow.claim()
    await second.complete(RESULTS[Phase.DATA_IMPORT], records=source, profile=source)
    assert (await flow.load()).phase is Phase.DATA_CLEANSING


@pytest.mark.parametrize(
    "name",
    ["source", "targetSchema", "engagementInventory", "upload/x", "approved/x", "../x", "a b", "",
     "1", "x" * 65, "x\n", "x\r\nSet-Cookie: a", "é"],
)  # fmt: skip
def test_s17_names_of_artefacts_are_of_a_closed_form(name: str) -> None:
    result = RESULTS[Phase.DATA_IMPORT].model_dump(mode="json", by_alias=True)
    with pytest.raises(ValidationError, match="artefacts"):
        Complete.model_validate({"fence": 1, "result": result, "artefacts": {name: digest_of(b"")}})


def test_s17_names_of_artefacts_are_few() -> None:
    result = RESULTS[Phase.DATA_IMPORT].model_dump(mode="json", by_alias=True)
    many = {f"a{number}": digest_of(b"") for number in range(MOST_ARTEFACTS + 1)}
    with pytest.raises(ValidationError, match="artefacts"):
        Complete.model_validate({"fence": 1, "result": result, "artefacts": many})
