"""What is no machine stays in the inventory and out of plans; vendors' keys reach their files."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest
from discovery_core.phases import Phase
from discovery_core.wire.results import ColumnProfile
from discovery_crews.local_run import LocalRun
from discovery_crews.mapping.engine import propose
from discovery_crews.mapping.presets import known_columns
from discovery_crews.phases.migration_strategy.phase import run
from discovery_crews.target_schema import TargetSchema, builtin_schema

from tests.crews.files import workbook
from tests.crews.test_exports import rows
from tests.crews.test_strategy import _day, asset, context, strategies

__all__ = ["_day"]

HEADER = [
    "VM", "Powerstate", "Template", "SRM Placeholder", "DNS Name", "CPUs", "Memory", "Disks",
    "Total disk capacity MiB", "Primary IP Address", "Host", "Folder",
    "OS according to the configuration file", "VM ID", "SMBIOS UUID", "VM UUID", "VI SDK Server",
    "VI SDK UUID",
]  # fmt: skip


def vm(number: int, name: str, *, template: bool = False, folder: str = "vm") -> Sequence[object]:
    uuid = f"4231{number:04d}-6f1e-4c2a-9b3d-0a1b2c3d4e5f"
    return [
        name, "poweredOn", template, False, None, 2, 4096, 1, 10240, f"192.0.2.{number}",
        "esx1.example.org", folder, "Debian GNU/Linux 12 (64-bit)", f"vm-{number}",
        f"5641{number:04d}-6f1e-4c2a-9b3d-0a1b2c3d4e5f", uuid, "vc1.example.org",
        "0f3c1d2e-aaaa-4b5c-8d7e-111111111111",
    ]  # fmt: skip


def made(tmp_path: Path, *machines: Sequence[object]) -> dict[str, Path]:
    source = workbook(tmp_path / "export.xlsx", {"vInfo": [HEADER, *machines]})
    local = LocalRun(source, tmp_path / "work")
    local.scratch.mkdir()
    artefacts = dict(local.run(Phase.MIGRATION_STRATEGY).artefacts)
    artefacts["inventory"] = local.outcomes[Phase.ASSET_INVENTORY].artefacts["inventory"]
    return artefacts


def listed(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_templates_and_agents_are_kept_and_not_planned(tmp_path: Path) -> None:
    artefacts = made(
        tmp_path, vm(1, "web-01"), vm(2, "tmpl-deb12", template=True),
        vm(3, "vCLS-4230aa11-2b3c-4d5e-8f90-112233445566"),
        vm(4, "Agent (1)", folder="ESX Agents"),
    )  # fmt: skip
    names = duckdb.execute(f"SELECT name FROM '{artefacts['inventory']}'").fetchall()
    assert len(names) == 4
    plans = duckdb.execute(
        f"SELECT strategy, rule, reason FROM '{artefacts['strategies']}' WHERE name <> 'web-01'"
    ).fetchall()
    assert [plan[:2] for plan in plans] == [("retain", "set_apart")] * 3
    for vendor in ("aws-import", "azure-migrate"):
        assert len(listed(artefacts[vendor])) == 1
        left = listed(artefacts[f"{vendor}-left-out"])
        assert sorted(row["missing"].split(":")[0].split(" (")[0] for row in left) == [
            "A template", "An agent of the virtualisation platform, which makes and removes it.",
            "An agent of vSphere Cluster Services",
        ]  # fmt: skip
    with zipfile.ZipFile(artefacts["google-import"]) as archive:
        machines = list(csv.DictReader(io.StringIO(archive.read("vmInfo.csv").decode())))
    assert [machine["MachineName"] for machine in machines] == ["web-01"]


def test_vendors_get_the_keys_that_the_export_has(tmp_path: Path) -> None:
    artefacts = made(tmp_path, vm(1, "web-01"))
    (aws,) = listed(artefacts["aws-import"])
    assert aws["HostName"] == ""
    assert aws["VMware.MoRefId"] == "vm-1"
    assert aws["VMware.VCenterId"] == "0f3c1d2e-aaaa-4b5c-8d7e-111111111111"
    assert aws["VMware.VMName"] == "web-01"
    assert aws["SMBiosId"] == "56410001-6f1e-4c2a-9b3d-0a1b2c3d4e5f"
    with zipfile.ZipFile(artefacts["google-import"]) as archive:
        (machine,) = csv.DictReader(io.StringIO(archive.read("vmInfo.csv").decode()))
    assert machine["IsPhysical"] == "false"


@pytest.mark.parametrize(
    ("fields", "apart"),
    [
        ({"unmapped": '{"Template": "w2019-gold"}'}, False),
        ({"unmapped": '{"isTemplate": "true"}'}, True),
        ({"unmapped": '{"Vorlage": "Ja"}'}, True),
        ({"unmapped": '{"controllerVm": "true"}'}, True),
        ({"name": "NTNX-17SM-A-CVM"}, True),
        ({"name": "vCLS (3)"}, True), ({"name": "vcls-app01"}, False),
        ({"name": "vclserver"}, False),
        ({"description": "VMware vCenter Server Appliance"}, True),
        ({"description": "moved with the vCenter Server Appliance"}, False),
    ],
)  # fmt: skip
def test_what_is_set_apart(tmp_path: Path, fields: dict[str, Any], apart: bool) -> None:
    found = strategies(run(context(tmp_path, [asset("a", os_name="RHEL 9") | fields])))
    assert (found["a"]["rule"] == "set_apart") is apart


def test_aws_takes_a_machine_by_its_place_in_a_vcenter(tmp_path: Path) -> None:
    place = '{"VM ID": "vm-7", "VI SDK Server": "vc.example.org"}'
    outcome = run(context(tmp_path, [asset("row:2", unmapped=place)]))
    (aws,) = rows(outcome, "aws-import")
    assert (aws["VMware.MoRefId"], aws["VMware.VCenterId"]) == ("vm-7", "vc.example.org")


@pytest.mark.parametrize(
    ("headers", "meant"),
    [
        (["VM", "Powerstate", "VI SDK Server", "Memory"],
         ["asset_name", "power_state", None, "memory_gb"]),
        (["Server", "vCenter", "VI SDK Server"], ["", None, None]),
        (["Name", "State", "MemoryStartup", "ComputerName", "VMId", "MemoryAssigned"],
         ["asset_name", "power_state", "memory_gb", "hypervisor_host", "asset_id", None]),
        (["spec.name", "spec.resources.num_sockets", "spec.resources.nic_list", "status.state"],
         ["asset_name", "cpu_sockets", "ip_address", None]),
        (["vmName", "numVCpus", "memoryCapacityInBytes", "controllerVm", "hostName"],
         ["asset_name", "cpu_cores", "memory_gb", None, "hypervisor_host"]),
        (["*Server name", "*Cores", "*Memory (In MB)", "*OS name"], ["", "", "memory_gb", ""]),
        (["ExternalId", "HostName", "VMware.MoRefId", "VMware.VCenterId",
          "RAM.TotalSizeInMB"],
         ["asset_id", "hostname", None, None, "memory_gb"]),
    ],
)  # fmt: skip
def test_columns_of_known_exports(headers: list[str], meant: list[str | None]) -> None:
    known = known_columns(headers)
    assert [known[n].target if n in known else "" for n in range(len(headers))] == meant


def test_a_field_of_that_name_in_ones_own_schema_counts() -> None:
    schema = TargetSchema.model_validate(
        {"fields": [{"name": "server", "type": "string"}, {"name": "template", "type": "string"}]}
    )
    columns = [
        ColumnProfile(name="Template", type="string", filled=2, missing=0, distinct=1,
                      samples=["golden image"]),
    ]  # fmt: skip
    assert [mapping.target for mapping in propose(columns, schema)] == ["template"]
    assert [mapping.target for mapping in propose(columns, builtin_schema())] == [None]
