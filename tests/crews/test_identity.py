"""A key joins rows only where nothing else about them contradicts it, and nobody is lost by it."""

from __future__ import annotations

import csv
import io
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from discovery_crews.phases.asset_inventory.findings import findings_of
from discovery_crews.phases.asset_inventory.plan import field_sources
from discovery_crews.target_schema import builtin_schema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.crews.test_inventory import Built, mapping

COLUMNS = {
    "VM": "asset_name", "DNS Name": "fqdn", "IP": "ip_address", "VM UUID": "asset_id",
    "Serial": "serial_number", "Memory": "memory_gb", "VM ID": None, "VI SDK Server": None,
}  # fmt: skip
MAPPINGS = [mapping(column, target) for column, target in COLUMNS.items()]
# files have more than the few rows of a case: each of these is a machine of its own
OTHERS = [
    {"VM": f"app{n:02}", "DNS Name": f"app{n:02}.example.org", "IP": f"192.0.2.{n}",
     "VM UUID": f"42300001-0000-4000-8000-0000000000{n:02}", "Memory": "4"}
    for n in range(1, 13)
]  # fmt: skip
UUID = "42300001-6f1e-4c2a-9b3d-0a1b2c3d4e01"

Row = dict[str, str]


def built(folder: Path, rows: Sequence[Row]) -> Built:
    """An inventory of rows of these columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(COLUMNS))
    writer.writeheader()
    writer.writerows(rows)
    return Built(folder, text.getvalue(), MAPPINGS)


def machines(made: Built) -> dict[str, tuple[Any, ...]]:
    """What each asset is, by its identity and whatever its rows are."""
    return {
        asset["identity"]: tuple(
            sorted(asset[f]) if isinstance(asset[f], list) else asset[f]
            for f in ("name", "fqdn", "ip_address", "asset_id", "serial_number", "memory_gb")
        )
        for asset in made.assets
    }


def said(made: Built) -> str:
    """Everything that people are told."""
    columns = list(COLUMNS)
    sources = field_sources(MAPPINGS, builtin_schema(), columns)
    return "\n".join(findings_of(sources, made.plan, made.counts))


ERP = {"VM": "erp", "DNS Name": "erp.example.org", "IP": "10.0.0.1", "VM UUID": UUID, "Memory": "8"}


@pytest.mark.parametrize(
    ("other", "joins"),
    [
        ({"VM": "erp-copy", "DNS Name": "erp-copy.example.org", "IP": "10.9.0.1"}, False),
        ({"VM": "erp-copy", "IP": "10.9.0.1"}, False),
        ({"VM": "erp-copy"}, False),
        # the copy has not been given a name of its own in its operating system
        ({"VM": "erp-copy", "DNS Name": "erp.example.org", "IP": "10.9.0.1"}, True),
        ({"VM": "ERP (prod)", "IP": "10.0.0.1"}, True),
        ({"VM": "erp"}, True),
        ({"VM": "ERP", "IP": "10.9.0.1"}, True),
        ({"IP": "10.9.0.1"}, True),
        ({}, True),
        # an address that every machine has is no agreement
        ({"VM": "erp-copy", "IP": "169.254.1.1"}, False),
        ({"VM": "erp-copy", "IP": "10.0.0.1; 169.254.1.1"}, True),
    ],
)
def test_a_shared_uuid_joins_where_nothing_contradicts(
    tmp_path: Path, other: Row, joins: bool
) -> None:
    rows = [*OTHERS, ERP | {"IP": ERP["IP"] + "; 169.254.1.1"}, {"VM UUID": UUID, **other}]
    made = built(tmp_path, rows)
    assert made.counts.assets == len(OTHERS) + (1 if joins else 2)
    assert not [key for key in machines(made) if key.startswith("row:")]
    assert ("different machines" in said(made)) is not joins
    if not joins:
        assert f"asset_id:{UUID} erp" in machines(made)
        assert f"asset_id:{UUID} erp-copy" in machines(made)
        assert said(made).startswith("Same VM UUID or asset id, different machines")
        assert "rows 14, 15" in said(made)


@pytest.mark.parametrize(
    ("places", "assets"),
    [
        # two virtual machines of one file, whatever their names say
        ([("vc-a", "vm-1"), ("vc-b", "vm-7")], 2),
        ([("vc-a", "vm-1"), ("vc-a", "vm-7")], 2),
        ([("", "vm-1"), ("", "vm-7")], 2),
        ([("vc-a", "vm-1"), ("vc-a", "vm-1")], 1),
        ([("vc-a", "vm-1"), ("", "")], 1),
        # another vCenter, but the id is the same by chance or because it is the same vCenter
        ([("vc-a", "vm-1"), ("vc-b", "vm-1")], 1),
        # a row that may be of either is given to neither
        ([("vc-a", "vm-1"), ("vc-b", "vm-7"), ("", "")], 3),
    ],
)
def test_virtual_machines_of_other_ids_are_others(
    tmp_path: Path, places: list[tuple[str, str]], assets: int
) -> None:
    rows = [ERP | {"VI SDK Server": vcenter, "VM ID": vm} for vcenter, vm in places]
    assert built(tmp_path, [*OTHERS, *rows]).counts.assets - len(OTHERS) == assets


def test_a_vm_of_two_names_is_one(tmp_path: Path) -> None:
    place = {"VI SDK Server": "vc-a", "VM ID": "vm-1"}
    renamed = {"VM": "old-erp", "VM UUID": UUID, **place}
    assert built(tmp_path, [*OTHERS, ERP | place, renamed]).counts.assets == len(OTHERS) + 1


def test_one_pair_of_one_name_leaves_the_uuid_a_key(tmp_path: Path) -> None:
    rows = [{"VM": "web", "VM UUID": f"4230000{n}-6f1e-4c2a-9b3d-0a1b2c3d4e0{n}"} for n in (1, 2)]
    made = built(tmp_path, [*OTHERS[:2], *rows])
    assert "asset_id" in made.plan.identity_keys
    assert [key for key in machines(made) if not key.startswith("asset_id:")] == []
    assert made.counts.assets == 4


@pytest.mark.parametrize(
    ("other", "assets"),
    [
        ({"VM": "web08"}, 2),
        ({"VM": "web08", "IP": "198.51.100.9"}, 2),
        ({"VM": "web06"}, 1),
        ({"VM": "WEB06.example.org"}, 1),
        ({"VM": "web08", "IP": "198.51.100.6"}, 1),
        ({}, 1),
    ],
)
def test_a_shared_domain_name_does_not_speak_for_itself(
    tmp_path: Path, other: Row, assets: int
) -> None:
    """What follows from the key, such as the host's name within it, is no second witness."""
    fqdn = {"DNS Name": "web06.example.org"}
    rows = [{"VM": "web06", "IP": "198.51.100.6", **fqdn}, {**fqdn, **other}]
    made = built(tmp_path, [*OTHERS, *rows])
    assert made.counts.assets == len(OTHERS) + assets
    assert ("Same domain name, different machines" in said(made)) is (assets == 2)


