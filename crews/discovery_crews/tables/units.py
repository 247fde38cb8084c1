"""Units of measure and how one is turned into another, from one table (`units.yaml`).

Inventory tools write MB and mean 1024 KB (RVTools says MiB for the same number, hypervisors and
operating systems count memory and disks that way), so K, M, G, T and P are powers of 1024 with
or without the `i`. Frequencies are powers of 1000, as SI has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import resources
from typing import Any

import yaml


def _table() -> dict[str, dict[str, dict[str, Any]]]:
    text = (resources.files(__package__) / "units.yaml").read_text(encoding="utf-8")
    content: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(text)
    return content


def _either(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=lambda word: (-len(word), word)))


_TABLE = _table()
_FAMILIES: dict[str, dict[str, float]] = {
    name: {unit: float(entry["factor"]) for unit, entry in units.items()}
    for name, units in _TABLE.items()
}
_KNOWN = {
    spelling.lower(): unit
    for units in _TABLE.values()
    for unit, entry in units.items()
    for spelling in (unit, *entry.get("spellings", ()))
}

# how exports write units, in lower case, and how this product writes them
UNIT_SPELLINGS = {spelling: unit for spelling, unit in _KNOWN.items() if len(spelling) > 1}

UNITS = tuple(unit for units in _FAMILIES.values() for unit in units)
# words behind a number that say what it measures, as an alternation of a regular expression
SIZE_WORDS, FREQUENCY_WORDS, RATE_WORDS = (
    _either(word for word, unit in _KNOWN.items() if unit in _FAMILIES[name])
    for name in ("data", "frequency", "data rate")
)


def canonical_unit(text: str | None) -> str | None:
    """A unit as this product writes it: `MiB`, `GB`, `GHz`, `%`; None for none or unknown."""
    word = re.sub(r"\s+", "", text or "").rstrip(".")
    if bytes_a_second := re.fullmatch(r"([KkMGT]?)Bps", word):
        return f"{bytes_a_second.group(1).upper()}B/s"
    return _KNOWN.get(word.lower())


def family(unit: str) -> str | None:
    """What a canonical unit measures: data, frequency, share, data rate, operations."""
    return next((name for name, units in _FAMILIES.items() if unit in units), None)


def convertible(unit: str, target: str) -> bool:
    """Whether both units measure the same."""
    kind = family(unit)
    return kind is not None and kind == family(target)


def factor(unit: str, target: str) -> float:
    """What a number in `unit` is multiplied with to be in `target`; both measure the same."""
    units = _FAMILIES[family(unit) or ""]
    return units[unit] / units[target]


def units_like(target: str) -> list[str]:
    """The units that can be turned into `target`."""
    kind = family(target)
    return list(_FAMILIES[kind]) if kind else []


def spellings_like(target: str) -> dict[str, str]:
    """Lower-case words behind a number, and the unit that each means, of what `target` measures."""
    like = set(units_like(target))
    return {spelling: unit for spelling, unit in _KNOWN.items() if unit in like}


# outside of brackets octets ("go", "to") and short forms read like words
_LIKE_WORDS = re.compile(r"[kmgtp]i?o|[kmgtp]i|gigas")


_CLEAR = _either({"%", *(word for word in UNIT_SPELLINGS if not _LIKE_WORDS.fullmatch(word))})
_HEADER_UNIT = re.compile(
    rf"(?:^|[\s_(\[/.-])((?i:{_CLEAR}|[kmgtp]i?bps)|(?<=[(\[])(?i:{_either(UNIT_SPELLINGS)}))"
    r"(?:$|[\s_)\].-])|[\s_]([KMG]i?o|[TP]io)(?:$|[\s_)\]])",
)


def unit_of_header(name: str) -> str | None:
    """The unit that a header names: `Memory (MB)`, `disk_gb`, `RamGB`, `capacité (Go)`, `CPU %`."""
    spaced = re.sub(r"(?<=[a-z])(?=(?:[KMGTP]i?B|[MG]Hz)$)", " ", name)
    found = _HEADER_UNIT.search(spaced)
    return canonical_unit(found.group(1) or found.group(2)) if found else None
