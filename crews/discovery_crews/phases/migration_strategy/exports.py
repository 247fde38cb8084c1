"""Files that other tools import: AWS, Azure, Google, and plain CSV, JSON and Parquet.

A server that lacks what a vendor requires stays out of that vendor's file and is listed, with the
reason, in a file beside it; what the vendor would take with a loss is in, and listed in another.
Cells that a spreadsheet would run are neutralised.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from discovery_crews.tables.engine import identifier, literal
from discovery_crews.tables.units import convertible, factor, unit_of_header

from .azure_systems import assessed_name, without_version
from .facts import Facts
from .kept import path
from .labels import notes, write_tags
from .vendors import Sheet, aws, azure, google, google_tables

# columns that the import makes of a disk table: one size for each disk, in their order
_DISK_SIZES = re.compile(r"disk.*(capacity|size).* each$", re.IGNORECASE)


@dataclass
class Exports:
    """Files by artefact name; per vendor, how many servers stayed out or are warned about."""

    files: dict[str, Path] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    warned: dict[str, int] = field(default_factory=dict)


def write_exports(
    connection: duckdb.DuckDBPyConnection, facts: Facts, workdir: Path, assets: Path
) -> Exports:
    """Write all exports below `workdir`.

    Vendors' files are of the view `servers`: the inventory's, and in `set_apart` why one is nothing
    that anybody migrates.
    """
    connection.execute(
        f"CREATE TEMP VIEW inventory AS SELECT * FROM read_parquet({literal(assets)})"  # noqa: S608 - quoted
    )
    connection.execute(
        "CREATE TEMP VIEW servers AS SELECT i.*, f.set_apart FROM inventory AS i "
        "JOIN facts AS f USING (identity) WHERE i.asset_type = 'server'"
    )
    made = Exports()
    disks, most = _disks(connection, facts)
    _azure_systems(connection, facts)
    write_tags(connection, facts)

    def beside(name: str, query: str) -> None:
        made.files[name] = workdir / f"{name}.csv"
        write_csv(connection, query, made.files[name])

    for sheet in (aws(facts), azure(facts, disks, most)):
        _write_sheet(connection, sheet, beside)
        _write_beside(connection, sheet, made, beside)
    machines = google(facts)
    made.files[machines.name] = workdir / f"{machines.name}.zip"
    _write_google(connection, google_tables(facts, _taken(machines), disks), made, workdir)
    _write_beside(connection, machines, made, beside)
    joined = (
        "SELECT a.*, s.strategy, s.confidence, s.reason, s.debt_score, s.readiness, s.gaps "
        "FROM inventory AS a JOIN strategies AS s USING (identity) ORDER BY a.identity"
    )
    beside("assets_csv", joined)
    made.files["assets_csv"] = made.files["assets_csv"].rename(workdir / "assets.csv")
    for name, suffix, kind in (
        ("assets_json", "ndjson", "FORMAT json"),
        ("assets_parquet", "parquet", "FORMAT parquet, COMPRESSION zstd"),
    ):
        made.files[name] = workdir / f"assets.{suffix}"
        connection.execute(f"COPY ({joined}) TO {literal(made.files[name])} ({kind})")
    return made


def _disks(connection: duckdb.DuckDBPyConnection, facts: Facts) -> tuple[str | None, int]:
    """SQL for a server's disk sizes in GB where the source lists them, and the longest list."""
    for key in facts.kept.headers:
        unit = unit_of_header(key.removesuffix(" each"))
        if _DISK_SIZES.search(key) and unit and convertible(unit, "GB"):
            texts = f"string_split(json_extract_string(a.unmapped, {literal(path(key))}), '; ')"
            size = f"round(try_cast(replace(part, ',', '') AS DOUBLE) * {factor(unit, 'GB')!r}, 2)"
            sizes = f"list_transform({texts}, lambda part: {size})"
            row = connection.execute(
                f"SELECT coalesce(max(len({sizes})), 0) FROM inventory AS a"  # noqa: S608 - quoted
            ).fetchone()
            return sizes, int(row[0]) if row else 0
    return None, 0


def _azure_systems(connection: duckdb.DuckDBPyConnection, facts: Facts) -> None:
    """Table `azure_systems`: what Azure Migrate calls each operating system; NULL for nothing.

    `written` is what stands in the file: a version that the source does not claim does not.
    """
    connection.execute(
        "CREATE TEMP TABLE azure_systems (os_name VARCHAR, os_version VARCHAR, assessed VARCHAR, "
        "written VARCHAR)"
    )
    if "os_name" not in facts.fields:
        return
    found = connection.execute(
        f"SELECT DISTINCT {facts.column('os_name')}, {facts.column('os_version')}::VARCHAR "  # noqa: S608 - quoted
        f"FROM inventory AS a WHERE {facts.column('os_name')} IS NOT NULL"
    ).fetchall()
    rows = [
        (name, version, assessed := assessed_name(name, version),
         assessed or without_version(name) or name)
        for name, version in found
    ]  # fmt: skip
    if rows:
        connection.executemany("INSERT INTO azure_systems VALUES (?, ?, ?, ?)", rows)


