"""From approved mappings to inventory records: convert, classify, identify, merge, write.

Two passes by SQL: the first turns texts into typed values and keeps where each came from, the
second gives every row its class and identity and writes one JSON object a row. Nothing is
dropped: a value that cannot be converted stays in `originals` with a problem, a column without
a target stays in `unmapped`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import duckdb

from discovery_crews.tables import addresses, values
from discovery_crews.tables.engine import (
    ORIGINAL_PREFIX,
    ROW,
    all_columns,
    connect,
    identifier,
    literal,
    source_columns,
)

from .conversion import conversion
from .identify import Copies, identify
from .machines import VCENTER, VM_ID
from .merge import write_assets
from .plan import FieldSource, InventoryPlan, SourceColumn, with_units
from .problems import no_address, no_identifier, unconverted
from .witnesses import BELIEVED, in_order, is_weighed, weigh
from .worthless import (
    DAMAGED,
    IDENTIFIERS,
    PLACEHOLDER,
    NoIdentifier,
    column_of_kind,
    is_no_identifier,
    lost_digits,
)

Progress = Callable[[int | None, int | None, str], None]
_AT_ONCE = 32


@dataclass
class InventoryCounts:
    """What was made: rows, distinct assets, rows that repeat an asset, and by class."""

    records: int = 0
    assets: int = 0
    by_type: dict[str, int] = field(default_factory=dict)
    conversion_problems: int = 0
    without_identity: int = 0
    problems_by_field: dict[str, int] = field(default_factory=dict)
    no_identifiers: list[NoIdentifier] = field(default_factory=list)
    copies: list[Copies] = field(default_factory=list)
    disagreements: list[str] = field(default_factory=list)

    @property
    def duplicates(self) -> int:
        """Rows beyond the first of their asset."""
        return self.records - self.assets


@dataclass(frozen=True)
class InventoryFiles:
    """`records`: NDJSON of InventoryRecord; `assets`: see `write_assets`; `problems`: CSV."""

    records: Path
    assets: Path
    problems: Path


@dataclass(frozen=True)
class _Columns:
    """The columns of the cleansed table: `source` ones, and those with kept originals."""

    source: list[str]
    changed: frozenset[str]

    def original(self, column: str) -> str:
        name = ORIGINAL_PREFIX + column
        return identifier(name if column in self.changed else column)


def build_inventory(
    workdir: Path,
    records: Path,
    sources: Sequence[FieldSource],
    plan: InventoryPlan,
    progress: Progress,
) -> tuple[InventoryFiles, InventoryCounts]:
    """Write the inventory below `workdir`: what is made is named by the result."""
    typed = workdir / "typed.parquet"
    made = InventoryFiles(
        records=workdir / "inventory.ndjson",
        assets=workdir / "inventory.parquet",
        problems=workdir / "problems.csv",
    )
    sources = [
        replace(source, columns=in_order(source.columns)) if is_weighed(source) else source
        for source in with_units(sources, plan.units)
    ]
    with connect(workdir) as connection:
        progress(None, None, "converting values")
        weighed = _weigh(connection, records, sources, workdir)
        _convert(connection, records, sources, typed, frozenset(plan.units), weighed.files)
        progress(None, None, "identifying assets")
        copies = identify(connection, typed, sources, plan)
        progress(None, None, "writing records")
        _write(connection, typed, made.records, made.problems)
        write_assets(connection, typed, sources, made.assets)
        counts = _count(connection, typed)
        counts.copies = copies
        counts.no_identifiers += lost_digits(
            connection, records, _others(connection, records, sources)
        )
        counts.disagreements = weighed.told
    typed.unlink()
    return made, counts


def _others(
    connection: duckdb.DuckDBPyConnection, records: Path, sources: Sequence[FieldSource]
) -> list[str]:
    """Columns that no identifier's field is taken from."""
    taken = {e.column for s in sources if s.role in IDENTIFIERS for e in s.columns}
    return [name for name in source_columns(connection, records) if name not in taken]


@dataclass
class _Weighed:
    """Tables that say which column of a field is believed, and what people are told of it."""

    files: list[Path] = field(default_factory=list)
    told: list[str] = field(default_factory=list)


def _weigh(
    connection: duckdb.DuckDBPyConnection,
    records: Path,
    sources: Sequence[FieldSource],
    folder: Path,
) -> _Weighed:
    made = _Weighed()
    for source in filter(is_weighed, sources):
        made.files.append(folder / f"believed-{len(made.files)}.parquet")
        found = weigh(connection, records, source, made.files[-1])
        if found is not None:
            made.told.append(found.told([entry.column for entry in source.columns]))
    return made


def _converted(source: FieldSource, entry: SourceColumn) -> str:
    name = identifier(entry.column)
    target = source.field
    if source.is_list:
        return addresses.addresses(name) if source.is_addresses else values.text_list(name)
    if target.type == "boolean":
        return values.boolean(name)
    if target.type == "date":
        return values.date(name)
    if target.type in ("number", "integer"):
        return entry.amount(target).sql()
    return values.string(name)


