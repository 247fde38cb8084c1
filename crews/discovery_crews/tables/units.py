"""Units of measure and how one is turned into another.

Inventory tools write MB and mean 1024 KB (RVTools says MiB for the same number, hypervisors and
operating systems count memory and disks that way), so K, M, G, T and P are powers of 1024 with
or without the `i`. Frequencies are powers of 1000, as SI has it.
"""

from __future__ import annotations

import re

_FAMILIES: dict[str, dict[str, float]] = {
    "data": {
        "B": 1.0,
        **{f"{letter}{i}B": 1024.0**power for power, letter in enumerate("KMGTP", 1)
           for i in ("", "i")},
    },
    "frequency": {"Hz": 1.0, "KHz": 1e3, "MHz": 1e6, "GHz": 1e9, "THz": 1e12},
    "share": {"%": 1.0, "fraction": 100.0},
    "data rate": {
        "B/s": 1.0,
        **{f"{letter}{i}B/s": 1024.0**power for power, letter in enumerate("KMGT", 1)
           for i in ("", "i")},
        "bps": 0.125, "Kbps": 125.0, "Mbps": 125e3, "Gbps": 125e6,
    },
    "operations": {"IOPS": 1.0},
}  # fmt: skip
_ALIASES = {
    "percent": "%", "pct": "%", "byte": "B", "bytes": "B", "k": "KB", "m": "MB", "g": "GB",
    "t": "TB", "p": "PB", "hertz": "Hz", "iops": "IOPS", "io/s": "IOPS",
    "kbyte": "KB", "mbyte": "MB", "gbyte": "GB", "tbyte": "TB",
    "kbytes": "KB", "mbytes": "MB", "gbytes": "GB", "tbytes": "TB",
    "kbps": "Kbps", "mbps": "Mbps", "gbps": "Gbps", "bps": "bps",
    "mbit/s": "Mbps", "gbit/s": "Gbps", "kbit/s": "Kbps",
}  # fmt: skip
_KNOWN = {unit.lower(): unit for units in _FAMILIES.values() for unit in units} | _ALIASES

# how exports write units, in lower case, and how this product writes them
UNIT_SPELLINGS = {spelling: unit for spelling, unit in _KNOWN.items() if len(spelling) > 1}

UNITS = tuple(unit for units in _FAMILIES.values() for unit in units)


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


_HEADER_UNIT = re.compile(
    r"(?:^|[\s_(\[/.-])"
    r"(bytes?|[kmgtp]i?b(?:/s|ps|ytes?)?|[kmgt]?hz|percent|pct|%|iops)"
    r"(?:$|[\s_)\].-])",
    re.IGNORECASE,
)


def unit_of_header(name: str) -> str | None:
    """The unit that a header names: `Memory (MB)`, `disk_gb`, `RamGB`, `CPU usage %`."""
    spaced = re.sub(r"(?<=[a-z])(?=(?:[KMGTP]i?B|[MG]Hz)$)", " ", name)
    found = _HEADER_UNIT.search(spaced)
    return canonical_unit(found.group(1)) if found else None
