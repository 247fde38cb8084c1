"""Reads what the source says about dependencies, one extractor for each kind of evidence.

All rows are read by SQL; only what was found comes into Python, grouped, with the rows that say it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
from discovery_core.wire.results import FieldMapping

from discovery_crews.tables import values
from discovery_crews.tables.engine import ROW, all_columns, identifier, literal, source_columns

from .edges import MOST_EVIDENCE, Kind, Mention

# Columns of an application import sheet with dependency rows (Konveyor, tackle2-ui's
# template_application_import.csv): record type 2 is a dependency of "Application Name".
# Southbound: the application depends on the other; northbound: the other depends on it.
KONVEYOR = ("record type 1", "application name", "dependency", "dependency direction")

# How exports of observed connections head their columns: Azure Migrate dependency exports, AWS
# Application Discovery network connections, netstat and flow logs.
_END = (
    r"(server ?name|server ?id|server|host ?name|host|machine|computer|name|ip ?address|ip|"
    r"addr(ess)?|vm)"
)
_SOURCE = re.compile(rf"^((source|src|initiator) ?({_END})?|local address)$")
_TARGET = re.compile(rf"^((destination|dest|dst|responder) ?({_END})?|(foreign|remote) address)$")
# words that also head other columns ("Client", "Server name"): only beside a port
_VAGUE_SOURCE = re.compile(rf"^(client|from|local)( {_END})?$")
_VAGUE_TARGET = re.compile(rf"^(server|to|remote|foreign|target)( {_END})?$")
_PORT = re.compile(r"^(destination|dest|dst|remote|foreign|target|server)? ?port$")
_PROTOCOL = re.compile(r"^(transport |ip )?(protocol|proto)$")


@dataclass(frozen=True)
class Inventory:
    """Where an inventory lies and which fields it has columns for."""

    assets: Path
    records: Path
    fields: frozenset[str]
    mappings: tuple[FieldMapping, ...]

    @classmethod
    def of(
        cls,
        connection: duckdb.DuckDBPyConnection,
        assets: Path,
        records: Path,
        mappings: Sequence[FieldMapping],
    ) -> Inventory:
        """Looks at the columns."""
        return cls(assets, records, frozenset(all_columns(connection, assets)), tuple(mappings))

    def columns(self, field: str) -> str:
        """The source columns of a field, for people."""
        return ", ".join(entry.column for entry in self.mappings if entry.target == field)


def mentions(connection: duckdb.DuckDBPyConnection, inventory: Inventory) -> list[Mention]:
    """Everything that the source says, in a fixed order."""
    found = list(_application_rows(connection, inventory))
    # the field repeats what those rows say, without their direction
    said = {tuple(sorted((m.from_text.lower(), m.to_text.lower()))) for m in found}
    found.extend(
        mention
        for mention in _list_field(connection, inventory, "depends_on", "depends_on")
        if tuple(sorted((mention.from_text.lower(), mention.to_text.lower()))) not in said
    )
    found.extend(_connections(connection, inventory))
    found.extend(_hosting(connection, inventory, "hypervisor_host", "runs_on"))
    found.extend(_hosting(connection, inventory, "cluster", "in_cluster"))
    found.extend(_list_field(connection, inventory, "application_name", "member_of"))
    found.extend(_database_hosts(connection, inventory))
    return found


def _folded(name: str) -> str:
    """A header in lower-case words: "sourceServerName" is "source server name"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    return " ".join(re.sub(r"[^a-z0-9]+", " ", spaced).split())


def _application_rows(
    connection: duckdb.DuckDBPyConnection, inventory: Inventory
) -> Iterator[Mention]:
    columns = {_folded(name): name for name in source_columns(connection, inventory.records)}
    if not all(name in columns for name in KONVEYOR):
        return
    kind, application, other, direction = (identifier(columns[name]) for name in KONVEYOR)
    rows = connection.execute(
        f"""
        SELECT trim({application}), trim({other}), lower(trim({direction})), {ROW}
        FROM read_parquet({literal(inventory.records)})
        WHERE trim({kind}) = '2' AND trim({application}) <> '' AND trim({other}) <> ''
        ORDER BY {ROW}
        """  # noqa: S608 - identifiers and literals are quoted
    ).fetchall()
    for name, dependency, towards, row in rows:
        ends = (dependency, name) if towards == "northbound" else (name, dependency)
        yield Mention(
            # without a direction only that they have to do with each other is known
            "depends_on" if towards in ("northbound", "southbound") else "connects_to",
            "application_dependency_row",
            from_text=ends[0],
            to_text=ends[1],
            column=columns["dependency"],
            rows=(row,),
        )


