"""Several tables of one export become one inventory: a row per asset, details as columns.

The main table keeps its rows one to one. Tables with its header are appended to it, and what
other tables say about an asset is joined to its row; what cannot be joined is named. Tables of
connections are about pairs of assets, so they go beside the inventory and never into it. All of it
runs in the engine, so that large exports need disk, not memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
from discovery_core.errors import DiscoveryError, ErrorCode

from discovery_crews.tables.engine import ROW, connect, identifier, literal

from .connections import NOT_ASSETS, ConnectionTable, connection_table, write_connections
from .join import Joined, join_child
from .keys import KeyFinder, Keys
from .model import Part, ReadRequest, ReadTable, Unread
from .presets import Preset, column_key, recognise, recognised_finding, table_name
from .table import RejectedFile, check_columns, check_rows

SOURCE_COLUMN = "source_file"
_COMPARED_TABLES = 12


@dataclass(frozen=True)
class Table:
    """Equal tables, appended. `view` is its name in the engine; rows are numbered through."""

    name: str
    view: str
    parts: tuple[Part, ...]
    columns: tuple[str, ...]
    preset: Preset | None
    connections: ConnectionTable | None = None

    @property
    def rows(self) -> int:
        """Rows of all parts."""
        return sum(part.table.rows for part in self.parts)

    @property
    def cells(self) -> int:
        """How much it holds."""
        return self.rows * len(self.columns)

    @property
    def sources(self) -> str:
        """For people."""
        return ", ".join(part.source for part in self.parts)


def combine(
    request: ReadRequest, parts: Sequence[Part], unread: Sequence[Unread], source_format: str
) -> ReadTable:
    """One table from the parts of an input; `unread` are those that were not even read.

    Raises DiscoveryError when limits are exceeded.
    """
    workdir = request.workdir
    with connect(workdir) as connection:
        tables = _append_equal(connection, parts)
        finder = KeyFinder(connection)
        main = _choose_main(finder, tables)
        beside = [table for table in tables if table.connections and table is not main]
        check_rows(request.name, main.rows, request.limits)
        joined: list[Joined] = []
        left = [*unread]
        width = len(main.columns)
        for table in tables:
            if table is main or table in beside:
                continue
            result = _join(connection, finder, request, main, table)
            if result is not None and width + len(result.columns) > request.limits.max_columns:
                left.append(Unread(table.sources, "too many columns", table.rows))
            elif result is None:
                why = f"no column leads to a row of {main.name}"
                left.append(Unread(table.sources, why, table.rows))
            else:
                width += len(result.columns)
                joined.append(result)
        check_columns(request.name, width, request.limits)
        columns = _write(connection, main, joined, workdir / "records.parquet")
        connections = _write_connections(connection, request, beside)
        rejected = _rejections(connection, workdir, main, tables, joined, beside)
        findings = [*_appended_findings(connection, main), *_connection_findings(main, beside)]
    taken = {result.child_view for result in joined} | {table.view for table in beside}
    details = [part for table in tables if table.view in taken for part in table.parts]
    made = _result(request, main, findings, joined, details, left, columns, rejected)
    return replace(made, format=source_format, connections=connections)


def _result(
    request: ReadRequest,
    main: Table,
    appended: Sequence[str],
    joined: Sequence[Joined],
    details: Sequence[Part],
    left: Sequence[Unread],
    columns: list[str],
    rejected: RejectedFile,
) -> ReadTable:
    first = main.parts[0].table
    findings = [recognised_finding(main.preset)] if main.preset else []
    findings += appended
    if len(main.parts) == 1 and (joined or left):
        findings.append(f"{main.parts[0].source!r} is the main table, with {main.rows} rows.")
    for result in joined:
        findings += result.findings
    if left:
        findings.append("Not read: " + ", ".join(entry.text for entry in left[:50]) + ".")
    for part in main.parts:
        findings += part.table.findings
    for part in details:
        findings += [f"{part.source}: {finding}" for finding in part.table.findings]
    return replace(
        first,
        parquet=request.workdir / "records.parquet",
        rejected=rejected.path,
        columns=columns,
        rows=main.rows,
        rows_rejected=rejected.count,
        rejected_by_problem=dict(rejected.by_problem),
        findings=list(dict.fromkeys(findings)),
    )


def _appended_findings(connection: duckdb.DuckDBPyConnection, main: Table) -> list[str]:
    if len(main.parts) == 1:
        return []
    offset, places = 0, []
    for part in main.parts:
        places.append(f"{part.source!r} ({part.table.rows} rows, row numbers + {offset})")
        offset += _last_row(connection, part)
    several = f"{len(main.parts)} tables with one header were appended: {', '.join(places)}"
    return [f"{several}; column {main.columns[-1]!r} tells which."]


def _connection_findings(main: Table, beside: Sequence[Table]) -> list[str]:
    told = [main] if main.connections else []
    return [f"{table.sources}: {table.rows} rows. {NOT_ASSETS}" for table in (*told, *beside)]


def _write_connections(
    connection: duckdb.DuckDBPyConnection, request: ReadRequest, beside: Sequence[Table]
) -> Path | None:
    """What the tables of connections beside the main one say, in one file; None without any."""
    for table in beside:
        check_rows(f"{request.name}: {table.sources}", table.rows, request.limits)
    target = request.workdir / "connections.parquet"
    found = [(table.sources, table.view, table.connections) for table in beside]
    tables = [(name, view, ends) for name, view, ends in found if ends is not None]
    if not tables:
        return None
    connection.execute(write_connections(tables, target))
    return target


def _last_row(connection: duckdb.DuckDBPyConnection, part: Part) -> int:
    row = connection.execute(
        f"SELECT max({ROW}) FROM read_parquet({literal(part.table.parquet)})"  # noqa: S608 - quoted
    ).fetchone()
    return int(row[0]) if row else 0


def _append_equal(connection: duckdb.DuckDBPyConnection, parts: Sequence[Part]) -> list[Table]:
    """Tables of one kind become one view each: the same preset, or the same set of columns."""
    groups: dict[object, list[Part]] = {}
    presets: dict[object, Preset | None] = {}
    for part in parts:
        name = table_name(part.source)
        preset = recognise(part.table.columns, name)
        key: object = preset or frozenset(map(column_key, part.table.columns))
        groups.setdefault(key, []).append(part)
        presets[key] = preset
    return [
        _view(connection, f"table{number}", group, presets[key])
        for number, (key, group) in enumerate(groups.items())
    ]


def _view(
    connection: duckdb.DuckDBPyConnection, view: str, parts: list[Part], preset: Preset | None
) -> Table:
    """A view over the parts' rows: columns by name, rows numbered on, the source when several."""
    columns: dict[str, str] = {}
    for part in parts:
        for column in part.table.columns:
            columns.setdefault(column_key(column), column)
    several = len(parts) > 1
    source = SOURCE_COLUMN
    while source in columns:
        source += "_2"
    selects, offset = [], 0
    for part in parts:
        own = {column_key(column): column for column in part.table.columns}
        cells = [
            (identifier(own[key]) if key in own else "NULL::VARCHAR") + f" AS {identifier(name)}"
            for key, name in columns.items()
        ]
        if several:
            cells.append(f"{literal(part.source)} AS {identifier(source)}")
        selects.append(
            f"SELECT {', '.join(cells)}, {ROW} + {offset} AS {ROW} "  # noqa: S608 - quoted
            f"FROM read_parquet({literal(part.table.parquet)})"
        )
        offset += _last_row(connection, part) if several else 0
    connection.execute(f"CREATE TEMP VIEW {view} AS {' UNION ALL '.join(selects)}")
    names = [*columns.values()]
    if several:
        names.append(source)
    name = preset.table if preset else table_name(parts[0].source)
    known = preset is not None and preset.role == "main"
    ends = None if known else connection_table(names)
    only = ends if ends is not None and ends.only else None
    return Table(name, view, tuple(parts), tuple(names), preset, only)


