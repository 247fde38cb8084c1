"""JSON and NDJSON: objects become rows, nested objects become dotted columns.

Numbers keep their text (a serial number of twenty digits must not turn into a float), lists stay
JSON text in one cell, and a line of NDJSON that cannot be read costs only itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from discovery_core.errors import DiscoveryError, ErrorCode

from discovery_crews.tables.engine import ROW

from .credentials import hide_in_lists, hide_json
from .encoding import TextEncoding
from .json_faults import find_fault
from .model import ReadRequest, ReadTable, Rejection
from .table import (
    RejectedFile,
    check_columns,
    check_rows,
    copy_json_spool,
    name_columns,
    require_rows,
)

_MAX_LINE = 4_000_000
# Attribute types of an Amazon DynamoDB export (API reference, AttributeValue).
_DYNAMODB_SCALARS = {"S", "N", "B", "BOOL", "NULL"}
_DYNAMODB_TYPES = _DYNAMODB_SCALARS | {"L", "M", "SS", "NS", "BS"}


class _Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


_DECODER = json.JSONDecoder(parse_int=_Number, parse_float=_Number, parse_constant=_constant)


@dataclass(frozen=True)
class _Item:
    """One candidate row: its number, its object (or whatever stood there) and its raw text."""

    number: int
    value: Any
    raw: str
    problem: str = ""
    remedy: str = ""


def cell_text(value: Any) -> str | None:
    """The text of one JSON value: numbers as written, lists as JSON, null as None."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return str(value)
    return _dump(value)


