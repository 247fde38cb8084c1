"""Passwords and keys that inventories carry along are left out before anyone sees them.

A migration needs none of them, and what is imported is stored, shown to agents and exported. A
column is known by its header, unless its values are only dates or yes and no; keys whose form
is unmistakable are also found in other columns. Refused rows are treated alike.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import re2
from discovery_core.credentials import is_credential_header
from discovery_core.errors import DiscoveryError, ErrorCode

from discovery_crews.tables.engine import ROW, connect, identifier, literal
from discovery_crews.tables.patterns import matches

from .model import ReadRequest, ReadTable, Rejection

if TYPE_CHECKING:
    import duckdb


MASK = "[credential removed]"
WITHHELD = "[withheld: may hold a credential; see the source]"
_MOSTLY = 0.5

_HARMLESS = ("boolean", "date", "datetime", "placeholder")

# PEM (RFC 7468) and AWS access key ids (IAM user guide, "IAM identifiers").
_PEM_BEGIN = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_PEM_END = re.compile(r"-----END [A-Z ]*PRIVATE KEY-----")
# Of other services as they document them; passwords of connection strings, addresses, remarks.
_KEY = (
    r"(?s:-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z))|"
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|"
    r"\bgh[pousr]_[A-Za-z0-9]{36}|\bxox[abeprs]-[A-Za-z0-9-]{10}[A-Za-z0-9-]*|"
    r"\bAIza[A-Za-z0-9_-]{35}|\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*|"
    r"(?i:(?:(?:pass(?:word|wd|phrase|wort)|kennwort|contrase(?:ñ|n)a|senha|\bpwd|_pwd)\s*[=:]|"
    r"(?:secret|api[_-]?key|access[_-]?key|account[_-]?key|[_-]token|accesstoken|"
    r"sharedaccesssignature)\s*=)"
    r"""\s*(?:"[^"]*"?|'[^']*'?|[^\s;,&"']+))|"""
    r"(?i:\b[a-z][a-z0-9+.-]{0,30}://[^\s/:@]*:[^\s/@]+@)"
)
# RE2, as in the engine: an expression like this one would go back and forth in long texts
_KEY_HERE = re2.compile(_KEY)
# one of these is in whatever the expression finds
TRACES = ("PRIVATE KEY-----", "AKIA", "ASIA", "=", ":", "gh", "xox", "AIza", "eyJ")
# a text of JSON, and what shows that it is a key; also one that is not closed, to go past it
_JSON_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)(?:"\s*(:)?)?')
_LONGEST_KEY_ROWS = 200
_COLUMNS_AT_ONCE = 32


def mask_keys(text: str) -> str:
    """`text` without private keys and access keys."""
    if not any(trace in text for trace in TRACES):
        return text
    # undecodable bytes stand in refused rows as half characters, which RE2 does not take
    plain = text.encode("utf-8", "replace").decode()
    masked = str(_KEY_HERE.sub(MASK, plain))
    return text if masked == plain else masked


class KeyFilter:
    """Masks keys in texts that follow each other, also where one is torn into several rows."""

    def __init__(self) -> None:
        self._inside = 0

    def clean(self, text: str) -> str:
        """The text without keys."""
        if self._inside:
            self._inside = 0 if _PEM_END.search(text) else self._inside - 1
            return WITHHELD
        begins = len(_PEM_BEGIN.findall(text))
        if begins > len(_PEM_END.findall(text)):
            self._inside = _LONGEST_KEY_ROWS
        return mask_keys(text)


class RowShield:
    """Hides the credential columns of rows that are refused. `keep` hides nothing."""

    def __init__(self, columns: Sequence[str], *, keep: bool) -> None:
        self._width = len(columns)
        self._secret = {
            at: name for at, name in enumerate(columns) if not keep and is_credential_header(name)
        }

    def hide(self, rejection: Rejection, cells: Sequence[str], delimiter: str) -> Rejection:
        """The rejection without credentials, in a form that can still be corrected.

        Where cells are missing or too many, each from the first that may be displaced is hidden;
        where there are no cells to speak of, the row is withheld.
        """
        if not self._secret:
            return rejection
        if not cells:
            return replace(rejection, value="", raw=WITHHELD)
        missing = max(0, self._width - len(cells))
        first = min(self._secret) - missing
        whole = len(cells) == self._width
        hidden = {at for at in range(len(cells)) if (at in self._secret if whole else at >= first)}
        shown = [MASK if at in hidden and cell.strip() else cell for at, cell in enumerate(cells)]
        raw = io.StringIO()
        csv.writer(raw, delimiter=delimiter, lineterminator="").writerow(shown)
        secret = rejection.column in self._secret.values()
        value = "" if not whole else MASK if secret else rejection.value
        return replace(rejection, value=value, raw=raw.getvalue())


def hide_json(rejection: Rejection, *, keep: bool) -> Rejection:
    """A refused JSON object without its credentials; withheld where it cannot be taken apart."""
    if keep:
        return rejection
    value = MASK if is_credential_header(rejection.column) else rejection.value
    try:
        parsed = json.loads(rejection.raw, parse_int=_Literal, parse_float=_Literal)
        shown, found = _without_credentials(parsed, "")
        if found:
            return replace(rejection, value=value, raw=_written(shown))
    except (ValueError, RecursionError):
        keys = [key for key, colon in _JSON_TEXT.findall(rejection.raw) if colon]
        paths = [f"{outer}.{inner}" for outer, inner in itertools.pairwise(keys)]
        if any(map(is_credential_header, [*keys, *paths])):
            return replace(rejection, value="", raw=WITHHELD)
    return rejection


def hide_in_lists(value: dict[str, Any], path: str = "") -> tuple[dict[str, Any], bool]:
    """A JSON object whose lists hold no credentials; and whether they did.

    A list becomes one cell, so leaving out columns does not reach what its objects hold.
    """
    kept: dict[str, Any] = {}
    any_found = False
    for key, item in value.items():
        name, found = f"{path}{key}", False
        if isinstance(item, dict):
            item, found = hide_in_lists(item, f"{name}.")  # noqa: PLW2901 - its safe form
        elif isinstance(item, list):
            item, found = _without_credentials(item, name)  # noqa: PLW2901 - its safe form
        kept[key] = item
        any_found = any_found or found
    return kept, any_found


class _Literal(str):
    """A JSON number as it was written."""

    __slots__ = ()


def _without_credentials(value: Any, path: str) -> tuple[Any, bool]:
    """The value with credentials masked, by their dotted names; and whether there are any."""
    if isinstance(value, list):
        items = [_without_credentials(item, path) for item in value]
        return [item for item, _ in items], any(found for _, found in items)
    if not isinstance(value, dict):
        return value, False
    kept: dict[str, Any] = {}
    any_found = False
    for key, item in value.items():
        name = f"{path}.{key}".removeprefix(".")
        secret = item not in (None, "", {}, []) and is_credential_header(name)
        kept[key], found = (MASK, True) if secret else _without_credentials(item, name)
        any_found = any_found or found
    return kept, any_found


def _written(value: Any) -> str:
    if isinstance(value, _Literal):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)}: {_written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def remove_credentials(request: ReadRequest, table: ReadTable) -> ReadTable:
    """The table without credential columns and without keys in other columns; findings say so.

    A table that is known to hold no trace of a key is not searched for them.

    Raises DiscoveryError `NoColumns` when nothing else is left.
    """
    if request.limits.keep_credential_columns:
        return table
    with connect(request.workdir) as connection:
        named = [name for name in table.columns if is_credential_header(name)]
        dropped = _with_values(connection, table, named)
        keys = _key_counts(connection, table, dropped) if table.may_hold_keys else {}
        by_value = [name for name, (filled, found) in keys.items() if found > _MOSTLY * filled]
        dropped += by_value
        cleaned = {name: found for name, (_, found) in keys.items() if found}
        if not dropped and not cleaned:
            return table
        kept = [name for name in table.columns if name not in dropped]
        if not kept:
            raise DiscoveryError(
                ErrorCode.NO_COLUMNS,
                f"{request.name}: all columns hold credentials, which are not imported.",
            )
        _rewrite(connection, table, kept, cleaned)
    findings = [
        f"Column {name!r} looks like credentials and was left out "
        "(DISCOVERY_KEEP_CREDENTIAL_COLUMNS)."
        for name in dropped
    ]
    findings += [
        f"Column {name!r}: {found} values held a password or a key, which was removed."
        for name, found in cleaned.items()
        if name not in dropped
    ]
    return replace(table, columns=kept, findings=[*findings, *table.findings])


def _with_values(
    connection: duckdb.DuckDBPyConnection, table: ReadTable, names: list[str]
) -> list[str]:
    """Those columns that hold more than dates, yes and no."""
    if not names:
        return []
    harmless = [
        " OR ".join(matches(identifier(name), pattern) for pattern in _HARMLESS) for name in names
    ]
    counts = ", ".join(
        f"count(*) FILTER (trim({identifier(name)}) <> '' AND NOT ({test}))"
        for name, test in zip(names, harmless, strict=True)
    )
    row = connection.execute(
        f"SELECT {counts} FROM read_parquet({literal(table.parquet)})"  # noqa: S608 - quoted
    ).fetchone()
    return [name for name, found in zip(names, row or (), strict=True) if found]


def _has_key(column: str) -> str:
    traces = " OR ".join(f"contains({column}, {literal(trace)})" for trace in TRACES)
    return f"(({traces}) AND regexp_matches({column}, {literal(_KEY)}))"


def _key_counts(
    connection: duckdb.DuckDBPyConnection, table: ReadTable, dropped: Sequence[str]
) -> dict[str, tuple[int, int]]:
    """Filled values and values with a key, for each column that stays."""
    names = [name for name in table.columns if name not in dropped]
    found: dict[str, tuple[int, int]] = {}
    # what the engine takes to prepare a query grows with the square of its expressions
    for start in range(0, len(names), _COLUMNS_AT_ONCE):
        batch = names[start : start + _COLUMNS_AT_ONCE]
        counts = ", ".join(
            f"count({identifier(name)}), count(*) FILTER ({_has_key(identifier(name))})"
            for name in batch
        )
        row = connection.execute(
            f"SELECT {counts} FROM read_parquet({literal(table.parquet)})"  # noqa: S608 - quoted
        ).fetchone()
        values = row or ()
        found |= {name: (values[2 * at], values[2 * at + 1]) for at, name in enumerate(batch)}
    return found


def _rewrite(
    connection: duckdb.DuckDBPyConnection,
    table: ReadTable,
    kept: Sequence[str],
    cleaned: dict[str, int],
) -> None:
    cells = [
        f"regexp_replace({identifier(name)}, {literal(_KEY)}, {literal(MASK)}, 'g') "
        f"AS {identifier(name)}"
        if name in cleaned
        else identifier(name)
        for name in kept
    ]
    target = table.parquet.with_suffix(".clean")
    connection.execute(
        f"COPY (SELECT {', '.join(cells)}, {ROW} FROM read_parquet({literal(table.parquet)})) "  # noqa: S608 - quoted
        f"TO {literal(target)} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 100000)"
    )
    target.replace(table.parquet)