def _choose_main(finder: KeyFinder, tables: list[Table]) -> Table:
    """A known export's main table; else the one that most others are about; else the largest.

    One of connections only where there is nothing else.
    """
    tables = [table for table in tables if not table.connections] or tables
    known = [table for table in tables if table.preset and table.preset.role == "main"]
    if known:
        return max(known, key=lambda table: table.cells)
    about: Counter[str] = Counter()
    if len(tables) <= _COMPARED_TABLES:
        for main in tables:
            for other in tables:
                if other is not main:
                    found = finder.relation(main.view, main.columns, other.view, other.columns)
                    about[main.view] += found is not None and found.about_main
    return max(tables, key=lambda table: (about[table.view], table.cells))


def _join(
    connection: duckdb.DuckDBPyConnection,
    finder: KeyFinder,
    request: ReadRequest,
    main: Table,
    child: Table,
) -> Joined | None:
    """The child's facts per main row, or None when no key leads from one to the other."""
    preset = child.preset
    keys: list[Keys] = []
    lookup = False
    if preset and main.preset and preset.tool == main.preset.tool:
        if preset.role == "other":
            return None
        keys, lookup = _keys_of(preset, main, child), preset.lookup
    if not keys:
        found = finder.relation(main.view, main.columns, child.view, child.columns)
        keys, lookup = (found.ways, found.lookup) if found else ([], False)
    if not keys:
        return None
    request.progress(main.rows, main.rows, f"joining {child.name} to {main.name}")
    return join_child(
        connection,
        main=(main.name, main.view, main.columns),
        child=(child.name, child.view, child.columns),
        keys=keys,
        preset=preset if preset and preset.keys else None,
        lookup=lookup,
        longest=request.limits.max_cell_characters,
    )