def _list_field(
    connection: duckdb.DuckDBPyConnection, inventory: Inventory, field: str, kind: Kind
) -> Iterator[Mention]:
    """Fields that hold several names: what an asset depends on, its applications."""
    if field not in inventory.fields:
        return
    evidence = "dependency_column" if field == "depends_on" else "application_column"
    rows = connection.execute(
        f"""
        SELECT identity, name, trim(unnest({identifier(field)})) AS other, rows
        FROM read_parquet({literal(inventory.assets)})
        WHERE {identifier(field)} IS NOT NULL ORDER BY identity, other
        """  # noqa: S608 - identifiers and literals are quoted
    ).fetchall()
    for identity, name, other, numbers in rows:
        if other:
            yield Mention(
                kind,
                evidence,
                from_identity=identity,
                from_text=name or "",
                to_text=other,
                column=inventory.columns(field),
                rows=tuple(numbers[:MOST_EVIDENCE]),
                times=len(numbers),
            )


def _hosting(
    connection: duckdb.DuckDBPyConnection, inventory: Inventory, field: str, kind: Kind
) -> Iterator[Mention]:
    if field not in inventory.fields:
        return
    rows = connection.execute(
        f"""
        SELECT identity, trim({identifier(field)}), rows
        FROM read_parquet({literal(inventory.assets)})
        WHERE trim({identifier(field)}) <> '' ORDER BY identity
        """  # noqa: S608 - identifiers and literals are quoted
    ).fetchall()
    for identity, other, numbers in rows:
        yield Mention(
            kind,
            "hosting_column",
            from_identity=identity,
            to_text=other,
            column=inventory.columns(field),
            rows=tuple(numbers[:MOST_EVIDENCE]),
            times=len(numbers),
        )


def _database_hosts(
    connection: duckdb.DuckDBPyConnection, inventory: Inventory
) -> Iterator[Mention]:
    """A database that names a host runs on it."""
    for field in ("hostname", "fqdn"):
        if field not in inventory.fields:
            continue
        rows = connection.execute(
            f"""
            SELECT identity, trim({identifier(field)}), rows
            FROM read_parquet({literal(inventory.assets)})
            WHERE asset_type = 'database' AND trim({identifier(field)}) <> '' ORDER BY identity
            """  # noqa: S608 - identifiers and literals are quoted
        ).fetchall()
        for identity, host, numbers in rows:
            yield Mention(
                "runs_on",
                "database_host",
                from_identity=identity,
                to_text=host,
                column=inventory.columns(field),
                rows=tuple(numbers[:MOST_EVIDENCE]),
                times=len(numbers),
            )


@dataclass(frozen=True)
class _Table:
    """The columns of a connection table; of each end names come before addresses."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    port: str | None
    protocol: str | None


def _connection_table(columns: Sequence[str]) -> _Table | None:
    def fitting(pattern: re.Pattern[str]) -> tuple[str, ...]:
        found = [name for name in columns if pattern.match(_folded(name))]
        named = [name for name in found if re.search(r"name|host|server|machine", _folded(name))]
        return (*named, *(name for name in found if name not in named))

    ports, protocols = fitting(_PORT), fitting(_PROTOCOL)
    sources, targets = fitting(_SOURCE), fitting(_TARGET)
    if ports:
        sources, targets = sources or fitting(_VAGUE_SOURCE), targets or fitting(_VAGUE_TARGET)
    if not sources or not targets:
        return None
    return _Table(sources, targets, next(iter(ports), None), next(iter(protocols), None))


def _texts(columns: Sequence[str]) -> str:
    """SQL: what the columns say, without the empty ones."""
    listed = ", ".join(values.string(identifier(column)) for column in columns)
    return f"list_filter([{listed}], lambda text: text IS NOT NULL)"


def _connections(connection: duckdb.DuckDBPyConnection, inventory: Inventory) -> Iterator[Mention]:
    table = _connection_table(source_columns(connection, inventory.records))
    if table is None:
        return
    port = f"try_cast(trim({identifier(table.port)}) AS INTEGER)" if table.port else "NULL"
    protocol = f"lower(trim({identifier(table.protocol)}))" if table.protocol else "NULL"
    rows = connection.execute(
        f"""
        SELECT * FROM (
            SELECT {_texts(table.sources)} AS sources, {_texts(table.targets)} AS targets,
                {port} AS port, nullif({protocol}, '') AS protocol,
                list({ROW} ORDER BY {ROW})[:{MOST_EVIDENCE}], count(*)
            FROM read_parquet({literal(inventory.records)}) GROUP BY ALL
        ) WHERE len(sources) > 0 AND len(targets) > 0 ORDER BY ALL
        """  # noqa: S608 - identifiers and literals are quoted
    ).fetchall()
    for sources, targets, number, spoken, numbers, times in rows:
        _, told = without_port(targets[0])
        yield Mention(
            "connects_to",
            "connection_table",
            from_text=without_port(sources[0])[0],
            from_instead=tuple(sources[1:]),
            to_text=without_port(targets[0])[0],
            to_instead=tuple(targets[1:]),
            column=", ".join((*table.sources, *table.targets)),
            rows=tuple(numbers),
            times=times,
            port=told if number is None else number,
            protocol=spoken,
        )


_WITH_PORT = re.compile(r"^(?P<host>[^:\s]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})$")


def without_port(text: str) -> tuple[str, int | None]:
    """`10.0.0.2:443` as address and port; anything else as it is."""
    found = _WITH_PORT.match(text)
    if found is None:
        return text, None
    return found["host"].strip("[]"), int(found["port"])
