"""Over every file: no number of the inventory is wrong by a factor of 1,000.

The check does not use the product's reading of numbers. It takes the original text that the
inventory kept, reads it both ways, in the units that the text and the header name, and asks whether
the typed value is one of them; where another column is about the same, it has to agree.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from discovery_core.errors import DiscoveryError
from discovery_core.phases import Phase
from discovery_core.wire.results import FieldMapping, MappingResult
from discovery_crews.local_run import LocalRun

from tests.crews.files import REAL, real_file

pytestmark = pytest.mark.slow

KINDS = (".csv", ".xlsx", ".json", ".ndjson", ".zip")
FILES = sorted(str(p.relative_to(REAL)) for p in REAL.rglob("*") if p.suffix in KINDS)
# how many GB, MHz or percent a unit is
GB = {"b": 2**-30, "k": 2**-20, "m": 2**-10, "g": 1.0, "t": 2.0**10, "p": 2.0**20}
WIDE = {  # what an asset may have at all; what lies outside is looked at
    "memory_gb": (0.01, 50_000), "storage_gb": (0.001, 10_000_000), "cpu_cores": (1, 2048),
    "cpu_speed_mhz": (100, 10_000),
}  # fmt: skip


def both(text: str) -> set[float]:
    """The number of a text with a decimal point and with a decimal comma."""
    digits = re.sub(r"[\s'\u00a0\u202f]", "", re.match(r"[-+]?[\d.,'\s\u00a0\u202f]*", text)[0])  # type: ignore[index]
    found = set()
    for group, decimal in ((",", "."), (".", ",")):
        plain = digits.replace(group, "").replace(decimal, ".")
        if re.fullmatch(r"[-+]?\d+(\.\d+)?", plain):
            found.add(float(plain))
    return found


def named(words: str) -> set[float]:
    """Factors to GB of the units that words name; empty for none."""
    found = set()
    for match in re.finditer(r"(?i)(?<![a-z])([kmgtp]?)i?(b|o|bytes?)(?![a-z])", words):
        found.add(GB[(match[1] or "b").lower()])
    return found


def readings(field: str, column: str, text: str) -> set[float]:
    """What the original may mean in the field's unit."""
    numbers, behind = both(text), re.sub(r"^[-+\d.,'\s~]*", "", text)
    if not field.endswith("_gb"):
        factors = {1.0, 1000.0} if field.endswith("_mhz") else {1.0}
        factors = factors | {100.0} if "utilization" in field else factors
        return {number * factor for number in numbers for factor in factors}
    bare = re.fullmatch(r"(?i)[kmgtp]", behind.strip())
    factors = {GB[bare[0].lower()]} if bare else named(behind) or named(column.replace("_", " "))
    # nothing says which unit: memory in MB, or disks in KB, are recognised by their size
    return {number * factor for number in numbers for factor in factors or GB.values()}


def near(one: float, other: float) -> bool:
    """Apart by rounding at most."""
    return abs(one - other) <= 0.11 * max(abs(one), abs(other)) + 1e-3


def wrong(record: dict[str, Any], columns: dict[str, list[str]]) -> Iterator[str]:
    """What of a record's numbers is none of its readings, or contradicts its neighbours."""
    for field, value in record["values"].items():
        text = record["originals"].get(field)
        if not isinstance(value, int | float) or isinstance(value, bool) or text is None:
            continue
        if record["conversions"].get(field, {}).get("rule") == "product":
            continue
        means = {r for column in columns[field] for r in readings(field, column, text)}
        if not any(near(value, reading) for reading in means):
            yield f"{field} is {value} by {text!r}"
        low, high = WIDE.get(field, (0, float("inf")))
        if value and not low <= value <= high and any(low <= reading <= high for reading in means):
            yield f"{field} is {value} by {text!r}, though it may be {sorted(means)}"
        for column in columns[field][1:]:
            beside = record["unmapped"].get(column)
            others = readings(field, column, beside) if beside else set()
            thousand = {
                o for o in others if value and 900 < max(o / value, value / (o or 1)) < 1150
            }
            if others and thousand == others:
                yield f"{field} is {value} by {text!r}, but {column!r} says {beside!r}"


@pytest.mark.parametrize("name", FILES or ["no file"])
def test_no_number_is_wrong_by_a_thousand(name: str, tmp_path: Path) -> None:
    local = LocalRun(real_file(name), tmp_path)
    try:
        made = local.run(Phase.ASSET_INVENTORY)
    except DiscoveryError:
        return  # what is refused has no number that could be wrong
    mapped = local.outcomes[Phase.FIELD_MAPPING].result
    assert isinstance(mapped, MappingResult)
    columns: dict[str, list[str]] = {}
    ordered: list[FieldMapping] = sorted(mapped.mappings, key=lambda m: m.role != "primary")
    for mapping in ordered:
        if mapping.target:
            columns.setdefault(mapping.target, []).append(mapping.column)
    assert made.records is not None
    lines = made.records.read_text(encoding="utf-8").splitlines()
    faults = [
        f"row {r['row']}: {said}" for r in map(json.loads, lines) for said in wrong(r, columns)
    ]
    assert faults == []


def test_the_check_would_see_a_thousandth() -> None:
    record = {
        "values": {"memory_gb": 0.128}, "originals": {"memory_gb": "131.072"}, "conversions": {},
        "unmapped": {"RAM": "128 GB"},
    }  # fmt: skip
    assert list(wrong(record, {"memory_gb": ["RAM (MB)", "RAM"]})) != []
    right = {**record, "values": {"memory_gb": 128}}
    assert list(wrong(right, {"memory_gb": ["RAM (MB)", "RAM"]})) == []