def _taken(sheet: Sheet) -> str:
    """The condition of servers that the vendor takes."""
    conditions = ["a.set_apart IS NULL", *sheet.requires.values()]
    return " AND ".join(f"({condition})" for condition in conditions)


def _write_sheet(
    connection: duckdb.DuckDBPyConnection, sheet: Sheet, beside: Callable[[str, str], None]
) -> None:
    query = (
        f"SELECT {sheet.selected} FROM servers AS a "  # noqa: S608 - quoted
        f"WHERE {_taken(sheet)} ORDER BY a.identity"
    )
    if sheet.most is None:
        beside(sheet.name, query)
        return
    row = connection.execute(f"SELECT count(*) FROM ({query})").fetchone()  # noqa: S608 - ours
    for part, start in enumerate(range(0, max(1, int(row[0]) if row else 0), sheet.most), 1):
        name = sheet.name if part == 1 else f"{sheet.name}-{part}"
        beside(name, f"{query} LIMIT {sheet.most} OFFSET {start}")


def _write_beside(
    connection: duckdb.DuckDBPyConnection,
    sheet: Sheet,
    made: Exports,
    beside: Callable[[str, str], None],
) -> None:
    """Write who stayed out of a vendor's file and who is in it with a warning, where anybody is."""
    for suffix, conditions, only, told, counts in (
        ("left-out", sheet.requires, "true", "[]", made.left_out),
        ("warnings", sheet.warns, _taken(sheet), notes(sheet.name), made.warned),
    ):
        listed = ", ".join(
            f"CASE WHEN NOT coalesce({condition}, false) THEN {literal(name)} END"
            for name, condition in conditions.items()
        )
        column = "missing" if suffix == "left-out" else "warning"
        query = (
            f"SELECT identity, name, array_to_string(said, ', ') AS {column} FROM (SELECT "  # noqa: S608 - quoted
            f"a.identity, a.name, CASE WHEN a.set_apart IS NOT NULL THEN [a.set_apart] ELSE "
            f"list_concat(list_filter([{listed}]::VARCHAR[], lambda part: part IS NOT NULL), "
            f"coalesce({told}, [])) END AS said "
            f"FROM servers AS a WHERE {only}) WHERE len(said) > 0 "
            "ORDER BY identity"
        )
        row = connection.execute(f"SELECT count(*) FROM ({query})").fetchone()  # noqa: S608 - ours
        if row and row[0]:
            counts[sheet.name] = int(row[0])
            beside(f"{sheet.name}-{suffix}", query)


def _write_google(
    connection: duckdb.DuckDBPyConnection, tables: dict[str, str], made: Exports, workdir: Path
) -> None:
    """One archive, as Migration Center takes it; the same servers always give the same bytes."""
    with zipfile.ZipFile(made.files["google-import"], "w", zipfile.ZIP_DEFLATED) as archive:
        for table, query in tables.items():
            part = workdir / f"google-{table}.csv"
            write_csv(connection, query, part)
            entry = zipfile.ZipInfo(f"{table}.csv")
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, part.read_bytes())
            part.unlink()


def write_csv(connection: duckdb.DuckDBPyConnection, query: str, target: Path) -> None:
    """A query as CSV for spreadsheets: lists joined by `; `, what would run is neutralised."""
    described = connection.execute(f"DESCRIBE {query}").fetchall()
    columns = []
    for name, kind, *_ in described:
        text = identifier(str(name))
        if str(kind).endswith("[]"):
            text = f"array_to_string({text}, '; ')"
        elif str(kind) != "VARCHAR":
            columns.append(f"{text} AS {identifier(str(name))}")
            continue
        runs = f"regexp_matches({text}, '^[=+@\\t\\r-]') AND NOT regexp_full_match({text}, "
        safe = f"CASE WHEN {runs}'[-+]?[0-9.,]+ ?%?') THEN chr(39) || {text} ELSE {text} END"
        columns.append(f"{safe} AS {identifier(str(name))}")
    connection.execute(
        f"COPY (SELECT {', '.join(columns)} FROM ({query})) TO {literal(target)} "  # noqa: S608 - quoted
        "(FORMAT csv, HEADER)"
    )