def _dump(value: Any) -> str:
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)}: {_dump(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_dump(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def flatten(value: dict[str, Any], prefix: str = "") -> dict[str, str | None]:
    """One row: nested objects as `a.b`; empty lists and objects are None, as null is."""
    row: dict[str, str | None] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, dict) and item:
            row.update(flatten(item, f"{name}."))
        else:
            row[name] = None if item in ({}, []) else cell_text(item)
    return row


def _plain_dynamodb(value: Any) -> Any:
    """A DynamoDB attribute without its type tags."""
    ((tag, content),) = value.items()
    if tag == "NULL":
        return None
    if tag == "M":
        return {key: _plain_dynamodb(item) for key, item in content.items()}
    if tag == "L":
        return [_plain_dynamodb(item) for item in content]
    return _Number(content) if tag == "N" else content


def _is_dynamodb(value: Any) -> bool:
    def tagged(item: Any) -> bool:
        return isinstance(item, dict) and len(item) == 1 and next(iter(item)) in _DYNAMODB_TYPES

    return isinstance(value, dict) and bool(value) and all(tagged(v) for v in value.values())


class _Rows:
    """Collects rows whose columns become known only while reading."""

    def __init__(self, request: ReadRequest) -> None:
        self.request = request
        self.name = request.name
        self.limits = request.limits
        self.keep = request.limits.keep_credential_columns
        self.rejected = RejectedFile(request.workdir / "rejected.csv", keep_credentials=self.keep)
        self.keys: dict[str, str] = {}
        self.filled: set[str] = set()
        self.rows = 0
        self.typed = 0
        self.hidden = 0
        self.spool = request.workdir / "spool.ndjson"

    def drain(self, items: Iterable[_Item]) -> None:
        """Spool every usable item, reject the rest."""
        with self.spool.open("w", encoding="utf-8", buffering=1 << 20) as stream:
            for item in items:
                row = self._row(item)
                if row is None:
                    continue
                for key in row:
                    if key not in self.keys:
                        self.keys[key] = f"k{len(self.keys)}"
                        check_columns(self.name, len(self.keys), self.limits)
                known = {key: text for key, text in row.items() if text is not None}
                self.filled.update(known)
                flat: dict[str, Any] = {self.keys[key]: text for key, text in known.items()}
                flat[ROW] = item.number
                stream.write(json.dumps(flat, ensure_ascii=False) + "\n")
                self.rows += 1
                if self.rows % 5000 == 0:
                    check_rows(self.name, self.rows, self.limits)
                    self.request.progress(self.rows, None, "reading rows")
        check_rows(self.name, self.rows, self.limits)
        self.rejected.close()

    def _row(self, item: _Item) -> dict[str, str | None] | None:
        value = item.value
        if not item.problem and _deeper_than(self.limits.max_nesting, value):
            problem = f"nested deeper than {self.limits.max_nesting} levels"
            remedy = "Export it flat, or raise DISCOVERY_MAX_NESTING."
            self._reject(item, "", problem, remedy)
            return None
        if item.problem:
            self._reject(item, "", item.problem, item.remedy)
            return None
        if not isinstance(value, dict):
            problem = f"not an object but {_kind(value)}"
            self._reject(item, "", problem, "Write each row as an object {…}.")
            return None
        if _is_dynamodb(value):
            self.typed += 1
            value = {key: _plain_dynamodb(attribute) for key, attribute in value.items()}
        if not self.keep:
            value, hidden = hide_in_lists(value)
            self.hidden += hidden
        row = flatten(value)
        for column, text in row.items():
            if text is None:
                continue
            if len(text) > self.limits.max_cell_characters:
                problem = f"cell is longer than {self.limits.max_cell_characters} characters"
                self._reject(
                    item,
                    column,
                    problem,
                    "Shorten it, or raise DISCOVERY_MAX_CELL_CHARACTERS.",
                    text,
                )
                return None
            if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
                self._reject(
                    item,
                    column,
                    "half a character (lone surrogate)",
                    "Repair the text at its source.",
                    text,
                )
                return None
        return row

    def _reject(self, item: _Item, column: str, problem: str, remedy: str, value: str = "") -> None:
        rejection = Rejection(item.number, column, value, problem, remedy, item.raw)
        self.rejected.add(hide_json(rejection, keep=self.keep))

    def _columns(self) -> dict[str, str]:
        """The keys that become columns: not those that are null here and an object there."""
        return {
            key: short
            for key, short in self.keys.items()
            if key in self.filled or not any(name.startswith(f"{key}.") for name in self.filled)
        }

    def finish(self, source_format: str, encoding: TextEncoding, findings: list[str]) -> ReadTable:
        """Name the columns and write Parquet."""
        require_rows(self.name, self.rows, self.rejected)
        if not self.filled:
            raise DiscoveryError(
                ErrorCode.NO_COLUMNS, f"{self.name}: the objects have no fields with a value."
            )
        keys = self._columns()
        columns = name_columns(list(keys), findings)
        if self.typed:
            findings.append("DynamoDB export: the type tags (S, N, L …) were removed.")
        if self.hidden:
            findings.append(
                f"{self.hidden} rows had credentials in lists, which were removed "
                "(DISCOVERY_KEEP_CREDENTIAL_COLUMNS)."
            )
        if encoding.finding:
            findings.append(encoding.finding)
        workdir = self.request.workdir
        target = workdir / "records.parquet"
        copy_json_spool(
            workdir,
            self.spool,
            dict(zip(keys.values(), columns, strict=True)),
            target,
            self.rows,
        )
        return ReadTable(
            parquet=target,
            rejected=self.rejected.path,
            columns=columns,
            rows=self.rows,
            rows_rejected=self.rejected.count,
            rejected_by_problem=dict(self.rejected.by_problem),
            format=source_format,
            encoding=encoding.label,
            findings=findings,
        )


def _deeper_than(limit: int, value: Any) -> bool:
    """Whether lists and objects stand in each other in more than `limit` levels."""
    level = [value]
    for _ in range(limit + 1):
        level = [
            item
            for entry in level
            if isinstance(entry, (dict, list))
            for item in (entry.values() if isinstance(entry, dict) else entry)
        ]
        if not level:
            return False
    return True


def _kind(value: object) -> str:
    if isinstance(value, list):
        return "a list"
    if isinstance(value, _Number):
        return "a number"
    return "nothing" if value is None else "a text" if isinstance(value, str) else "a boolean"


def read_ndjson(request: ReadRequest, encoding: TextEncoding) -> ReadTable:
    """Read newline-delimited JSON; rows are numbered by line, from 1."""
    rows = _Rows(request)
    rows.drain(_lines(request.path, encoding))
    return rows.finish("ndjson", encoding, [])


def _lines(path: Path, encoding: TextEncoding) -> Iterator[_Item]:
    with path.open(encoding=encoding.codec, errors=encoding.errors) as stream:
        number = 0
        while line := stream.readline(_MAX_LINE):
            number += 1
            if not line.strip():
                continue
            try:
                yield _Item(number, _DECODER.decode(line.strip()), line)
            except ValueError as error:
                fault = find_fault(line.rstrip(), error, line.find(line.strip()))
                problem = f"not JSON: column {fault.column}: {fault.problem}"
                yield _Item(number, None, line, problem, fault.remedy)
            except RecursionError:
                remedy = "Export it flat, or leave the inner objects out."
                yield _Item(number, None, line, "nested too deeply", remedy)


def read_json(request: ReadRequest, encoding: TextEncoding) -> ReadTable:
    """Read one JSON document: an array of objects, or an object that holds one.

    Rows are numbered by position, from 1.
    """
    name, limit = request.name, request.limits.max_document_bytes
    if request.size > limit:
        raise DiscoveryError(
            ErrorCode.LIMIT_EXCEEDED,
            f"{name}: a JSON document of {request.size} bytes; the limit is {limit}. Write it as "
            "NDJSON, one object a line (`jq -c '.[]'`), which has no such limit, or raise "
            "DISCOVERY_MAX_DOCUMENT_BYTES.",
        )
    text = request.path.read_text(encoding=encoding.codec, errors=encoding.errors)
    document = _parse(text, name)
    findings: list[str] = []
    if not isinstance(document, list) and _deeper_than(2 * request.limits.max_nesting, document):
        raise _too_deep(name)
    items = _find_rows(document, name, findings)
    rows = _Rows(request)
    rows.drain(_Item(number, value, _raw(value)) for number, value in enumerate(items, start=1))
    return rows.finish("json", encoding, findings)


def _raw(value: Any) -> str:
    """An item as it is shown when it is refused."""
    try:
        return _dump(value)
    except RecursionError:
        return ""


def _parse(text: str, name: str) -> Any:
    try:
        return _DECODER.decode(text)
    except ValueError as error:
        fault = find_fault(text, error)
        raise DiscoveryError(
            ErrorCode.UNREADABLE_FILE,
            f"{name}: line {fault.line}, column {fault.column}: {fault.problem}; this is not "
            f"valid JSON. {fault.remedy}",
        ) from error
    except RecursionError as error:
        raise _too_deep(name) from error


def _too_deep(name: str) -> DiscoveryError:
    return DiscoveryError(
        ErrorCode.LIMIT_EXCEEDED,
        f"{name}: objects and lists are nested too deeply. Export the assets as a flat list.",
    )


def _find_rows(document: Any, name: str, findings: list[str]) -> list[Any]:
    if isinstance(document, list):
        if not document:
            raise DiscoveryError(ErrorCode.NO_ROWS, f"{name}: the array is empty.")
        return document
    arrays = sorted(_arrays(document, ""), key=lambda found: -len(found[1]))
    if not arrays:
        raise DiscoveryError(
            ErrorCode.NO_ROWS,
            f"{name}: there is no array of objects in this document. Export a list of assets.",
        )
    chosen, rows = arrays[0]
    others = ", ".join(f"{path} ({len(items)})" for path, items in arrays[1:10])
    findings.append(
        f"Rows were read from {chosen!r}." + (f" Not read: {others}." if others else "")
    )
    return rows


def _arrays(value: Any, path: str) -> Iterator[tuple[str, list[Any]]]:
    """Arrays that hold objects, with their dotted place; those inside rows are not rows."""
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        place = f"{path}.{key}" if path else key
        if isinstance(item, list) and any(isinstance(entry, dict) for entry in item):
            yield place, item
        elif isinstance(item, dict):
            yield from _arrays(item, place)
