"""Meanings of columns in well-known exports, for the built-in fields (`presets.yaml`).

The readers recognise tables to read them; this is about what their columns mean, which a header
alone often does not say: "Memory" of RVTools is in MiB, and its "vDisk.Level" is no criticality.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import yaml

from discovery_crews.readers.presets import column_key


@dataclass(frozen=True)
class Known:
    """What an export's column is: a field or none, and the unit of its numbers."""

    export: str
    target: str | None
    unit: str | None = None


@lru_cache(maxsize=1)
def _presets() -> list[dict[str, Any]]:
    text = (resources.files(__package__) / "presets.yaml").read_text(encoding="utf-8")
    content: list[dict[str, Any]] = yaml.safe_load(text)
    for preset in content:
        listed = preset["columns"].items()
        preset["exact"] = {column_key(key): value for key, value in listed if key[-1] != "*"}
        preset["begins"] = {column_key(key): value for key, value in listed if key[-1] == "*"}
    return content


def known_columns(names: Sequence[str]) -> dict[int, Known]:
    """By position, the columns whose meaning the first fitting preset knows.

    A preset without conditions is about headers that mean the same in every export: it fits
    beside another one.
    """
    keys = [column_key(name) for name in names]
    fitting = [preset for preset in _presets() if _fits(preset, keys)]
    export = [preset for preset in fitting if "has" in preset][:1]
    everywhere = [preset for preset in fitting if "has" not in preset]
    found: dict[int, Known] = {}
    for preset in (*export, *everywhere):
        for position, key in enumerate(keys):
            meaning = _known(preset, key)
            if meaning is not None:
                found.setdefault(position, meaning)
    return found


def _fits(preset: Mapping[str, Any], keys: Sequence[str]) -> bool:
    """Whether the headers are those of the export: all of `has`, and one of `one_of`."""
    one_of = preset.get("one_of", [])
    return all(_is_there(header, keys) for header in preset.get("has", ())) and (
        not one_of or any(_is_there(header, keys) for header in one_of)
    )


def _is_there(header: str, keys: Iterable[str]) -> bool:
    wanted = column_key(header)
    if header[-1] != "*":
        return wanted in keys
    return any(key.startswith(wanted) for key in keys)


def _known(preset: Mapping[str, Any], key: str) -> Known | None:
    exact, begins = preset["exact"], preset["begins"]
    if key in exact:
        meaning = exact[key] or {}
    else:
        beginning = next((head for head in begins if key.startswith(head)), None)
        if beginning is None:
            return None
        meaning = begins[beginning] or {}
    return Known(preset["name"], meaning.get("target"), meaning.get("unit"))