def test_other_serial_numbers_part_a_shared_name(tmp_path: Path) -> None:
    rows = [{"VM": "db", "Serial": "S-1"}, {"VM": "db", "Serial": "S-2"}]
    assert built(tmp_path, [*OTHERS, *rows]).counts.assets == len(OTHERS) + 2


def test_a_name_that_is_there_once_is_better_than_a_row(tmp_path: Path) -> None:
    content = "name,cpu\n" + "web,1\nweb,2\ndb,4\n"
    made = Built(tmp_path, content, [mapping("name", "asset_name"), mapping("cpu", "cpu_cores")])
    assert "row:4" not in [asset["identity"] for asset in made.assets]


PLACEHOLDERS = [
    "To be filled by O.E.M.", "Default string", "System Serial Number", "SystemSerialNumb",
    "Not Specified", "Chassis Serial Number", "INVALID", "0123456789", "0000000", "None", "N/A",
    "Asset-1234567890", "No Asset Tag", "00000000-0000-0000-0000-000000000000", "keine Angabe",
    "non renseigné", "ffffffff-ffff-ffff-ffff-ffffffffffff", "xxxxxxx", "sconosciuto", "....",
    "03000200-0400-0500-0006-000700080009", "TO BE FILLED BY OEM",
]  # fmt: skip
DAMAGED = ["8.93901E+18", "8,93901E+18", "8.939010102358479e+18", "8939010102358470000"]


