"""The one way to a DuckDB connection, so that memory, disk and network are bounded everywhere.

DuckDB runs inside the process, spills to the work folder when its memory limit is reached, and
here may neither load extensions nor reach the network. Identifiers and texts enter SQL only
through `identifier` and `literal`: column names come from users' files.
"""

from __future__ import annotations

from pathlib import Path

import duckdb

from discovery_crews.settings import engine_settings

ROW = "__row"
ORIGINAL_PREFIX = "__original."
RESERVED_PREFIX = "__"


def connect(workdir: Path) -> duckdb.DuckDBPyConnection:
    """A fresh in-memory database that spills below `workdir`. Close it after use."""
    settings = engine_settings()
    spill = workdir / "spill"
    spill.mkdir(parents=True, exist_ok=True)
    connection = duckdb.connect(
        config={
            "memory_limit": settings.engine_memory,
            "threads": str(settings.engine_threads),
            "temp_directory": str(spill),
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "allow_community_extensions": "false",
        }
    )
    # a long query would draw its progress on standard output, which is for results
    connection.execute("SET enable_progress_bar = false")
    connection.execute("SET lock_configuration = true")
    return connection


def identifier(name: str) -> str:
    """`name` as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str | Path) -> str:
    """`text` as a SQL string."""
    return "'" + str(text).replace("'", "''") + "'"


def all_columns(connection: duckdb.DuckDBPyConnection, parquet: Path) -> list[str]:
    """Names of every column of a Parquet file, in order."""
    rows = connection.execute(
        f"DESCRIBE SELECT * FROM read_parquet({literal(parquet)})"  # noqa: S608 - quoted
    ).fetchall()
    return [str(row[0]) for row in rows]


def source_columns(connection: duckdb.DuckDBPyConnection, parquet: Path) -> list[str]:
    """Names of the columns that came from the source, without the bookkeeping ones (`__…`)."""
    return [
        name for name in all_columns(connection, parquet) if not name.startswith(RESERVED_PREFIX)
    ]


def count_rows(connection: duckdb.DuckDBPyConnection, parquet: Path) -> int:
    """Number of rows of a Parquet file (from its footer)."""
    row = connection.execute(
        f"SELECT count(*) FROM read_parquet({literal(parquet)})"  # noqa: S608 - quoted
    ).fetchone()
    return int(row[0]) if row else 0
