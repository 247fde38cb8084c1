"""Writes the CustomResourceDefinition from the pydantic models, so that the two cannot disagree.

The API server wants a structural schema: no references, no `anyOf null`, a description and a bound
on everything. Pydantic's JSON schema has the same content in another shape; this module changes
the shape and adds what only the CRD knows (printer columns, selectable fields, short name).

`python -m discovery_core.crd` writes the files, `--check` fails when they differ from the models.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

from .resource import GROUP, KIND, PLURAL, SINGULAR, VERSION, DiscoveryFlow
from .resource_text import PATTERN_MESSAGE

Schema = dict[str, Any]

NAME = f"{PLURAL}.{GROUP}"
CRD_FILE = Path("crds") / f"{GROUP}_{PLURAL}.yaml"
CHART_FILE = Path("charts/discoveryflow-crds/templates") / f"{GROUP}_{PLURAL}.yaml"
REFERENCE_FILE = Path("docs/resource.md")
REFERENCE_START = "<!-- field reference: written by `make generate` -->"
REFERENCE_END = "<!-- end of the field reference -->"

_HEADER = "# Generated from core/discovery_core/resource.py by `make generate`. Do not edit.\n"
_KEPT = (
    "type",
    "format",
    "description",
    "default",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "pattern",
    "required",
    "x-kubernetes-validations",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
)
_READ = {"$defs", "$ref", "anyOf", "const", "title", "properties", "items", PATTERN_MESSAGE}
_UUID_LENGTH = 36

_COLUMNS: tuple[tuple[str, str, str, int], ...] = (
    ("State", "string", ".status.state", 0),
    ("Phase", "string", ".status.phase", 0),
    ("Progress", "string", ".status.progress", 0),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Attempt", "integer", ".status.attempt", 1),
    ("Assets", "integer", ".status.assets", 1),
    ("Message", "string", ".status.message", 1),
)


def structural(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """`schema` of pydantic as a structural schema, references to `definitions` inlined.

    Raises ValueError for a construct that a CRD cannot express, so that none is lost silently.
    """
    schema = _without_null(_inlined(schema, definitions), definitions)
    unknown = set(schema) - set(_KEPT) - _READ
    if unknown:
        raise ValueError(f"the CRD generator does not know {sorted(unknown)}")
    result: Schema = {key: schema[key] for key in _KEPT if key in schema}
    if "const" in schema:
        result["enum"] = [schema["const"]]
    if result.get("default", "") is None:
        del result["default"]
    if result.get("type") == "integer":
        result["format"] = "int64"
    if result.get("format") == "uuid":
        result["maxLength"] = _UUID_LENGTH
    _explain_pattern(schema, result)
    if "items" in schema:
        result["items"] = structural(schema["items"], definitions)
    if "properties" in schema:
        result["properties"] = {
            name: _with_object_default(
                structural(field, definitions),
                required=name in schema.get("required", ()),
                nullable="anyOf" in field,
            )
            for name, field in schema["properties"].items()
        }
    return result


def _inlined(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """The referenced definition, with what stands beside the reference winning over it."""
    if "$ref" not in schema:
        return schema
    beside = {key: value for key, value in schema.items() if key != "$ref"}
    return {**definitions[schema["$ref"].rsplit("/", 1)[1]], **beside}


def _without_null(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """`X | None` as X: an optional field is left out, and no CEL rule has to think of null."""
    if "anyOf" not in schema:
        return schema
    given = [option for option in schema["anyOf"] if option.get("type") != "null"]
    if len(given) != 1:
        raise ValueError(f"a CRD field has one type, not {schema['anyOf']}")
    beside = {key: value for key, value in schema.items() if key != "anyOf"}
    chosen = _inlined(given[0], definitions)
    merged = {**chosen, **beside}
    rules = "x-kubernetes-validations"
    if rules in chosen and rules in beside:
        merged[rules] = [*chosen[rules], *beside[rules]]
    return merged


def _explain_pattern(schema: Schema, result: Schema) -> None:
    """A pattern with a message becomes a CEL rule, which can say what to write."""
    if PATTERN_MESSAGE not in schema:
        return
    pattern = result.pop("pattern")
    if "'" in pattern:
        raise ValueError(f"the pattern {pattern} contains a quotation mark")
    result["x-kubernetes-validations"] = [
        {"rule": f"self.matches(r'{pattern}')", "message": schema[PATTERN_MESSAGE]},
        *result.get("x-kubernetes-validations", []),
    ]


def _with_object_default(field: Schema, *, required: bool, nullable: bool) -> Schema:
    """An optional object without required fields gets a default, so that CEL can rely on it.

    The default is spelled out, because the API server checks the rules against it as it stands.
    """
    if field.get("type") == "object" and not (required or nullable or field.get("required")):
        field["default"] = {
            name: inner["default"]
            for name, inner in field["properties"].items()
            if "default" in inner
        }
    return field


def custom_resource_definition(annotations: dict[str, str] | None = None) -> dict[str, Any]:
    """The whole CustomResourceDefinition as plain data."""
    raw = DiscoveryFlow.model_json_schema(by_alias=True)
    schema = structural(raw, raw["$defs"])
    schema["properties"] = {
        "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}."},
        "kind": {"type": "string", "description": f"{KIND}."},
        "metadata": {"type": "object"},
        **schema["properties"],
    }
    metadata: dict[str, Any] = {"name": NAME}
    if annotations:
        metadata["annotations"] = annotations
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "selectableFields": [{"jsonPath": ".status.state"}, {"jsonPath": ".spec.engagement"}],
        "additionalPrinterColumns": [
            {"name": name, "type": kind, "jsonPath": path, "priority": priority}
            for name, kind, path, priority in _COLUMNS
        ],
        "schema": {"openAPIV3Schema": schema},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": SINGULAR,
                "shortNames": ["dflow"],
                "categories": ["discovery"],
            },
            "versions": [version],
        },
    }


def field_reference() -> str:
    """Every field with type, default, limits and meaning, as Markdown tables."""
    schema = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    lines: list[str] = []
    for part in ("spec", "status"):
        lines += [f"### {part}", "", "| Field | Type | Meaning |", "|---|---|---|"]
        lines += _reference_rows(schema["properties"][part], "")
        lines.append("")
    return "\n".join(lines)


def _reference_rows(schema: Schema, prefix: str) -> list[str]:
    rows: list[str] = []
    for name, field in schema["properties"].items():
        path = f"{prefix}{name}"
        needed = " **Required.**" if name in schema.get("required", ()) else ""
        meaning = (field["description"] + needed).replace("|", "\\|")
        rows.append(f"| `{path}` | {_kind(field)} | {meaning} |")
        if field["type"] == "object":
            rows += _reference_rows(field, f"{path}.")
        elif field["type"] == "array" and field["items"]["type"] == "object":
            rows += _reference_rows(field["items"], f"{path}[].")
    return rows


def _kind(field: Schema) -> str:
    """Type, default and limits of a field in a few words."""
    if "enum" in field:
        text = ", ".join(f"`{value}`" for value in field["enum"])
    else:
        text = str(field["type"])
    limits = [
        f"{word} {field[key]}"
        for key, word in (
            ("minimum", "at least"),
            ("maximum", "at most"),
            ("maxLength", "characters ≤"),
            ("maxItems", "entries ≤"),
        )
        if key in field and "enum" not in field
    ]
    if field["type"] != "object" and field.get("default") not in (None, ""):
        limits.append(f"default `{field['default']}`")
    return f"{text}; {', '.join(limits)}" if limits else text


class _PlainDumper(yaml.SafeDumper):
    """Writes repeated parts out: people and diffs read no YAML anchors."""

    def ignore_aliases(self, data: object) -> bool:
        """Never refer to an earlier part."""
        return True


def rendered(annotations: dict[str, str] | None = None) -> str:
    """The CRD as YAML. Raises ValueError if Helm would take part of it for a template."""
    text = _HEADER + yaml.dump(
        custom_resource_definition(annotations),
        Dumper=_PlainDumper,
        sort_keys=False,
        width=100,
        allow_unicode=True,
    )
    if "{{" in text:
        raise ValueError("the CRD contains '{{', which Helm would read as a template")
    return text


def with_reference(document: str) -> str:
    """`document` with the text between the two markers replaced by the field reference."""
    before, start, rest = document.partition(REFERENCE_START)
    _, end, after = rest.partition(REFERENCE_END)
    if not start or not end:
        raise ValueError(f"{REFERENCE_FILE} lacks the markers of the field reference")
    return f"{before}{start}\n\n{field_reference()}\n{end}{after}"


def generated_files(root: Path) -> dict[Path, str]:
    """Wanted content of every generated file below `root`."""
    files = {
        root / CRD_FILE: rendered(),
        root / CHART_FILE: rendered({"helm.sh/resource-policy": "keep"}),
    }
    reference = root / REFERENCE_FILE
    if reference.exists():
        files[reference] = with_reference(reference.read_text(encoding="utf-8"))
    return files


def main(arguments: list[str] | None = None) -> int:
    """Write or check the generated files; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m discovery_core.crd", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on drift")
    parser.add_argument(
        "--root", type=Path, default=Path(__file__).parents[2], help="folder of the checkout"
    )
    options = parser.parse_args(arguments)
    stale = [
        path
        for path, text in generated_files(options.root).items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    if options.check:
        for path in stale:
            sys.stderr.write(f"{path} differs from the models: run `make generate`\n")
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(generated_files(options.root)[path], encoding="utf-8")
        sys.stdout.write(f"wrote {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
