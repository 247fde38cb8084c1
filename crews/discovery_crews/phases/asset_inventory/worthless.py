"""Values that stand where an identifier should and identify nothing (`no_identity.yaml`).

Firmware fills serial numbers with placeholders and spreadsheets cut the digits of long numbers. As
identities such values would merge machines that have nothing else in common.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb
import yaml

from discovery_crews.readers.presets import column_key
from discovery_crews.tables.engine import ROW, identifier, literal
from discovery_crews.tables.patterns import matches

# fields whose worthless values are not values
IDENTIFIERS = ("serial_number", "asset_id")
PLACEHOLDER = "a placeholder, no identifier"
DAMAGED = "digits were lost"


@dataclass(frozen=True)
class NoIdentifier:
    """Values of an identifier's field that identify nothing, why, how many and the first rows."""

    field: str
    fault: str
    values: list[str]
    count: int
    rows: list[int]


@lru_cache(maxsize=1)
def _data() -> dict[str, Any]:
    text = (resources.files(__package__) / "no_identity.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def _letters(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text.lower())
    return "".join(c for c in plain if c.isascii() and c.isalnum())


def _is_one_of(text: str, values: Iterable[str]) -> str:
    folded = f"regexp_replace(strip_accents(lower({text})), '[^a-z0-9]', '', 'g')"
    return f"{folded} IN ({', '.join(map(literal, sorted(set(map(_letters, values)))))})"


def _matches_one_of(text: str, kind: str, *more: str) -> str:
    patterns = "|".join([*_data()[kind], *more])
    return f"regexp_full_match(lower(trim({text})), {literal('(' + patterns + ')')})"


def is_placeholder(text: str) -> str:
    """SQL: whether the expression `text` is what firmware or a form puts where no number is."""
    listed = [value for group in _data()["placeholders"] for value in group["values"]]
    return f"({_is_one_of(text, listed)} OR {_matches_one_of(text, 'placeholder_patterns')})"


def is_missing(text: str) -> str:
    """SQL: whether the expression `text` says that there is no value."""
    return f"({matches(text, 'placeholder')} OR {_is_one_of(text, _data()['missing'])})"


def is_no_name(text: str) -> str:
    """SQL: whether the expression `text` names no machine, or not a single one."""
    unnamed = _matches_one_of(text, "placeholder_patterns", "none", "default")
    return f"({matches(text, 'placeholder')} OR {unnamed})"


def is_damaged(text: str) -> str:
    """SQL: whether the expression `text` is a number that lost digits."""
    return _matches_one_of(text, "damaged_patterns")


def is_no_identifier(text: str) -> str:
    """SQL: whether the expression `text` can identify nothing."""
    return f"({is_placeholder(text)} OR {is_missing(text)} OR {is_damaged(text)})"


def fault(text: str) -> str:
    """SQL: what people are told of the expression `text`: `PLACEHOLDER`, `DAMAGED` or NULL."""
    return (
        f"CASE WHEN {is_placeholder(text)} THEN {literal(PLACEHOLDER)} "
        f"WHEN {is_damaged(text)} THEN {literal(DAMAGED)} END"
    )


def column_of_kind(kind: str, columns: Sequence[str]) -> str | None:
    """The first column whose header is one of those listed for `kind` (`vm_id`, `vcenter`)."""
    by_key = {column_key(name): name for name in reversed(columns)}
    return next((by_key[name] for name in _data()[kind] if name in by_key), None)


def names_identifier(column: str) -> bool:
    """Whether a header is about an identifier, so that its numbers are no amounts."""
    words = column_key(column).replace("_", " ").replace("-", " ").replace("'", " ").split()
    return any(word in _data()["identifier_words"] for word in words)


def lost_digits(
    connection: duckdb.DuckDBPyConnection, records: Path, columns: Sequence[str]
) -> list[NoIdentifier]:
    """Columns whose headers say identifier and whose numbers lost digits, each as `field`."""
    found = []
    for column in columns:
        if not names_identifier(column):
            continue
        name = identifier(column)
        row = connection.execute(
            f"SELECT list(DISTINCT {name} ORDER BY {name})[:5], count(*), "  # noqa: S608 - quoted
            f"list({ROW} ORDER BY {ROW})[:20] FROM read_parquet({literal(records)}) "
            f"WHERE {is_damaged(name)}"
        ).fetchone()
        if row and row[1]:
            found.append(NoIdentifier(column, DAMAGED, *row))
    return found