def _of_machine(columns: Sequence[str]) -> list[str]:
    """What is known of virtual machines beside the fields: their id, and the vCenter it is of."""
    found = []
    for name, kind in ((VM_ID, "vm_id"), (VCENTER, "vcenter")):
        column = column_of_kind(kind, columns)
        value = f"nullif(lower(trim({identifier(column)})), '')" if column else "NULL::VARCHAR"
        found.append(f"{value} AS {name}")
    return found


def _convert(
    connection: duckdb.DuckDBPyConnection,
    records: Path,
    sources: Sequence[FieldSource],
    typed: Path,
    judged: frozenset[str],
    weighed: Sequence[Path],
) -> None:
    """Write `typed`: every field's value under its role, and the objects that people see."""
    everything = set(all_columns(connection, records))
    columns = _Columns(
        source_columns(connection, records),
        frozenset(
            name.removeprefix(ORIGINAL_PREFIX)
            for name in everything
            if name.startswith(ORIGINAL_PREFIX)
        ),
    )
    parts = _convert_parts(connection, records, sources, typed.parent)
    selected: list[str] = [ROW, *_of_machine(columns.source)]
    value_pairs: list[str] = []
    original_pairs: list[str] = []
    conversion_pairs: list[str] = []
    problems: list[str] = []
    for source in sources:
        name, role = source.field.name, identifier(source.role)
        converted = [identifier(part) for part in parts.names[source.role]]
        if is_weighed(source):
            converted = [
                f"CASE WHEN {BELIEVED} = {n} THEN {part} END" for n, part in enumerate(converted)
            ]
        value = _joined(converted) if source.is_list else f"coalesce({', '.join(converted)})"
        if source.is_addresses and len(converted) > 1:
            value = addresses.ordered(value)
        original = _original(source, converted, columns)
        if source.role in IDENTIFIERS and not source.is_list:
            problems.append(no_identifier(name, original))
            value = f"CASE WHEN NOT {is_no_identifier(value)} THEN {value} END"
        selected.append(f"{value} AS {role}")
        value_pairs.append(f"{literal(name)}, {role}")
        original_pairs.append(f"{literal(name)}, {original}")
        if (how := conversion(source, converted, judged)) is not None:
            conversion_pairs.append(f"{literal(name)}, {how}")
        if source.field.type not in ("string", "list"):
            texts = ", ".join(values.string(identifier(e.column)) for e in source.columns)
            missing = f"{value} IS NULL AND coalesce({texts}) IS NOT NULL"
            problems.append(unconverted(source, missing, original))
        if source.is_addresses:
            problems += [
                no_address(name, entry.column, columns.original(entry.column))
                for entry in source.columns
            ]
    # of several witnesses each is kept, since another one may have been believed
    used = {source.columns[0].column for source in sources if not is_weighed(source)}
    rest = [name for name in columns.source if name not in used]
    unmapped_pairs = [f"{literal(name)}, {columns.original(name)}" for name in rest]
    selected += [
        f"{_object(original_pairs)} AS __originals",
        f"{_object(conversion_pairs)} AS __conversions",
        f"{_object(unmapped_pairs)} AS __unmapped",
        f"list_filter([{', '.join(problems)}]::VARCHAR[], lambda p: p IS NOT NULL) AS __problems",
    ]
    tables = [records, *parts.files, *weighed]
    scans = [f"read_parquet({literal(path)}) AS t{n}" for n, path in enumerate(tables)]
    tail = "".join(f" JOIN {scan} USING ({ROW})" for scan in scans[1:])
    inner = f"SELECT {', '.join(selected)} FROM {scans[0]}{tail}"  # noqa: S608 - quoted
    connection.execute(
        f"COPY (SELECT *, {_object(value_pairs)} AS __values FROM ({inner})) "  # noqa: S608 - quoted
        f"TO {literal(typed)} (FORMAT parquet, ROW_GROUP_SIZE 50000)"
    )
    for path in (*parts.files, *weighed):
        path.unlink()


@dataclass(frozen=True)
class _Parts:
    """Converted source columns: names by role in the order of the columns, and their files."""

    names: dict[str, list[str]]
    files: list[Path]


def _convert_parts(
    connection: duckdb.DuckDBPyConnection,
    records: Path,
    sources: Sequence[FieldSource],
    folder: Path,
) -> _Parts:
    """Convert every mapped column once, some at a time.

    A conversion is a long expression whose steps all hold a block of rows, so that an export of
    hundreds of columns would need more memory for them than for its data.
    """
    names: dict[str, list[str]] = {}
    expressions: list[str] = []
    for source in sources:
        for entry in source.columns:
            part = f"__part.{len(expressions)}"
            names.setdefault(source.role, []).append(part)
            expressions.append(f"{_converted(source, entry)} AS {identifier(part)}")
    files: list[Path] = []
    for start in range(0, len(expressions), _AT_ONCE):
        path = folder / f"parts-{start}.parquet"
        chosen = ", ".join(expressions[start : start + _AT_ONCE])
        connection.execute(
            f"COPY (SELECT {ROW}, {chosen} FROM read_parquet({literal(records)})) "  # noqa: S608 - quoted
            f"TO {literal(path)} (FORMAT parquet, ROW_GROUP_SIZE 50000)"
        )
        files.append(path)
    return _Parts(names, files)


