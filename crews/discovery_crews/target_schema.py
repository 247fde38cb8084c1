"""The fields that columns are mapped to: the built-in 64, or a schema of the user's own."""

from __future__ import annotations

import csv
import io
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml
from discovery_core.errors import DiscoveryError, ErrorCode
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

BUILTIN = Path(__file__).parent / "mapping" / "target_fields.yaml"
MAX_BYTES = 4 * 1024 * 1024
MAX_FIELDS = 5000


class TargetField(BaseModel):
    """One field.

    `unit` is the unit in which values are kept; `kinds` are the kinds of values that fit (see
    `mapping.kinds`), best first, where known; values of a `unique` field identify the asset.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    name: str = Field(min_length=1, max_length=128)
    type: Literal["string", "integer", "number", "boolean", "date", "list"] = "string"
    unit: str | None = None
    description: str = ""
    synonyms: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    pattern: str | None = None
    allowed_values: tuple[str, ...] = ()
    required: bool = False
    unique: bool = False


class TargetSchema(BaseModel):
    """All fields, by unique names."""

    model_config = ConfigDict(frozen=True)

    fields: tuple[TargetField, ...]

    @model_validator(mode="after")
    def _unique(self) -> TargetSchema:
        names = [field.name for field in self.fields]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"fields are defined twice: {', '.join(twice)}")
        if not names:
            raise ValueError("there are no fields")
        return self

    @property
    def names(self) -> list[str]:
        """Names in the schema's order."""
        return [field.name for field in self.fields]

    def get(self, name: str) -> TargetField | None:
        """The field of that name, or None."""
        return next((field for field in self.fields if field.name == name), None)


@lru_cache(maxsize=1)
def builtin_schema() -> TargetSchema:
    """The 64 fields that the product ships with."""
    return TargetSchema.model_validate(
        {"fields": yaml.safe_load(BUILTIN.read_text(encoding="utf-8"))}
    )


def load_schema(path: Path | None) -> TargetSchema:
    """The schema in a file: CSV with the columns field and description, or YAML.

    None gives the built-in one. YAML is a list of fields, or a mapping with the key `fields`.
    Raises DiscoveryError (INVALID_TARGET_SCHEMA) naming the place.
    """
    if path is None:
        return builtin_schema()
    if path.stat().st_size > MAX_BYTES:
        raise _invalid(path, f"it has more than {MAX_BYTES} bytes")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _invalid(path, f"it is not UTF-8 text (byte {error.start})") from error
    first = next((line for line in text.splitlines() if line.strip()), "")
    looks_like_csv = "," in first and ":" not in first.split(",")[0]
    fields = _from_csv(path, text) if looks_like_csv else _from_yaml(path, text)
    if len(fields) > MAX_FIELDS:
        raise _invalid(path, f"it has {len(fields)} fields, more than {MAX_FIELDS}")
    try:
        return TargetSchema.model_validate({"fields": fields})
    except ValidationError as error:
        problem = error.errors()[0]
        place = " ".join(str(part) for part in problem["loc"]) or "schema"
        raise _invalid(path, f"{place}: {problem['msg']}") from error


def _from_csv(path: Path, text: str) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text))
    header = [name.strip().lower() for name in reader.fieldnames or []]
    if "field" not in header:
        raise _invalid(path, "line 1: the first column has to be called field, then description")
    fields = []
    for row in reader:
        values = {
            (key or "").strip().lower(): (value or "").strip()
            for key, value in row.items()
            if not isinstance(value, list)
        }
        if not values.get("field"):
            raise _invalid(path, f"line {reader.line_num}: the field has no name")
        entry: dict[str, Any] = {
            "name": values["field"],
            "description": values.get("description", ""),
        }
        entry |= {key: values[key] for key in ("type", "unit") if values.get(key)}
        if values.get("synonyms"):
            entry["synonyms"] = [part.strip() for part in values["synonyms"].split("|")]
        fields.append(entry)
    return fields


def _from_yaml(path: Path, text: str) -> list[dict[str, Any]]:
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark is not None else ""
        raise _invalid(path, f"{line}it is neither CSV nor YAML") from error
    listed = document.get("fields") if isinstance(document, dict) else document
    if not isinstance(listed, list):
        raise _invalid(path, "it needs a list of fields, each with a name and a description")
    fields = []
    for number, entry in enumerate(listed, start=1):
        if isinstance(entry, str):
            entry = {"name": entry}  # noqa: PLW2901 - the short form of the same thing
        if not isinstance(entry, dict):
            raise _invalid(path, f"field {number}: write name and description")
        renamed = {("name" if key == "field" else key): value for key, value in entry.items()}
        renamed |= {
            "allowed_values": renamed.pop("allowedValues", renamed.get("allowed_values", ())),
        }
        fields.append(renamed)
    return fields


def _invalid(path: Path, problem: str) -> DiscoveryError:
    return DiscoveryError(
        ErrorCode.INVALID_TARGET_SCHEMA,
        f"target schema {path.name}: {problem}. Write CSV with the columns field,description, or "
        "a YAML list of fields with name and description.",
    )
