"""How answers are printed: as a table for people, as JSON, YAML or names for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import yaml
from discovery_core.resource import SINGULAR


class Format(StrEnum):
    """Output formats."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


def say(text: str) -> None:
    """A line on standard output."""
    sys.stdout.write(text + "\n")


def tell(text: str) -> None:
    """A remark on standard error, for people only: nothing where it is piped."""
    if sys.stderr.isatty():
        sys.stderr.write(text + "\n")


def structured(value: Any, form: Format) -> None:
    """JSON or YAML."""
    if form is Format.JSON:
        say(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        sys.stdout.write(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns, as kubectl has them."""
    texts = [[str(cell if cell is not None else "") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *texts, strict=True)]
    for row in ([*head], *texts):
        line = "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say(line.rstrip())


def name_of(flow: dict[str, Any]) -> str:
    """As `kubectl -o name` has it."""
    return f"{SINGULAR}.discoveryflow.dev/{flow['metadata']['name']}"


def age(timestamp: str | None) -> str:
    """How long ago, in one unit."""
    if not timestamp:
        return ""
    since = datetime.now(UTC) - datetime.fromisoformat(timestamp)
    seconds = int(since.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