def _keys_of(preset: Preset, main: Table, child: Table) -> list[Keys]:
    """The preset's ways to the main table that both tables have columns for."""
    own = {column_key(name): name for name in child.columns}
    theirs = {column_key(name): name for name in main.columns}
    ways = [[column_key(name) for name in key] for key in preset.keys]
    return [
        [(own[name], theirs[name]) for name in way]
        for way in ways
        if all(name in own and name in theirs for name in way)
    ]


def _write(
    connection: duckdb.DuckDBPyConnection, main: Table, joined: Sequence[Joined], target: Path
) -> list[str]:
    """Write the main table with the joined columns; the names of all columns."""
    if len(main.parts) == 1 and not joined:
        main.parts[0].table.parquet.replace(target)
        return list(main.columns)
    taken = {name.lower() for name in main.columns}
    columns = list(main.columns)
    cells = [f"m.{identifier(name)}" for name in main.columns]
    joins = []
    for result in joined:
        joins.append(f"LEFT JOIN {result.view} ON {result.view}.main_row = m.{ROW}")
        for position, name in enumerate(result.columns):
            unique = name
            while unique.lower() in taken:
                unique += "_2"
            taken.add(unique.lower())
            columns.append(unique)
            cells.append(f"{result.view}.c{position} AS {identifier(unique)}")
    connection.execute(
        f"COPY (SELECT {', '.join(cells)}, m.{ROW} FROM {main.view} m {' '.join(joins)} "  # noqa: S608 - quoted
        f"ORDER BY m.{ROW}) TO {literal(target)} "
        "(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 100000)"
    )
    written = connection.execute(f"SELECT count(*) FROM read_parquet({literal(target)})").fetchone()  # noqa: S608 - quoted
    if written is None or written[0] != main.rows:
        raise DiscoveryError(
            ErrorCode.UNREADABLE_FILE,
            f"{main.sources}: joining its tables changed the number of rows; report this.",
        )
    return columns


def _rejections(
    connection: duckdb.DuckDBPyConnection,
    workdir: Path,
    main: Table,
    tables: Sequence[Table],
    joined: Sequence[Joined],
    beside: Sequence[Table],
) -> RejectedFile:
    """All refused rows of the tables that were taken, and the joined rows without a main row."""
    rejected = RejectedFile(workdir / "rejected.csv", with_source=True, keep_credentials=True)
    taken = {main.view, *(result.child_view for result in joined), *(t.view for t in beside)}
    for table in tables:
        if table.view in taken:
            for part in table.parts:
                rejected.copy(part.table.rejected, part.source)
    sources = {table.view: table.sources for table in tables}
    for result in joined:
        for rejection in result.orphans(connection):
            rejected.add(rejection, sources[result.child_view])
    rejected.close()
    return rejected
