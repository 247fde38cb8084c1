"""Addresses as people and tools write them become addresses, and nothing else does."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import duckdb
import pytest
from discovery_core.phases import Phase
from discovery_core.wire.results import InventoryResult
from discovery_crews.local_run import LocalRun
from discovery_crews.tables.addresses import addresses, not_addresses


@pytest.mark.parametrize(
    ("cell", "found", "odd"),
    [
        ("192.0.2.31 198.51.100.31", ["192.0.2.31", "198.51.100.31"], False),
        ("192.0.2.32\n2001:DB8::32", ["192.0.2.32", "2001:db8::32"], False),
        ("fe80::250:56ff:fe81:6f75, 192.0.2.33",
         ["192.0.2.33", "fe80::250:56ff:fe81:6f75"], False),
        ("192.0.2.34/24", ["192.0.2.34"], False),
        ("2001:db8::37/64", ["2001:db8::37"], False),
        ("192.0.2.1/255.255.255.0", ["192.0.2.1"], False),
        ("169.254.10.5;192.0.2.35;127.0.0.1", ["192.0.2.35", "169.254.10.5", "127.0.0.1"], False),
        ("192.0.2.36 / 198.51.100.36", ["192.0.2.36", "198.51.100.36"], False),
        ("192.0.2.36/198.51.100.36", ["192.0.2.36", "198.51.100.36"], False),
        ("10.0.0.1|10.0.0.1|10.0.0.2", ["10.0.0.1", "10.0.0.2"], False),
        ("fe80::1%eth0", ["fe80::1"], False),
        ("192.0.2.1:443", ["192.0.2.1"], False),
        ('["10.0.0.1","10.0.0.2"]', ["10.0.0.1", "10.0.0.2"], False),
        ('[{"mac":"50:6b:8d:00:00:01","ip_list":[{"ip":"192.0.2.1"}]}]', ["192.0.2.1"], False),
        ("{192.0.2.1, fe80::1}", ["192.0.2.1", "fe80::1"], False),
        ("192.0.2.1 (DHCP)", ["192.0.2.1"], True),
        ("srv-01", None, True), ("999.1.1.1", None, True), ("1::2::3", None, True),
        ("50:6b:8d:00:00:01", None, True), ("0.0.0.0", None, True), ("", None, False),
    ],
)  # fmt: skip
def test_what_a_cell_holds(cell: str, found: list[str] | None, odd: bool) -> None:
    query = f"SELECT {addresses('x')}, {not_addresses('x')} FROM (SELECT ? AS x)"
    assert duckdb.execute(query, [cell]).fetchone() == (found, odd)


def test_nothing_is_not_an_empty_list() -> None:
    rows = duckdb.execute(
        f"SELECT {addresses('x')} FROM (VALUES ('10.0.0.1'), (NULL), ('DHCP')) AS t(x)"
    ).fetchall()
    assert rows == [(["10.0.0.1"],), (None,), (None,)]


TEXT = """\
Server Name,IP Address,OS,Cores,Memory (GB),Disk (GB)
net-1,"169.254.10.5, 192.0.2.35/24",Windows Server 2019,4,16,120
net-2,169.254.10.5,Windows Server 2019,4,16,120
net-3,192.0.2.37 or so,Windows Server 2019,4,16,120
"""


def test_a_vendors_primary_can_be_reached_and_what_is_no_address_is_told(tmp_path: Path) -> None:
    source = tmp_path / "list.csv"
    source.write_text(TEXT, encoding="utf-8")
    local = LocalRun(source, tmp_path / "work")
    local.scratch.mkdir()
    made = local.run(Phase.MIGRATION_STRATEGY).artefacts
    with zipfile.ZipFile(made["google-import"]) as archive:
        machines = list(csv.DictReader(io.StringIO(archive.read("vmInfo.csv").decode())))
    assert [m["PrimaryIPAddress"] for m in machines] == ["192.0.2.35", "", "192.0.2.37"]
    with made["aws-import"].open(encoding="utf-8", newline="") as stream:
        assert [row["IPAddress"] for row in csv.DictReader(stream)] == [
            "192.0.2.35", "", "192.0.2.37",
        ]  # fmt: skip
    inventory = local.outcomes[Phase.ASSET_INVENTORY]
    assert isinstance(inventory.result, InventoryResult)
    assert any("ip_address: 1 values" in text for text in inventory.result.findings)
    problems = inventory.artefacts["problems"].read_text(encoding="utf-8")
    assert "4,ip_address,not an address,192.0.2.37 or so" in problems
    (kept,) = duckdb.execute(
        f"SELECT ip_address FROM '{inventory.artefacts['inventory']}' WHERE name = 'net-1'"
    ).fetchall()
    assert kept == (["192.0.2.35", "169.254.10.5"],)