@pytest.mark.parametrize("field", ["Serial", "VM UUID"])
@pytest.mark.parametrize("value", [*PLACEHOLDERS, *DAMAGED])
def test_values_that_are_no_keys(tmp_path: Path, value: str, field: str) -> None:
    rows = [{"VM": f"srv{n}", "IP": f"10.1.0.{n}", field: value} for n in range(1, 4)]
    made = built(tmp_path, [*OTHERS, *rows])
    target = COLUMNS[field] or ""
    found = [asset for asset in made.assets if asset["name"].startswith("srv")]
    assert [asset[target] for asset in found] == [None] * 3
    assert [record.originals.get(target) for record in made.records.values()][-3:] == [value] * 3
    assert made.counts.assets == len(OTHERS) + 3
    assert made.counts.conversion_problems == 0
    if value in DAMAGED:
        assert "export the column as text" in said(made)
    elif value not in ("None", "N/A", "keine Angabe", "non renseigné", "sconosciuto", "...."):
        assert "placeholders" in said(made)
    if "placeholders" in said(made) or value in DAMAGED:
        assert "rows 14, 15, 16" in said(made)


@pytest.mark.parametrize(
    "value", ["7Q3KX42", "VMware-42 30 00 01", "490154203237518", "1E10", "CZ1234E+1", "123400"]
)
def test_serial_numbers_that_look_odd_are_kept(tmp_path: Path, value: str) -> None:
    made = built(tmp_path, [*OTHERS, {"VM": "srv", "Serial": value}])
    assert [a["serial_number"] for a in made.assets if a["name"] == "srv"] == [value]


@pytest.mark.parametrize(
    "header", ["Serial Number", "Seriennummer", "Numéro de série", "Asset Tag"]
)
def test_lost_digits_of_a_column_without_a_field_are_told(tmp_path: Path, header: str) -> None:
    content = f"VM,{header}\n" + "".join(f"a{n},8.93901E+18\n" for n in range(3))
    made = Built(tmp_path, content, [mapping("VM", "asset_name"), mapping(header, None)])
    (found,) = made.counts.no_identifiers
    assert (found.field, found.count, found.rows) == (header, 3, [2, 3, 4])


def test_localhost_is_nobody(tmp_path: Path) -> None:
    names = ["localhost", "localhost.localdomain", "LOCALHOST4"]
    rows = [{"VM": f"srv{n}", "DNS Name": name} for n, name in enumerate(names)]
    assert built(tmp_path, [*OTHERS, *rows * 2]).counts.assets == len(OTHERS) + 3


def test_long_names_keep_identities_short(tmp_path: Path) -> None:
    rows = [ERP | {"VM": "n" * 300 + str(n), "DNS Name": "", "IP": ""} for n in range(2)]
    made = built(tmp_path, [*OTHERS, *rows])
    assert made.counts.assets == len(OTHERS) + 2
    assert max(map(len, machines(made))) < 120


