"""Groups assets by their facts, applies what was chosen for the groups, and writes it down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from discovery_crews.tables.engine import literal

from .debt import parts, score_sql
from .facts import Facts
from .gaps import gaps_sql
from .judgement import AssetGroup, GroupChoice
from .readiness import asked_sql, unknown_sql
from .rules import propose

_FACTS = (
    "asset_type", "stated", "set_apart", "powered_on", "retired", "service_instead",
    "hardware_bound", "depended_on", "dependencies_known", "os_product", "os", "os_state",
    "os_ends", "os_native", "db_product", "db", "db_state", "db_ends", "db_managed",
)  # fmt: skip
_EXAMPLES = 3
_CHOSEN_BY_CREW = 0.9


@dataclass(frozen=True)
class StrategyCounts:
    """What was written."""

    assets: int
    by_strategy: dict[str, int]
    end_of_life: int
    mean_debt: float | None
    gaps: dict[str, int]
    readiness: float | None
    unknown_attributes: dict[str, int]


def asset_groups(connection: duckdb.DuckDBPyConnection) -> list[AssetGroup]:
    """Groups of the same facts, the largest first; makes the table `grouped`."""
    columns = ", ".join(_FACTS)
    connection.execute(
        f"""
        CREATE TEMP TABLE grouped AS
        SELECT *, dense_rank() OVER (ORDER BY {columns}) AS group_id
        FROM (SELECT *, dependents > 0 AS depended_on FROM facts)
        """  # noqa: S608 - names of ours
    )
    rows = connection.execute(
        f"""
        SELECT group_id, count(*) AS number, list(name ORDER BY identity)[:{_EXAMPLES}],
            {", ".join(f"any_value({name}) AS {name}" for name in _FACTS)}
        FROM grouped GROUP BY group_id ORDER BY number DESC, group_id
        """  # noqa: S608 - names of ours
    ).fetchall()
    groups: list[AssetGroup] = []
    for position, (key, number, names, *values) in enumerate(rows, start=1):
        facts: Mapping[str, Any] = {"group_id": key, **dict(zip(_FACTS, values, strict=True))}
        examples = tuple(str(name)[:60] for name in names or () if name)
        groups.append(AssetGroup(f"g{position}", number, facts, examples, propose(facts)))
    return groups


def apply_choices(
    connection: duckdb.DuckDBPyConnection,
    groups: Sequence[AssetGroup],
    choices: Sequence[GroupChoice],
) -> None:
    """Table `chosen`: the strategy of each group, with how sure it is and why."""
    changed = {choice.group: choice for choice in choices}
    connection.execute(
        "CREATE TEMP TABLE chosen (group_id BIGINT, strategy VARCHAR, confidence DOUBLE, "
        "reason VARCHAR, rule VARCHAR)"
    )
    rows = []
    for group in groups:
        proposal, choice = group.proposal, changed.get(group.id)
        strategy, sure = proposal.strategy, proposal.confidence
        reason, rule = proposal.reason, proposal.rule
        if choice is not None and choice.strategy != proposal.strategy:
            strategy, sure = choice.strategy, round(sure * _CHOSEN_BY_CREW, 3)
            reason = f"{reason} The crew chose otherwise: {choice.reason.strip()}"
            rule = "crew"
        rows.append((group.facts["group_id"], strategy, sure, reason, rule))
    if rows:
        connection.executemany("INSERT INTO chosen VALUES (?, ?, ?, ?, ?)", rows)


def write_strategies(
    connection: duckdb.DuckDBPyConnection, facts: Facts, assets: Path, today: str, target: Path
) -> StrategyCounts:
    """Write `strategies` (Parquet, one row per asset), and count.

    Columns: identity, name, asset_type, strategy, confidence, rule, reason, debt_score (0 to 100,
    null where nothing is known), debt_coverage (0 to 1), debt_parts, gaps, unknown_attributes,
    readiness (known share of the attributes asked of such an asset, 0 to 1), os, os_state, os_ends,
    db, db_state, db_ends, dependents.
    """
    score, coverage, told = score_sql(parts(facts, today))
    connection.execute(
        f"""
        CREATE TEMP TABLE strategies AS
        SELECT a.identity, a.name, a.asset_type, c.strategy, c.confidence, c.rule, c.reason,
            CASE WHEN c.strategy <> 'not_applicable' THEN {score} END AS debt_score,
            CASE WHEN c.strategy <> 'not_applicable' THEN {coverage} END AS debt_coverage,
            {told} AS debt_parts, {gaps_sql(facts)} AS gaps,
            {unknown_sql(facts)} AS unknown_attributes,
            round(1 - len(unknown_attributes) / nullif({asked_sql()}, 0), 3) AS readiness,
            f.os, f.os_state, f.os_ends, f.db, f.db_state, f.db_ends, f.dependents
        FROM read_parquet({literal(assets)}) AS a
        JOIN grouped AS f USING (identity) JOIN chosen AS c USING (group_id)
        """  # noqa: S608 - identifiers and literals are quoted
    )
    connection.execute(
        f"COPY (SELECT * FROM strategies ORDER BY identity) TO {literal(target)} "  # noqa: S608 - quoted
        "(FORMAT parquet, COMPRESSION zstd)"
    )
    return _counts(connection)


def _counts(connection: duckdb.DuckDBPyConnection) -> StrategyCounts:
    row = connection.execute(
        "SELECT count(*), count(*) FILTER (os_state = 'end_of_life' OR db_state = 'end_of_life'), "
        "round(avg(debt_score), 1), round(avg(readiness), 3) FROM strategies"
    ).fetchone()
    if row is None:
        raise AssertionError("an aggregate without GROUP BY gives one row")
    by_strategy = connection.execute(
        "SELECT strategy, count(*) FROM strategies GROUP BY strategy ORDER BY strategy"
    ).fetchall()
    gaps, unknown = (
        connection.execute(
            f"SELECT gap, count(*) AS n FROM (SELECT unnest({column}) AS gap FROM strategies) "  # noqa: S608 - a name of ours
            "GROUP BY gap ORDER BY n DESC, gap"
        ).fetchall()
        for column in ("gaps", "unknown_attributes")
    )
    return StrategyCounts(
        assets=int(row[0]),
        end_of_life=int(row[1]),
        mean_debt=None if row[2] is None else float(row[2]),
        by_strategy={str(name): int(number) for name, number in by_strategy},
        gaps={str(name): int(number) for name, number in gaps},
        readiness=None if row[3] is None else float(row[3]),
        unknown_attributes={str(name): int(number) for name, number in unknown},
    )
