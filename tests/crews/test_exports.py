"""Exports satisfy the vendors' field lists, and no cell runs in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import duckdb
import openpyxl
import pytest
from discovery_core.wire.results import StrategyResult
from discovery_crews.phase import PhaseOutcome
from discovery_crews.phases.migration_strategy import vendors
from discovery_crews.phases.migration_strategy.azure_systems import assessed_name
from discovery_crews.phases.migration_strategy.phase import run

from tests.crews.files import real_file
from tests.crews.test_strategy import _day, asset, context

__all__ = ["_day"]
BAD = "=HYPERLINK(1)"
FLEET = [
    asset("a", os_name="RHEL 9", os_version="9.3", cpu_cores=4, memory_gb=8.5, storage_gb=100,
          ip_address=["10.0.0.1", "10.0.0.2"], mac_address=["00:50:56:00:00:01"],
          fqdn="a.example.org", is_virtual=True, application_name=["shop", "mail"],
          tags=["env=prod", "owner: ann", "loose"], cpu_utilization_avg=12.5, firmware_type="efi"),
    asset("b", os_name="RHEL 9", description=BAD),
    asset("c", "application", application_name=["shop"]),
]  # fmt: skip


@pytest.fixture
def outcome(tmp_path: Path) -> PhaseOutcome:
    return run(context(tmp_path, FLEET))


def rows(outcome: PhaseOutcome, artefact: str) -> list[dict[str, str]]:
    with outcome.artefacts[artefact].open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def google(outcome: PhaseOutcome) -> dict[str, list[dict[str, str]]]:
    with zipfile.ZipFile(outcome.artefacts["google-import"]) as archive:
        return {
            name.removesuffix(".csv"): list(
                csv.DictReader(io.StringIO(archive.read(name).decode("utf-8")))
            )
            for name in archive.namelist()
        }


def test_the_vendors_field_lists(outcome: PhaseOutcome) -> None:
    lists: dict[str, Any] = json.loads(
        real_file("target-fields/vendor_import_schemas.json").read_text(encoding="utf-8")
    )
    assert list(rows(outcome, "aws-import")[0]) == lists["aws_ads_import"]["fields"]
    assert list(rows(outcome, "azure-migrate")[0]) == lists["azure_migrate_csv"]["fields"]
    wanted = lists["gcp_migration_center_vmInfo"]
    tables = google(outcome)
    assert list(tables["vmInfo"][0]) == [name.split("(")[0] for name in wanted["fields"]]
    assert list(tables["diskInfo"][0]) == wanted["diskInfo"]
    assert list(tables["tagInfo"][0]) == wanted["tagInfo"]


def test_aws_counts_memory_in_mb_and_takes_every_server(outcome: PhaseOutcome) -> None:
    first, second = rows(outcome, "aws-import")
    assert first["ExternalId"] == "a"
    assert first["IPAddress"] == "10.0.0.1, 10.0.0.2"
    assert (first["HostName"], first["VMware.VMName"]) == ("a.example.org", "a")
    assert (first["RAM.TotalSizeInMB"], first["CPU.NumberOfCores"]) == ("8704", "4")
    assert first["Applications"] == "shop, mail"
    assert second["ExternalId"] == "b"


def test_azure_refuses_what_lacks_required_fields_and_says_so(outcome: PhaseOutcome) -> None:
    (taken,) = rows(outcome, "azure-migrate")
    assert (taken["Server name"], taken["Memory"], taken["OS name"]) == (
        "a.example.org", "8704", "RHEL 9",
    )  # fmt: skip
    assert taken["Firmware type"] == "UEFI"
    (left,) = rows(outcome, "azure-migrate-left-out")
    assert (left["identity"], left["missing"]) == ("b", "Cores, Memory")
    assert isinstance(outcome.result, StrategyResult)
    assert any("1 servers are not in azure-migrate," in text for text in outcome.result.findings)


def test_google_joins_by_machine(outcome: PhaseOutcome) -> None:
    tables = google(outcome)
    assert [row["MachineId"] for row in tables["vmInfo"]] == ["a"]
    (left,) = rows(outcome, "google-import-left-out")
    assert (left["identity"], left["missing"]) == (
        "b", "TotalDiskAllocatedGiB, AllocatedProcessorCoreCount, MemoryGiB",
    )  # fmt: skip
    (warned,) = rows(outcome, "google-import-warnings")
    assert (warned["identity"], warned["warning"]) == (
        "a",
        'TotalDiskUsedGiB is not known, tag "loose" is not in the file: it is no key with a value',
    )
    assert tables["vmInfo"][0]["IpAddressListSemiColonDelimited"] == "10.0.0.1;10.0.0.2"
    assert tables["vmInfo"][0]["IsPhysical"] == "false"
    assert [row["MachineId"] for row in tables["diskInfo"]] == ["a"]
    assert [(row["Key"], row["Value"]) for row in tables["tagInfo"]] == [
        ("env", "prod"), ("owner", "ann"),
    ]  # fmt: skip


DISKS = [
    asset("several", os_name="CentOS 7", cpu_cores=4, memory_gb=8.5, storage_gb=70, disk_count="3",
          firmware_type="bios", os_architecture="x86_64",
          unmapped='{"vDisk.Capacity MiB each": "40960; 10240; 20480"}'),
    asset("total", os_name="Debian 12", cpu_cores=4, memory_gb=8.5, storage_gb=70, disk_count="2",
          os_architecture="i386", unmapped="{}"),
    asset("row:9", os_name="Windows 2012R2", cpu_cores=2, memory_gb=4.0, storage_gb=70,
          unmapped="{}"),
]  # fmt: skip


def test_disks_and_systems_as_azure_has_them(tmp_path: Path) -> None:
    outcome = run(context(tmp_path, DISKS))
    odd, several, total = rows(outcome, "azure-migrate")
    assert [several[f"Disk {n} size"] for n in (1, 2, 3)] == ["40.0", "10.0", "20.0"]
    assert "Disk 4 size" not in several
    assert (several["OS name"], several["OS architecture"]) == ("CentOS 7", "x64")
    assert several["Firmware type"] == "BIOS"
    assert odd["OS name"] == "Windows Server 2012 R2"
    assert (total["Disk 1 size"], total["Disk 2 size"]) == ("70.0", "")
    assert (total["OS name"], total["OS architecture"]) == ("Debian 12", "x86")
    (warned,) = rows(outcome, "azure-migrate-warnings")
    assert warned["identity"] == "total"
    assert "Unknown OS" in warned["warning"]
    assert "total size of several disks" in warned["warning"]
    sizes = [(row["MachineId"], row["DiskLabel"], row["SizeInGib"])
             for row in google(outcome)["diskInfo"]]  # fmt: skip
    assert sizes == [
        ("row:9", "all disks", "70.0"), ("several", "disk 1", "40.0"),
        ("several", "disk 2", "10.0"), ("several", "disk 3", "20.0"),
        ("total", "all disks", "70.0"),
    ]  # fmt: skip


def test_aws_takes_no_server_without_a_key(tmp_path: Path) -> None:
    outcome = run(context(tmp_path, [*DISKS, asset("row:8", ip_address=["10.0.0.8"])]))
    taken = {row["IPAddress"]: row["ExternalId"] for row in rows(outcome, "aws-import")}
    assert taken == {"10.0.0.8": "", "": "total"}
    (left,) = rows(outcome, "aws-import-left-out")
    assert (left["identity"], left["missing"]) == (
        "row:9", "one of ExternalId, IPAddress, MACAddress, HostName",
    )  # fmt: skip


def test_no_two_servers_of_azure_have_one_name(tmp_path: Path) -> None:
    size: dict[str, Any] = {
        "os_name": "Debian 12",
        "cpu_cores": 1,
        "memory_gb": 4.0,
        "storage_gb": 70,
    }
    servers = [asset(f"asset_id:{n}", **size) | {"name": name}
               for n, name in enumerate(["web", "WEB", "db"])]  # fmt: skip
    outcome = run(context(tmp_path, servers))
    assert [row["Server name"] for row in rows(outcome, "azure-migrate")] == [
        "web (asset_id:0)", "WEB (asset_id:1)", "db",
    ]  # fmt: skip


def test_azure_takes_20000_servers_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vendors, "AZURE_SERVERS", 2)
    outcome = run(context(tmp_path, DISKS))
    assert [row["Server name"] for row in rows(outcome, "azure-migrate")] == ["row:9", "several"]
    assert [row["Server name"] for row in rows(outcome, "azure-migrate-2")] == ["total"]


@pytest.mark.parametrize(
    ("name", "version", "assessed"),
    [
        ("Microsoft Windows Server 2016 (64-bit)", None, "Microsoft Windows Server 2016 (64-bit)"),
        ("Windows 2008 R2 Enterprise", None, "Windows Server 2008 R2"),
        ("Windows Server", "2019", "Windows Server 2019"),
        ("RHEL 7.9", None, "Red Hat Enterprise Linux 7"),
        ("Ubuntu 22.04", None, "Ubuntu Linux"),
        ("VMware ESXi 6.7", None, "VMware ESXi 6.7"),
        ("Solaris 10", None, "Oracle Solaris 10"),
        ("RHEL 9", None, None),
        ("AIX 7.2", None, None),
        ("Windows Server 2022", None, None),
    ],
)
def test_systems_get_names_that_azure_assesses(
    name: str, version: str | None, assessed: str | None
) -> None:
    assert assessed_name(name, version) == assessed


def test_no_cell_runs(outcome: PhaseOutcome) -> None:
    (bad,) = [row for row in rows(outcome, "assets_csv") if row["identity"] == "b"]
    assert bad["description"] == "'" + BAD
    book = openpyxl.load_workbook(outcome.artefacts["assets_xlsx"])
    cells = [cell for row in book["Assets"].iter_rows() for cell in row if cell.value is not None]
    assert all(cell.data_type != "f" for cell in cells)
    assert "'" + BAD in [cell.value for cell in cells]


def test_the_workbook_is_for_people(outcome: PhaseOutcome) -> None:
    book = openpyxl.load_workbook(outcome.artefacts["assets_xlsx"])
    assert book.sheetnames == ["Summary", "Assets", "Strategies", "Gaps", "Dependencies"]
    summary = {row[0].value: row[1].value for row in book["Summary"].iter_rows()}
    assert summary["Assets"] == 3
    assert summary["Strategy: rehost"] == 3
    header = [cell.value for cell in book["Assets"][1]]
    first = dict(zip(header, [cell.value for cell in book["Assets"][2]], strict=True))
    assert (first["memory_gb"], first["application_name"]) == (8.5, "shop; mail")


def test_json_and_parquet_hold_every_asset_with_its_strategy(outcome: PhaseOutcome) -> None:
    lines = outcome.artefacts["assets_json"].read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["strategy"] for line in lines] == ["rehost"] * 3
    path = outcome.artefacts["assets_parquet"]
    found = duckdb.execute(f"SELECT count(*) FROM '{path}' WHERE strategy = 'rehost'").fetchone()
    assert found == (3,)


def test_the_same_assets_give_the_same_bytes(tmp_path: Path, outcome: PhaseOutcome) -> None:
    again = run(context(tmp_path / "again", FLEET))
    for artefact in ("aws-import", "azure-migrate", "google-import", "assets_csv", "assets_json"):
        assert again.artefacts[artefact].read_bytes() == outcome.artefacts[artefact].read_bytes()
    assert again.result == outcome.result
