"""The first rows of a table as a small artefact, so that people can look without an engine."""

from __future__ import annotations

import json
from pathlib import Path

from .engine import ROW, all_columns, connect, count_rows, identifier, literal, source_columns

ROWS = 200
CELL = 300


def write_preview(workdir: Path, parquet: Path) -> Path:
    """`preview.json`: `columns`, at most 200 `rows` with their `numbers`, and how many there are.

    A cell has at most 300 characters; null is a missing value.
    """
    path = workdir / "preview.json"
    with connect(workdir) as connection:
        columns = source_columns(connection, parquet)
        number = identifier(ROW) if ROW in all_columns(connection, parquet) else "NULL"
        chosen = "".join(f", left(CAST({identifier(name)} AS VARCHAR), {CELL})" for name in columns)
        rows = connection.execute(
            f"SELECT {number}{chosen} FROM read_parquet({literal(parquet)}) LIMIT {ROWS}"  # noqa: S608 - quoted
        ).fetchall()
        content = {
            "columns": columns,
            "numbers": [row[0] for row in rows],
            "rows": [list(row[1:]) for row in rows],
            "total": count_rows(connection, parquet),
        }
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path