def test_thousands_of_one_key_are_no_matter(tmp_path: Path) -> None:
    """A chain of addresses is followed to its end, in steps that grow with its logarithm."""
    chain = [
        {"VM": f"n{n}", "VM UUID": UUID, "IP": f"10.{n // 200}.0.{n % 200}; "
         f"10.{(n + 1) // 200}.0.{(n + 1) % 200}"}
        for n in range(2000)
    ]  # fmt: skip
    random.Random(5).shuffle(chain)
    answer = {"identity_keys": ["asset_id"]}
    text = io.StringIO()
    writer = csv.DictWriter(text, list(COLUMNS))
    writer.writeheader()
    writer.writerows(chain)
    assert Built(tmp_path, text.getvalue(), MAPPINGS, answer=answer).counts.assets == 1


NAMES = st.sampled_from(["", "erp", "erp-copy", "web", "db"])
ROWS = st.fixed_dictionaries(
    {
        "VM": NAMES,
        "DNS Name": st.sampled_from(["", "erp.example.org", "web.example.org"]),
        "IP": st.sampled_from(["", "10.0.0.1", "10.0.0.2", "10.0.0.1; 10.0.0.3"]),
        "VM UUID": st.sampled_from(["", "u-1", "u-2", "Default string"]),
        "Serial": st.sampled_from(["", "", "s-1", "s-2", "To be filled by O.E.M."]),
        "VM ID": st.sampled_from(["", "vm-1", "vm-2"]),
        "VI SDK Server": st.sampled_from(["", "vc-a", "vc-b"]),
    }
)
KEYS = {"identity_keys": ["serial_number", "asset_id", "fqdn", "asset_name"]}
LOOSE = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def chosen(rows: Sequence[Row]) -> Built:
    """With all keys chosen, as a crew may: what it offers depends on the rows."""
    full = [row | {"Memory": "4"} for row in OTHERS]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(COLUMNS))
    writer.writeheader()
    writer.writerows([*full, {"VM": "with-serial", "Serial": "s-9"}, *rows])
    with tempfile.TemporaryDirectory() as folder:
        return Built(Path(folder), text.getvalue(), MAPPINGS, answer=KEYS)


def contents(made: Built, rows: Sequence[Row]) -> dict[frozenset[int], str]:
    """Identities by the drawn rows that they are made of (rows without anything are nobody's)."""
    first = len(OTHERS) + 3
    return {
        frozenset(row - first for row in asset["rows"]): asset["identity"]
        for asset in made.assets
        if min(asset["rows"]) >= first
    }


@LOOSE
@given(st.lists(ROWS, min_size=2, max_size=7), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows: list[Row], order: random.Random) -> None:
    places = list(range(len(rows)))
    order.shuffle(places)
    before = contents(chosen(rows), rows)
    after = contents(chosen([rows[place] for place in places]), rows)
    moved = {frozenset(places[row] for row in found): name for found, name in after.items()}

    def known(found: dict[frozenset[int], str]) -> dict[frozenset[int], str]:
        return {key: "row" if name.startswith("row:") else name for key, name in found.items()}

    assert known(moved) == known(before)


@LOOSE
@given(st.lists(ROWS, min_size=1, max_size=6), ROWS)
def test_another_row_takes_no_machine_away(rows: list[Row], added: Row) -> None:
    """Machines that were apart with a name each stay so, whatever row comes to them."""
    before = list(contents(chosen(rows), rows))
    after = contents(chosen([*rows, added]), rows)
    named = [found for found in before if any(rows[row]["VM"] for row in found)]
    for one in named:
        mine = {name for found, name in after.items() if found & one}
        others = {
            name for other in named if other != one
            for found, name in after.items() if found & other
        }  # fmt: skip
        assert mine - others or _bridged(rows, one, added), (rows, added)


def _bridged(rows: Sequence[Row], one: frozenset[int], added: Row) -> bool:
    """Whether the new row agrees with machines of one key, which are one then."""
    return any(
        rows[row]["VM UUID"] == added["VM UUID"] or rows[row]["Serial"] == added["Serial"]
        or rows[row]["DNS Name"] == added["DNS Name"]
        for row in one
    )  # fmt: skip
