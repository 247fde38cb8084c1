"""One row per asset, for the phases that plan with assets and not with source rows.

Rows of one identity merge as the database merges them: the last row with a value counts, lists
are joined. The database merges across flows as well; this is the inventory of one flow alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb

from discovery_crews.inventory_file import FIXED_COLUMNS, column_of
from discovery_crews.tables.addresses import ordered
from discovery_crews.tables.engine import ROW, connect, identifier, literal

from .plan import FieldSource


def write_assets(
    connection: duckdb.DuckDBPyConnection,
    typed: Path,
    sources: Sequence[FieldSource],
    target: Path,
) -> None:
    """Write the artefact `inventory` from the typed rows and the table `identified`.

    Columns: `identity` (unique), `name`, `asset_type`, `class_rule` (why it has that class),
    `identity_confidence` (how surely its rows are one asset, 0 to 1, of the least sure row), `rows`
    (numbers of the source rows), one per mapped field (see `column_of`) of the field's type, and
    `unmapped` (JSON object of the source columns without a field, from the last row).
    """
    fields = ",\n".join(
        f"{_merged(source)} AS {identifier(column_of(source.field.name))}" for source in sources
    )
    connection.execute(
        f"""
        COPY (
            SELECT identified.identity AS identity,
                arg_max(identified.name, identified.row) FILTER (identified.name IS NOT NULL)
                    AS name,
                first(identified.asset_type ORDER BY identified.asset_type = 'unknown',
                    identified.row DESC) AS asset_type,
                first(identified.class_rule ORDER BY identified.asset_type = 'unknown',
                    identified.row DESC) AS class_rule,
                min(identified.identity_confidence) AS identity_confidence,
                list(identified.row ORDER BY identified.row) AS rows,
                {fields},
                arg_max(__unmapped::VARCHAR, identified.row) AS unmapped
            FROM read_parquet({literal(typed)}) AS typed
            JOIN identified ON typed.{ROW} = identified.row
            GROUP BY identified.identity
            ORDER BY min(identified.row)
        ) TO {literal(target)} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 50000)
        """  # noqa: S608 - identifiers and literals are quoted
    )


def write_nothing(workdir: Path) -> dict[str, Path]:
    """The artefacts `inventory` and `problems` of a source without assets, below `workdir`."""
    made = {"inventory": workdir / "inventory.parquet", "problems": workdir / "problems.csv"}
    typed = ", ".join(f"NULL::{kind} AS {name}" for name, kind in FIXED_COLUMNS.items())
    with connect(workdir) as connection:
        connection.execute(
            f"COPY (SELECT {typed} LIMIT 0) TO {literal(made['inventory'])} (FORMAT parquet)"
        )
    made["problems"].write_text("row,field,problem,value\n", encoding="utf-8")
    return made


def _merged(source: FieldSource) -> str:
    value = f"typed.{identifier(source.role)}"
    if not source.is_list:
        return f"arg_max({value}, identified.row) FILTER ({value} IS NOT NULL)"
    parts = f"flatten(list({value} ORDER BY identified.row) FILTER ({value} IS NOT NULL))"
    if source.is_addresses:
        return ordered(parts)
    return f"list_filter({parts}, lambda part, spot: list_position({parts}, part) = spot)"
