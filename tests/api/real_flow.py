"""A flow whose six phases the real crews do, judged by the built-in planner.

Its sources have what sources have: units, blanks, doubles, rows to reject, and each its own word.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from discovery_core.files import media_type
from discovery_core.phases import FIRST_PHASE
from discovery_core.wire.protocol import Complete, PinInputs
from discovery_core.wire.results import InventoryRecord
from discovery_crews.phase import PhaseContext, PhaseOutcome
from discovery_crews.runner import load_phase

from tests.postgres import Stores
from tests.store.flows import Flow, Pod, stream

CMDB = """\
Server Name;FQDN;IP Address;Operating System;vCPU;Memory;Disk (GB);Env;Application;Owner e-mail;\
Status;In service since;Serial No.;Virtual?;Depends on;Tags;Remarks
web01;web01.corp.example.org;10.0.0.1;Windows Server 2012 R2 Standard;2;4096 MB;80;PROD;Shop;\
ann@example.org;in use;2014-03-01;S1;yes;db01:5432;dmz, pci;<b>see ticket</b>
web02;web02.corp.example.org;10.0.0.2;RHEL 7.9;4;8 GB;100;prod;Shop;ann@example.org;Active;\
01.02.2019;S2;Y;db01:5432;;
 db01 ;db01.corp.example.org;10.0.0.3;SUSE Linux Enterprise Server 15 SP5;16;128 GB;2 TB;prod;Shop;\
;in use;;S3;no;nas-7;;the owner left the company
db01;db01.corp.example.org;10.0.0.3;SUSE Linux Enterprise Server 15 SP5;16;131072 MB;2 TB;prod;\
Shop;;in use;;S3;no;nas-7;;again
tst01;;10.0.0.4;Ubuntu 22.04 LTS;N/A;a lot;;tst;Payroll;bob@example.org;Retired;19.09.2020;;;;;
erp "ä/b" & co;;;AIX 7.2;8;-;500;Development;SAP ERP;-;;;S5;N;web01;;=1+1
too;few
one;cell;too;many;for;this;file;1;2;3;4;5;6;7;8;9;10;11
"""
SCAN = """\
hostname,ip,os,cpus,ram_mb,serial,environment,application,connects_to
web01,10.0.0.1,Windows Server 2016,4,16384,S1,prod,Shop,db01
db01,10.0.0.3,SUSE Linux Enterprise Server 15 SP5,16,65536,S3,staging,Shop,
nas-7,10.0.0.9,NetApp ONTAP,,,S9,prod,,
"""


async def run_all_phases(flow: Flow, source_name: str, source: str, folder: Path) -> None:
    """From its registration to its end; the mappings are approved as they are proposed."""
    await flow.queue()
    while str((flow_now := await flow.load()).state) in ("Queued", "AwaitingApproval"):
        if flow_now.request is not None:
            await flow.answer()
            continue
        await flow.start()
        pod = await flow.claim()
        place = folder / f"{flow.name}-{pod.claim.phase}"
        await _do_phase(flow.stores, pod, source_name, source, place)
    assert str(flow_now.state) == "Succeeded", flow_now.message


async def _do_phase(
    stores: Stores, pod: Pod, source_name: str, source: str, folder: Path
) -> PhaseOutcome:
    """As the runner does it, but for HTTP."""
    claim, output = pod.claim, folder / "output"
    output.mkdir(parents=True)
    inputs = {}
    if claim.phase is FIRST_PHASE:
        inputs["source"] = folder / "source"
        inputs["source"].write_text(source, encoding="utf-8")
        digest = await pod.upload(source.encode(), media_type(source_name))
        await stores.execution.pin_inputs(
            tenant_id=pod.tenant_id,
            pod_uid=pod.pod_uid,
            pin=PinInputs(fence=claim.fence, source=digest),
        )
    for name, reference in claim.inputs.items():
        pieces = stores.execution.read_artefact(
            tenant_id=pod.tenant_id,
            pod_uid=pod.pod_uid,
            fence=claim.fence,
            digest=reference.digest,
        )
        inputs[name] = folder / name
        inputs[name].write_bytes(b"".join([piece async for piece in pieces]))
    context = PhaseContext(workdir=output, inputs=inputs, source_name=source_name)
    outcome = await asyncio.to_thread(load_phase(str(claim.phase)), context)
    artefacts = {
        name: await pod.upload(path.read_bytes(), media_type(path.name))
        for name, path in outcome.artefacts.items()
    }
    if outcome.records is not None:
        await pod.stage(_records(outcome.records.read_bytes()))
    await stores.execution.complete(
        tenant_id=pod.tenant_id,
        pod_uid=pod.pod_uid,
        message=Complete(
            fence=claim.fence, result=outcome.result, artefacts=artefacts, usage=outcome.usage
        ),
    )
    return outcome


async def _records(lines: bytes) -> AsyncIterator[InventoryRecord]:
    async for line in stream(*lines.splitlines()):
        yield InventoryRecord.model_validate_json(line)
