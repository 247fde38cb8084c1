"""Passwords and keys that inventories carry along are left out before anyone sees them.

A migration needs none of them, and what is imported is stored, shown to agents and exported. A
column is known by its header, unless its values are only dates or yes and no; keys whose form
is unmistakable are also found in other columns. Refused rows are treated alike.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from discovery_core.errors import DiscoveryError, ErrorCode

from discovery_crews.tables.engine import ROW, connect, identifier, literal
from discovery_crews.tables.patterns import matches

if TYPE_CHECKING:
    import duckdb

    from .table import ReadRequest, ReadTable, Rejection

MASK = "[credential removed]"
WITHHELD = "[withheld: may hold a credential; see the source]"
_MOSTLY = 0.5

_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[\W_]+")
_ENDINGS = (
    "password", "passwords", "passwd", "pwd", "passphrase", "passwort", "kennwort", "wachtwoord",
    "contraseña", "contrasena", "contrasenya", "senha", "haslo", "hasło", "пароль", "secret",
    "secrets", "token", "tokens", "apikey", "apikeys", "privatekey", "secretkey", "accesskey",
)  # fmt: skip
_PHRASES = re.compile(
    r"\b(?:mots? de passe|mdp|api keys?|private keys?|access keys?|secret keys?|ssh keys?|"
    r"community strings?|snmp community|credentials?)\b"
)
# With one of these the header is about a credential: its age, its rules, where it is kept.
_ABOUT = frozenset(
    "expiry expires expired expire expiration expiring age policy last changed change set date "
    "length required ring count enabled disabled protected protection rotation rotated type "
    "complexity manager vault management never status reset days min max valid until attempts "
    "compliant profile name id ref reference path location arn url store provider service server "
    "public rotada rotado caducada "
    "ablauf ablaufdatum gültig geändert alter richtlinie caducidad expiración validade".split()
)
_HARMLESS = ("boolean", "date", "datetime", "placeholder")

# PEM (RFC 7468) and AWS access key ids (IAM user guide, "IAM identifiers").
_PEM_BEGIN = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_PEM_END = re.compile(r"-----END [A-Z ]*PRIVATE KEY-----")
_KEY = (
    r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)|"
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
)
_KEY_HERE = re.compile(_KEY.replace(r"\z", r"\Z"))
TRACES = ("PRIVATE KEY-----", "AKIA", "ASIA")
_JSON_KEY = re.compile(r'"((?:[^"\\]|\\.)*)"\s*:')
_LONGEST_KEY_ROWS = 200


def is_credential_header(name: str) -> bool:
    """Whether a column of this name holds credentials, by its words in several languages."""
    words = [word.lower() for word in _WORDS.split(name) if word]
    if _ABOUT.intersection(words):
        return False
    return any(word.endswith(_ENDINGS) for word in words) or bool(_PHRASES.search(" ".join(words)))


def mask_keys(text: str) -> str:
    """`text` without private keys and access keys."""
    if not any(trace in text for trace in TRACES):
        return text
    return _KEY_HERE.sub(MASK, text)


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
        """The rejection without credentials; without the row where its cells may be displaced."""
        if not self._secret:
            return rejection
        if len(cells) != self._width:
            return replace(rejection, value="", raw=WITHHELD)
        shown = [
            MASK if at in self._secret and cell.strip() else cell for at, cell in enumerate(cells)
        ]
        raw = io.StringIO()
        csv.writer(raw, delimiter=delimiter, lineterminator="").writerow(shown)
        secret = rejection.column in self._secret.values()
        return replace(rejection, value=MASK if secret else rejection.value, raw=raw.getvalue())


def hide_json(rejection: Rejection, *, keep: bool) -> Rejection:
    """A refused JSON object, withheld where one of its keys names a credential."""
    if keep or not any(is_credential_header(key) for key in _JSON_KEY.findall(rejection.raw)):
        return rejection
    secret = is_credential_header(rejection.column)
    return replace(rejection, value=MASK if secret else rejection.value, raw=WITHHELD)


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
        f"Column {name!r}: {found} values held a private key or an access key, which was removed."
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
    counts = ", ".join(
        f"count({identifier(name)}), count(*) FILTER ({_has_key(identifier(name))})"
        for name in names
    )
    if not names:
        return {}
    row = connection.execute(
        f"SELECT {counts} FROM read_parquet({literal(table.parquet)})"  # noqa: S608 - quoted
    ).fetchone()
    values = row or ()
    return {name: (values[2 * at], values[2 * at + 1]) for at, name in enumerate(names)}


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
