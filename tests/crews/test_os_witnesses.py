"""Of several columns about the operating system the better informed one counts, row by row."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import duckdb
import pytest
from discovery_core.phases import Phase
from discovery_core.wire.results import InventoryResult
from discovery_crews.local_run import LocalRun
from discovery_crews.phases.asset_inventory.plan import SourceColumn
from discovery_crews.phases.asset_inventory.witnesses import in_order
from discovery_crews.phases.migration_strategy.azure_systems import assessed_name, without_version
from discovery_crews.systems import system_of

RVTOOLS = "VM,Powerstate,CPUs,Memory,VM UUID,OS according to the configuration file,OS according to the VMware Tools\n"  # noqa: E501
CASES = [
    # configuration, Tools, what counts
    ("CentOS 7 (64-bit)", "CentOS 4/5 or later (64-bit)", "CentOS 7 (64-bit)"),
    ("Microsoft Windows Server 2012 (64-bit)", "Microsoft Windows Server 2022 (64-bit)",
     "Microsoft Windows Server 2022 (64-bit)"),
    ("Microsoft Windows Server 2016 or later (64-bit)", "Microsoft Windows Server 2019 (64-bit)",
     "Microsoft Windows Server 2019 (64-bit)"),
    ("Debian GNU/Linux 11 (64-bit)", "Other 3.x or later Linux (64-bit)",
     "Debian GNU/Linux 11 (64-bit)"),
    ("CentOS 7 (64-bit)", "Ubuntu Linux (64-bit)", "Ubuntu Linux (64-bit)"),
    ("Red Hat Enterprise Linux 9 (64-bit)", "", "Red Hat Enterprise Linux 9 (64-bit)"),
    ("", "Oracle Linux 8 (64-bit)", "Oracle Linux 8 (64-bit)"),
]  # fmt: skip


def flow(tmp_path: Path, text: str, last: Phase = Phase.ASSET_INVENTORY) -> LocalRun:
    source = tmp_path / "list.csv"
    source.write_text(text, encoding="utf-8")
    local = LocalRun(source, tmp_path / "work")
    local.scratch.mkdir()
    local.run(last)
    return local


def systems(local: LocalRun) -> list[Any]:
    inventory = local.outcomes[Phase.ASSET_INVENTORY].artefacts["inventory"]
    return duckdb.execute(f"SELECT os_name FROM '{inventory}' ORDER BY rows[1]").fetchall()


def test_tools_win_where_they_are_specific(tmp_path: Path) -> None:
    lines = [
        f"vm-{n},poweredOn,2,4096,42310000-6f1e-4c2a-9b3d-0a1b2c3d4e{n:02d},{config},{tools}\n"
        for n, (config, tools, _) in enumerate(CASES)
    ]
    local = flow(tmp_path, RVTOOLS + "".join(lines))
    assert systems(local) == [(wanted,) for _, _, wanted in CASES]
    outcome = local.outcomes[Phase.ASSET_INVENTORY]
    assert isinstance(outcome.result, InventoryResult)
    (told,) = [text for text in outcome.result.findings if "disagree" in text]
    assert "operating system of 2 rows (3, 6;" in told
    # what did not count is kept
    records = outcome.records
    assert records is not None
    assert "Microsoft Windows Server 2012 (64-bit)" in records.read_text(encoding="utf-8")


def test_other_exports_have_witnesses_too(tmp_path: Path) -> None:
    text = (
        "Server Name;Betriebssystem (konfiguriert);Betriebssystem (erkannt);RAM (GB)\n"
        "srv-1;Windows Server 2012 R2;Windows Server 2019;8\n"
        "srv-2;Windows Server 2019;Windows Server 2016 oder höher;8\n"
    )
    assert systems(flow(tmp_path, text)) == [("Windows Server 2019",), ("Windows Server 2019",)]


def test_the_order_of_headers() -> None:
    columns = [SourceColumn(name) for name in ("Configured OS", "OS", "Discovered OS")]
    assert [entry.column for entry in in_order(columns)] == ["Discovered OS", "OS", "Configured OS"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Microsoft Windows Server 2016 or later (64-bit)", "Windows Server"),
        ("Microsoft Windows Server 2016 oder höher (64-Bit)", "Windows Server"),
        ("Microsoft Windows Server 2016 ou ultérieur (64 bits)", "Windows Server"),
        ("Microsoft Windows Server 2016 o posterior (64 bits)", "Windows Server"),
        ("Oracle Linux 8 or later", "Oracle Linux"), ("Windows Server 2016+", "Windows Server"),
        ("CentOS (64-bit)", "CentOS"), ("Debian GNU/Linux (64-bit)", "Debian"),
        ("CentOS 7 (64-bit)", "CentOS 7"),
    ],
)  # fmt: skip
def test_a_least_version_is_none(text: str, name: str) -> None:
    found = system_of(text, "os")
    assert found is not None
    assert found.name == name


def test_azure_reads_no_version_into_it(tmp_path: Path) -> None:
    assert assessed_name("Microsoft Windows Server 2016 or later (64-bit)") is None
    assert without_version("Microsoft Windows Server 2016 or later (64-bit)") == "Windows Server"
    assert assessed_name("CentOS 4/5 or later (64-bit)") == "CentOS"
    assert without_version("Microsoft Windows Server 2016 (64-bit)") is None
    local = flow(
        tmp_path,
        "Server Name,OS,Cores,Memory (GB)\n"
        "a1,Microsoft Windows Server 2016 or later (64-bit),2,8\n",
        Phase.MIGRATION_STRATEGY,
    )
    made = local.outcomes[Phase.MIGRATION_STRATEGY].artefacts
    with made["azure-migrate"].open(encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["OS name"] == "Windows Server"
    assert "Unknown OS" in made["azure-migrate-warnings"].read_text(encoding="utf-8")
