"""The fields that columns are mapped to: the built-in 64, or a schema of the user's own.

Its own module, because mapping, approval and inventory have to mean the same by a field: its
type and unit decide how values are converted, its words and kinds decide which column is it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml
from discovery_core.errors import DiscoveryError, ErrorCode
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from discovery_crews.tables.patterns import LONGEST_PATTERN, whole_value
from discovery_crews.tables.units import convertible

BUILTIN = Path(__file__).parent / "mapping" / "target_fields.yaml"
MAX_BYTES = 4 * 1024 * 1024
MAX_FIELDS = 5000
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_REMEDY = (
    "Write CSV with the columns field,description, or a YAML list of fields with name and "
    "description."
)
_LISTS = ("synonyms", "allowed_values")
_KEYS = {
    "field": "name", "allowedvalues": "allowed_values", "allowed values": "allowed_values",
    "mandatory": "required",
}  # fmt: skip


class TargetField(BaseModel):
    """One field.

    `unit` is the unit in which values are kept ("GB", "MHz", "%"); `pattern` is a regular
    expression (RE2) that whole values match; `kinds` are the kinds of values that fit (see
    `mapping.kinds`), best first, where known; values of a `unique` field identify the asset.
    `plausible`: lowest and highest number, in `unit`, that an asset usually has; people are told of
    others. `counted_per`: a column may count for each of that field (cores of each socket).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    name: str = Field(min_length=1, max_length=128)
    type: Literal["string", "integer", "number", "boolean", "date", "list"] = "string"
    unit: str | None = None
    description: str = ""
    synonyms: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    pattern: str | None = Field(default=None, max_length=LONGEST_PATTERN)
    allowed_values: tuple[str, ...] = ()
    required: bool = False
    unique: bool = False
    plausible: tuple[float, float] | None = None
    counted_per: str | None = None

    @property
    def is_measured(self) -> bool:
        """Whether its numbers are in a unit that others convert to."""
        return self.type in ("number", "integer") and bool(
            self.unit and convertible(self.unit, self.unit)
        )

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            whole_value(pattern)
        return pattern


def _twice(name: str) -> str:
    return f"field {name!r} is defined twice"


class TargetSchema(BaseModel):
    """All fields, by unique names."""

    model_config = ConfigDict(frozen=True)

    fields: tuple[TargetField, ...]

    @model_validator(mode="after")
    def _unique(self) -> TargetSchema:
        if not self.fields:
            raise ValueError("there are no fields")
        seen: set[str] = set()
        for field in self.fields:
            if field.name in seen:
                raise ValueError(_twice(field.name))
            seen.add(field.name)
        return self

    @property
    def names(self) -> list[str]:
        """Names in the schema's order."""
        return [field.name for field in self.fields]

    @cached_property
    def _by_name(self) -> dict[str, TargetField]:
        return {field.name: field for field in self.fields}

    def get(self, name: str) -> TargetField | None:
        """The field of that name, or None."""
        return self._by_name.get(name)


@lru_cache(maxsize=1)
def builtin_schema() -> TargetSchema:
    """The 64 fields that the product ships with."""
    content = yaml.load(BUILTIN.read_text(encoding="utf-8"), Loader=_LOADER)  # noqa: S506 - safe
    return TargetSchema.model_validate({"fields": content})


@dataclass(frozen=True)
class _Entry:
    """A field as written, and where: "line 3" or "field 2"."""

    place: str
    values: dict[str, Any]


def load_schema(path: Path | None) -> TargetSchema:
    """The schema in a file: CSV with the columns field and description, or YAML.

    None gives the built-in one. Further columns or keys are those of `TargetField`; in CSV,
    several synonyms or allowed values are separated by `|`. YAML is a list of fields, or a
    mapping with the key `fields`. Raises DiscoveryError (INVALID_TARGET_SCHEMA) naming the place.
    """
    if path is None:
        return builtin_schema()
    text = _text(path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    cells = [_key(cell.strip("\"' ")) for cell in re.split(r"[,;\t]", first)]
    looks_like_csv = path.suffix.lower() in (".csv", ".tsv") or "name" in cells
    entries = list(_from_csv(path, text) if looks_like_csv else _from_yaml(path, text))
    if len(entries) > MAX_FIELDS:
        raise _invalid(path, f"it has {len(entries)} fields, more than {MAX_FIELDS}")
    fields = [_field(path, entry) for entry in entries]
    try:
        return TargetSchema(fields=tuple(fields))
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Value error, ")
        places = [
            entry.place
            for entry, field in zip(entries, fields, strict=True)
            if said == _twice(field.name)
        ]
        where = f"{places[-1]}: " if places else ""
        raise _invalid(path, where + said) from error


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise _invalid(path, f"it has more than {MAX_BYTES} bytes")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _invalid(path, f"it is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise _invalid(path, f"it cannot be read ({error.strerror})") from error


def _field(path: Path, entry: _Entry) -> TargetField:
    try:
        return TargetField.model_validate(entry.values)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        said = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "missing" and key == "name":
            said = "the field has no name"
        raise _invalid(path, f"{entry.place}: {key}: {said}") from error


def _from_csv(path: Path, text: str) -> Iterator[_Entry]:
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(",;\t", key=first.count)
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter)
    known = {*TargetField.model_fields, "kinds"}
    names = [_key(name) for name in reader.fieldnames or []]
    if "name" not in names:
        raise _invalid(path, "line 1: the first column has to be called field, then description")
    reader.fieldnames = names
    try:
        for row in reader:
            place = f"line {reader.line_num}"
            if None in row:
                raise _invalid(
                    path, f"{place}: there are more cells than columns; quote texts with commas"
                )
            values = {
                key: cell.strip() for key, cell in row.items() if key in known and cell and
                cell.strip()
            }  # fmt: skip
            if not values.get("name"):
                raise _invalid(path, f"{place}: the field has no name")
            several = {
                key: tuple(part.strip() for part in values[key].split("|") if part.strip())
                for key in (*_LISTS, "kinds", "plausible")
                if key in values
            }
            yield _Entry(place, values | several)
    except csv.Error as error:
        raise _invalid(path, f"line {reader.line_num}: {error}") from error


def _key(name: str | None) -> str:
    plain = (name or "").strip().lower()
    return _KEYS.get(plain, plain)


def _from_yaml(path: Path, text: str) -> Iterator[_Entry]:
    try:
        document = yaml.load(text, Loader=_LOADER)  # noqa: S506 - a safe loader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark is not None else ""
        raise _invalid(path, f"{line}it is neither CSV nor YAML") from error
    listed = document.get("fields") if isinstance(document, dict) else document
    if not isinstance(listed, list):
        raise _invalid(path, "it needs a list of fields, each with a name and a description")
    for number, entry in enumerate(listed, start=1):
        if isinstance(entry, str):
            yield _Entry(f"field {number}", {"name": entry})
        elif isinstance(entry, dict):
            values = {_key(str(key)): value for key, value in entry.items() if value is not None}
            yield _Entry(f"field {number}", values)
        else:
            raise _invalid(path, f"field {number}: write name and description")


def _invalid(path: Path, problem: str) -> DiscoveryError:
    return DiscoveryError(
        ErrorCode.INVALID_TARGET_SCHEMA, f"target schema {path.name}: {problem}. {_REMEDY}"
    )
