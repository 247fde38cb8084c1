"""Reads what the source says about dependencies, one extractor for each kind of evidence.

All rows are read by SQL; only what was found comes into Python, grouped, with the rows that say it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
from discovery_core.wire.results import FieldMapping

from discovery_crews.readers.connections import connection_table, relation_of
from discovery_crews.tables.engine import ROW, all_columns, identifier, literal, source_columns

from .edges import KINDS, MOST_EVIDENCE, OTHER_FLOW, Kind, Mention

# Columns of an application import sheet with dependency rows (Konveyor, tackle2-ui's
# template_application_import.csv): record type 2 is a dependency of "Application Name".
# Southbound: the application depends on the other; northbound: the other depends on it.
KONVEYOR = ("record type 1", "application name", "dependency", "dependency direction")


@dataclass(frozen=True)
class Inventory:
    """Where an inventory lies and which fields it has columns for.

    `connections` is what tables of connections beside the main one say, where there were any;
    `others` what other flows of the engagement have found.
    """

    assets: Path
    records: Path
    fields: frozenset[str]
    mappings: tuple[FieldMapping, ...]
    connections: Path | None = None
    others: tuple[Path, ...] = ()

    @classmethod
    def of(
        cls,
        connection: duckdb.DuckDBPyConnection,
        assets: Path,
        records: Path,
        mappings: Sequence[FieldMapping],
        connections: Path | None = None,
        others: Sequence[Path] = (),
    ) -> Inventory:
        """Looks at the columns."""
        fields = frozenset(all_columns(connection, assets))
        return cls(assets, records, fields, tuple(mappings), connections, tuple(others))

    def columns(self, field: str, rows: Sequence[int]) -> str:
        """The source columns of a field, for people; the field where other flows say so."""
        named = ", ".join(entry.column for entry in self.mappings if entry.target == field)
        return named if rows and named else f"{field} (another flow of the engagement)"


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
    found.extend(_of_others(connection, inventory))
    return found


# what only the flow has whose source says so; other edges follow from the merged inventory
_OWN_EVIDENCE = ("connection_table", "relation_table", "application_dependency_row")


def _of_others(connection: duckdb.DuckDBPyConnection, inventory: Inventory) -> Iterator[Mention]:
    """What sources of other flows say, to be resolved again in the inventory as it is now."""
    if not inventory.others:
        return
    files = ", ".join(literal(path) for path in inventory.others)
    own = " OR ".join(f"contains(evidence, {literal(json.dumps(kind))})" for kind in _OWN_EVIDENCE)
    rows = connection.execute(
        f"""
        SELECT from_identity, from_name, to_identity, to_text, kind, protocol, port,
            max(confidence), sum(observations)::BIGINT,
            any_value(from_json(evidence::JSON -> '$[0].also', '[["VARCHAR"]]'))
        FROM read_parquet([{files}]) WHERE {own} GROUP BY ALL ORDER BY ALL
        """  # noqa: S608 - literals are quoted
    ).fetchall()
    for identity, name, other, text, kind, protocol, port, sure, times, also in rows:
        of_source, of_target = also or ((), ())
        yield Mention(
            kind,
            OTHER_FLOW,
            from_text=name,
            from_instead=(identity, *of_source),
            to_text=text,
            to_instead=(*((other,) if other else ()), *of_target),
            column="",
            rows=(),
            times=times,
            port=port,
            protocol=protocol,
            sure=sure,
        )


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
        SELECT identity, name, trim(unnest({identifier(field)})) AS other, coalesce(rows, [])
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
                column=inventory.columns(field, numbers),
                rows=tuple(numbers[:MOST_EVIDENCE]),
                times=max(1, len(numbers)),
            )


def _hosting(
    connection: duckdb.DuckDBPyConnection, inventory: Inventory, field: str, kind: Kind
) -> Iterator[Mention]:
    if field not in inventory.fields:
        return
    rows = connection.execute(
        f"""
        SELECT identity, trim({identifier(field)}), coalesce(rows, [])
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
            column=inventory.columns(field, numbers),
            rows=tuple(numbers[:MOST_EVIDENCE]),
            times=max(1, len(numbers)),
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
            SELECT identity, trim({identifier(field)}), coalesce(rows, [])
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
                column=inventory.columns(field, numbers),
                rows=tuple(numbers[:MOST_EVIDENCE]),
                times=max(1, len(numbers)),
            )


def _connections(connection: duckdb.DuckDBPyConnection, inventory: Inventory) -> Iterator[Mention]:
    """What tables of connections say: the source itself, and those that stood beside it."""
    table = connection_table(source_columns(connection, inventory.records))
    if table is not None:
        records = f"read_parquet({literal(inventory.records)})"
        yield from _observed(connection, f"({table.query(records)})")
    if inventory.connections is not None:
        yield from _observed(connection, f"read_parquet({literal(inventory.connections)})")


def _observed(connection: duckdb.DuckDBPyConnection, table: str) -> Iterator[Mention]:
    rows = connection.execute(
        "SELECT sources, targets, port, source_port, either_way, protocol, relation, rows, times, "  # noqa: S608 - quoted
        f"place, columns FROM {table} ORDER BY ALL"
    ).fetchall()
    for sources, targets, *ports, mutual, spoken, relation, numbers, times, place, names in rows:
        port, own = (
            number if number is not None else _port_of(texts)
            for number, texts in zip(ports, (targets, sources), strict=True)
        )
        said, reverse = relation_of(relation) if relation else ("connects_to", False)
        if mutual and port is not None and own is not None and own < _PASSING <= port:
            # the other has opened it, to this machine's service
            port, reverse = own, True
        ends = (targets, sources) if reverse else (sources, targets)
        yield Mention(
            next(kind for kind in KINDS if kind == said),
            "relation_table" if relation else "connection_table",
            from_text=without_port(ends[0][0])[0],
            from_instead=tuple(ends[0][1:]),
            to_text=without_port(ends[1][0])[0],
            to_instead=tuple(ends[1][1:]),
            column=names,
            rows=tuple(numbers),
            times=times,
            port=port,
            protocol=spoken,
            place=place,
        )


# ports from here on are given to whoever opens a connection (Linux; RFC 6335 says from 49152)
_PASSING = 32768


def _port_of(texts: Sequence[str]) -> int | None:
    return next((port for text in texts if (port := without_port(text)[1]) is not None), None)


_WITH_PORT = re.compile(r"^(?P<host>[^:\s]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})$")


def without_port(text: str) -> tuple[str, int | None]:
    """`10.0.0.2:443` as address and port; anything else as it is."""
    found = _WITH_PORT.match(text)
    if found is None:
        return text, None
    return found["host"].strip("[]"), int(found["port"])