def _joined(parts: list[str]) -> str:
    if len(parts) == 1:
        return parts[0]
    whole = "list_concat(" + ", ".join(f"coalesce({part}, []::VARCHAR[])" for part in parts) + ")"
    unique = f"list_filter({whole}, lambda p, spot: list_position({whole}, p) = spot)"
    return f"CASE WHEN len({whole}) > 0 THEN {unique} END"


def _original(source: FieldSource, parts: list[str], columns: _Columns) -> str:
    """The text that the value came from: that of the first column which gave one."""
    originals = [columns.original(entry.column) for entry in source.columns]
    if len(parts) == 1:
        return originals[0]
    cases = " ".join(
        f"WHEN {part} IS NOT NULL THEN {text}" for part, text in zip(parts, originals, strict=True)
    )
    return f"CASE {cases} ELSE coalesce({', '.join(originals)}) END"


def _object(pairs: list[str]) -> str:
    """A JSON object without its NULL members: missing is not zero and not null."""
    return f"json_merge_patch('{{}}', json_object({', '.join(pairs)}))" if pairs else "'{}'::JSON"


def _write(
    connection: duckdb.DuckDBPyConnection, typed: Path, target: Path, problems: Path
) -> None:
    wide = f"read_parquet({literal(typed)})"
    connection.execute(
        f"""
        COPY (
            SELECT identified.row AS row, identified.identity AS identity,
                identified.name AS name, identified.asset_type AS "assetType",
                identified.class_rule AS "classRule",
                round(identified.identity_confidence, 3) AS "identityConfidence",
                identified.keys AS keys, __values::JSON AS values,
                __originals::JSON AS originals, __conversions::JSON AS conversions,
                __unmapped::JSON AS unmapped,
                CASE WHEN identified.identity LIKE 'row:%'
                    THEN list_append(__problems, 'no value tells this asset apart from others')
                    ELSE __problems END AS problems
            FROM {wide} AS typed JOIN identified ON typed.{ROW} = identified.row
        ) TO {literal(target)} (FORMAT json)
        """  # noqa: S608 - identifiers and literals are quoted
    )
    connection.execute(
        f"""
        COPY (
            SELECT row, field, problem,
                CASE WHEN regexp_matches(value, '^[=+@\\t\\r-]') THEN chr(39) ELSE '' END
                    || value AS value
            FROM (
                SELECT row, parts[1] AS field, parts[2] AS problem,
                    array_to_string(parts[3:], ': ') AS value
                FROM (
                    SELECT {ROW} AS row, string_split(unnest(__problems), ': ') AS parts FROM {wide}
                )
            ) ORDER BY row, field
        ) TO {literal(problems)} (FORMAT csv, HEADER)
        """  # noqa: S608 - identifiers and literals are quoted
    )


def _count(connection: duckdb.DuckDBPyConnection, typed: Path) -> InventoryCounts:
    row = connection.execute(
        "SELECT count(*), count(DISTINCT identity), "
        "count(*) FILTER (WHERE identity LIKE 'row:%') FROM identified"
    ).fetchone()
    if row is None:
        raise AssertionError("an aggregate without GROUP BY gives one row")
    by_type = connection.execute(
        "SELECT asset_type, count(*) FROM (SELECT identity, first(asset_type ORDER BY row) "
        "AS asset_type FROM identified GROUP BY identity) GROUP BY asset_type ORDER BY asset_type"
    ).fetchall()
    split = (
        "SELECT split_part(problem, ': ', 1) AS field, split_part(problem, ': ', 2) AS fault, "  # noqa: S608 - quoted
        "substr(problem, length(field) + length(fault) + 5) AS value, row FROM "
        f"(SELECT unnest(__problems) AS problem, {ROW} AS row FROM read_parquet({literal(typed)}))"
    )
    faults = f"({literal(PLACEHOLDER)}, {literal(DAMAGED)})"
    by_field = connection.execute(
        f"SELECT field, count(*) FROM ({split}) WHERE fault NOT IN {faults} "  # noqa: S608 - quoted
        "GROUP BY field ORDER BY field"
    ).fetchall()
    no_identifiers = connection.execute(
        f"SELECT field, fault, list(DISTINCT value ORDER BY value)[:5], count(*), "  # noqa: S608 - quoted
        f"list(row ORDER BY row)[:20] FROM ({split}) WHERE fault IN {faults} "
        "GROUP BY field, fault ORDER BY fault, field"
    ).fetchall()
    return InventoryCounts(
        records=int(row[0]),
        assets=int(row[1]),
        conversion_problems=sum(int(n) for _, n in by_field),
        without_identity=int(row[2]),
        by_type={str(name): int(n) for name, n in by_type},
        problems_by_field={str(name): int(n) for name, n in by_field},
        no_identifiers=[NoIdentifier(*row) for row in no_identifiers],
    )
