"""The inventory as phases read it: one row per asset, of a flow alone or of its whole engagement.

asset_inventory writes what its own source says. Where the flow belongs to an engagement, what is
planned with is the engagement's merged inventory, which the execution API hands over as NDJSON; it
becomes a file of the same form here, so that no phase has to know which of both it reads.
"""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
from discovery_core.wire.model import ENGAGEMENT_INVENTORY

from discovery_crews.phase import PhaseContext
from discovery_crews.tables.engine import connect, identifier, literal
from discovery_crews.target_schema import load_schema

# What an inventory has beside one column for each field; see `write_assets`.
FIXED_COLUMNS = {
    "identity": "VARCHAR", "name": "VARCHAR", "asset_type": "VARCHAR", "class_rule": "VARCHAR",
    "identity_confidence": "DOUBLE", "rows": "BIGINT[]", "unmapped": "VARCHAR",
}  # fmt: skip
_TYPES = {"number": "DOUBLE", "integer": "BIGINT", "boolean": "BOOLEAN", "list": "VARCHAR[]"}
_NUMBERS = {"UBIGINT", "BIGINT", "HUGEINT", "DOUBLE"}
_MOST_BYTES = 64 * 1024 * 1024


def column_of(field: str) -> str:
    """The column of a mapped field: its name, unless the inventory's own columns are called so."""
    return f"mapped.{field}" if field.lower() in FIXED_COLUMNS else field


def inventory_of(context: PhaseContext) -> Path:
    """What this phase works on: the engagement's inventory where there is one, else the flow's."""
    merged = context.inputs.get(ENGAGEMENT_INVENTORY)
    if merged is None:
        return context.inputs["inventory"]
    context.progress(None, None, "reading the inventory of the engagement")
    target = context.workdir / "engagement.parquet"
    schema = load_schema(context.inputs.get("targetSchema"))
    known = {
        # as the values were converted: what has a unit may have a fraction
        field.name: "DOUBLE" if field.is_measured else _TYPES.get(field.type, "VARCHAR")
        for field in schema.fields
    }
    with connect(context.workdir) as connection:
        _write_merged(connection, merged, known, target)
    return target


def _write_merged(
    connection: duckdb.DuckDBPyConnection, merged: Path, known: dict[str, str], target: Path
) -> None:
    """Write gzipped NDJSON (`fields` and `unmapped` are objects) as Parquet with typed columns.

    A field's type is that of the schema; of another flow's own schema what its values are.
    """
    columns = FIXED_COLUMNS | {"unmapped": "JSON", "fields": "JSON"}
    typed = ", ".join(f"{literal(name)}: '{kind}'" for name, kind in columns.items())
    spool = target.with_suffix(".spool")
    connection.execute(
        f"COPY (SELECT * FROM read_json({literal(merged)}, format = 'newline_delimited', "  # noqa: S608 - quoted
        f"compression = 'gzip', columns = {{{typed}}}, maximum_object_size = {_MOST_BYTES})) "
        f"TO {literal(spool)} (FORMAT parquet, ROW_GROUP_SIZE 50000)"
    )
    source = f"read_parquet({literal(spool)})"
    said = connection.execute(
        f"SELECT e.key, list(DISTINCT e.type) FROM {source} AS a, json_each(a.fields) AS e "  # noqa: S608 - quoted
        "WHERE e.type <> 'NULL' GROUP BY e.key ORDER BY e.key"
    ).fetchall()
    fields = {name: known.get(name) or _type_of(set(kinds)) for name, kinds in said}
    fixed = ", ".join(name if name != "unmapped" else "unmapped::VARCHAR AS unmapped"
                      for name in FIXED_COLUMNS)  # fmt: skip
    taken = ", ".join(
        f"struct_extract(f, {literal(name)}) AS {identifier(column_of(name))}" for name in fields
    )
    form = json.dumps(
        {n: ["VARCHAR"] if kind == "VARCHAR[]" else kind for n, kind in fields.items()}
    )
    parsed = f"json_transform(fields, {literal(form)})" if fields else "NULL"
    connection.execute(
        f"COPY (SELECT {fixed}{', ' + taken if taken else ''} "  # noqa: S608 - quoted
        f"FROM (SELECT *, {parsed} AS f FROM {source})) TO {literal(target)} "
        "(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 50000)"
    )
    spool.unlink()


def _type_of(kinds: set[str]) -> str:
    """The type of a field that no schema at hand knows, by the JSON types of all its values."""
    if kinds == {"ARRAY"}:
        return "VARCHAR[]"
    if kinds <= _NUMBERS:
        return "DOUBLE"
    return "BOOLEAN" if kinds == {"BOOLEAN"} else "VARCHAR"
