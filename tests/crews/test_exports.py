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
from discovery_core.wire import StrategyResult
from discovery_crews.migration_strategy.phase import run
from discovery_crews.phase import PhaseOutcome

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
    assert first["IPAddress"] == "10.0.0.1"
    assert (first["HostName"], first["VMware.VMName"]) == ("a.example.org", "a")
    assert (first["RAM.TotalSizeInMB"], first["CPU.NumberOfCores"]) == ("8704", "4")
    assert first["Applications"] == "shop, mail"
    assert second["ExternalId"] == "b"


def test_azure_refuses_what_lacks_required_fields_and_says_so(outcome: PhaseOutcome) -> None:
    (taken,) = rows(outcome, "azure-migrate")
    assert (taken["Server name"], taken["Memory"], taken["OS name"]) == ("a", "8704", "RHEL 9")
    assert taken["Firmware type"] == "EFI"
    (left,) = rows(outcome, "azure-migrate-left-out")
    assert (left["identity"], left["missing"]) == ("b", "Cores, Memory")
    assert isinstance(outcome.result, StrategyResult)
    assert any("1 servers are not in azure-migrate.csv" in text for text in outcome.result.findings)


def test_google_joins_by_machine(outcome: PhaseOutcome) -> None:
    tables = google(outcome)
    assert [row["MachineId"] for row in tables["vmInfo"]] == ["a", "b"]
    assert tables["vmInfo"][0]["IpAddressListSemiColonDelimited"] == "10.0.0.1;10.0.0.2"
    assert tables["vmInfo"][0]["IsPhysical"] == "false"
    assert [row["MachineId"] for row in tables["diskInfo"]] == ["a"]
    assert [(row["Key"], row["Value"]) for row in tables["tagInfo"]] == [
        ("env", "prod"), ("owner", "ann"),
    ]  # fmt: skip


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
