"""Meanings of columns in well-known exports, for the built-in fields (`presets.yaml`).

The readers recognise tables to read them; this is about what their columns mean, which a header
alone often does not say: "Memory" of RVTools is in MiB, and its "vDisk.Level" is no criticality.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import yaml


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
    return content


def known_columns(names: Sequence[str]) -> dict[int, Known]:
    """By position, the columns that the first fitting preset knows; empty for an unknown export."""
    folded = [" ".join(name.lower().split()) for name in names]
    for preset in _presets():
        if {header.lower() for header in preset["has"]} <= set(folded):
            return {
                position: found
                for position, name in enumerate(folded)
                if (found := _known(preset, name)) is not None
            }
    return {}


def _known(preset: dict[str, Any], name: str) -> Known | None:
    columns = {header.lower(): meaning for header, meaning in preset["columns"].items()}
    if name not in columns:
        name = next((key for key in columns if key.endswith("*") and name.startswith(key[:-1])), "")
        if not name:
            return None
    meaning = columns[name] or {}
    return Known(preset["name"], meaning.get("target"), meaning.get("unit"))
