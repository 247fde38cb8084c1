"""Real files end as the table beside this test says, which was written by reading them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import openpyxl
import pytest
import yaml
from discovery_core.errors import DiscoveryError
from discovery_core.phases import Phase
from discovery_core.wire.results import ImportResult, InventoryResult
from discovery_crews.local_run import LocalRun

from tests.crews.files import REAL, real_file

pytestmark = pytest.mark.slow

EXPECTED: dict[str, dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parent / "real_files.yaml").read_text(encoding="utf-8")
)


def test_no_real_file_is_left_out() -> None:
    real_file("SOURCES.md")
    found = {str(path.relative_to(REAL)) for path in REAL.rglob("*") if path.is_file()}
    # those made after reports are about single values, which a table of totals does not show
    of_reports = {name for name in found if name.startswith("reported/")}
    assert found - {"SOURCES.md"} - of_reports == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_real_file(name: str, tmp_path: Path) -> None:
    expected = EXPECTED[name]
    local = LocalRun(real_file(name), tmp_path)
    if "code" in expected:
        with pytest.raises(DiscoveryError) as refused:
            local.run(Phase.DATA_IMPORT)
        assert refused.value.code == expected["code"]
        assert Path(name).name in str(refused.value)
        return
    last = Phase.ASSET_INVENTORY if "assets" in expected else Phase.DATA_IMPORT
    local.run(last)
    imported = local.outcomes[Phase.DATA_IMPORT].result
    assert isinstance(imported, ImportResult)
    assert (imported.rows_imported, imported.rows_rejected) == (
        expected["rows"],
        expected["rejected"],
    )
    if "error" in expected:
        errors = " ".join(text for text in imported.findings if text.startswith("[error]"))
        assert expected["error"] in errors.lower()
    if last is Phase.ASSET_INVENTORY:
        inventory = local.outcomes[last].result
        assert isinstance(inventory, InventoryResult)
        assert inventory.assets == expected["assets"]
        assert inventory.by_type == expected.get("types", inventory.by_type)


def test_the_rvtools_inventory_is_what_the_workbook_says(tmp_path: Path) -> None:
    """Value by value, for every machine of the workbook; sizes are MiB there and GB here."""
    source = real_file("kubev2v-rvtools/example1.xlsx")
    local = LocalRun(source, tmp_path)
    local.run(Phase.ASSET_INVENTORY)
    path = local.outcomes[Phase.ASSET_INVENTORY].artefacts["inventory"]
    found = duckdb.execute(f"SELECT * FROM '{path}'")
    names = [column[0] for column in found.description or ()]
    assets = {
        row["name"]: row
        for row in (dict(zip(names, values, strict=True)) for values in found.fetchall())
    }
    sheet = openpyxl.load_workbook(source, read_only=True)["vInfo"]
    rows = sheet.iter_rows(values_only=True)
    header = [str(cell) for cell in next(rows)]
    machines = [dict(zip(header, row, strict=False)) for row in rows if row[0]]
    assert len(machines) == len(assets) == 9
    for machine in machines:
        asset = assets[machine["VM"]]
        assert asset["asset_type"] == "server"
        assert asset["power_state"] == machine["Powerstate"]
        for field, column in (
            ("asset_id", "VM UUID"), ("hypervisor_host", "Host"), ("cluster", "Cluster"),
            ("datacenter", "Datacenter"), ("firmware_type", "Firmware"),
            ("cpu_cores", "CPUs"), ("disk_count", "Disks"),
        ):  # fmt: skip
            assert asset[field] == machine[column], (machine["VM"], field)
        for field, column in (
            ("memory_gb", "Memory"), ("storage_gb", "Total disk capacity MiB"),
        ):  # fmt: skip
            wanted = None if machine[column] is None else pytest.approx(machine[column] / 1024)
            assert asset[field] == wanted, (machine["VM"], field)
        address = machine["Primary IP Address"]
        assert asset["ip_address"] == ([address] if address else None)
        system = machine["OS according to the configuration file"]
        assert asset["os_name"] in (system, machine["OS according to the VMware Tools"])
    assert sum(machine["CPUs"] is not None for machine in machines) >= 5
