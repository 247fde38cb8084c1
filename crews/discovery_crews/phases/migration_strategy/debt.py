"""Technical debt of an asset: points for what will cost, and gaps where nothing is known.

The score is over what is known: points of all points that could be told. `coverage` says how much
that is, since a score over one fact is worth little. A missing fact is a gap and costs no points.
"""

from __future__ import annotations

from dataclasses import dataclass

from discovery_crews.tables.meanings import meaning

from .facts import Facts


@dataclass(frozen=True)
class Part:
    """One part: SQL that gives up to `most` points, 0 for no debt and NULL where nothing is known.

    `reason` is SQL for the words that go with points.
    """

    name: str
    most: int
    points: str
    reason: str


def _when(condition: str, points: int) -> str:
    """`points` where the condition holds, 0 where not, NULL where it cannot be told."""
    return f"CASE ({condition}) WHEN true THEN {points} WHEN false THEN 0 END"


def parts(facts: Facts, today: str) -> list[Part]:
    """The parts, over the tables `facts` (f) and the inventory (a)."""
    column = facts.column
    average, peak = column("cpu_utilization_avg"), column("cpu_utilization_max")
    level = meaning(f"({column('business_criticality', 'NULL')})::VARCHAR", "level")
    backup = facts.text("backup_policy")
    created = f"try_cast(left({column('created_date', 'NULL::VARCHAR')}, 10) AS DATE)"
    warranty = f"try_cast(left({column('warranty_end', 'NULL::VARCHAR')}, 10) AS DATE)"
    is_critical = f"{level} IN ('critical', 'high')"
    return [
        Part("operating_system", 30,
             "CASE f.os_state WHEN 'end_of_life' THEN 30 WHEN 'paid_support' THEN 15 "
             "WHEN 'ending' THEN 10 WHEN 'supported' THEN 0 END",
             "CASE f.os_state WHEN 'end_of_life' THEN 'the operating system is out of support' "
             "WHEN 'paid_support' THEN 'the operating system needs extra paid support' "
             "ELSE 'support of the operating system ends within a year' END"),
        Part("database", 25,
             "CASE f.db_state WHEN 'end_of_life' THEN 25 WHEN 'paid_support' THEN 15 "
             "WHEN 'ending' THEN 10 WHEN 'supported' THEN 0 END",
             "CASE f.db_state WHEN 'end_of_life' THEN 'the database is out of support' "
             "WHEN 'paid_support' THEN 'the database needs extra paid support' "
             "ELSE 'support of the database ends within a year' END"),
        Part("platform", 15, _when("CASE WHEN f.os IS NOT NULL THEN NOT f.os_native END", 15),
             "'the platform does not run on the usual clouds'"),
        Part("warranty", 10, _when(f"{warranty} < DATE '{today}'", 10), "'the warranty is over'"),
        Part("age", 5, _when(f"{created} < DATE '{today}' - INTERVAL 7 YEAR", 5),
             "'it is older than seven years'"),
        Part("utilisation", 5, _when(f"coalesce({peak} > 95, {average} < 3) OR {average} < 3", 5),
             f"CASE WHEN {peak} > 95 THEN 'its processors are at their limit' "
             "ELSE 'its processors idle' END"),
        Part("backup", 10,
             _when(f"trim({backup}) IN ('no', 'none', 'false', 'nein', 'keine', 'non', 'never', "
                   "'nessuno', 'geen', 'ninguna', 'nenhum', '0')", 10),
             "'it has no backup'"),
        Part("recovery", 5, _when(f"{is_critical} AND {column('dr_class')} IS NULL", 5),
             "'it is critical and has no recovery class'"),
        Part("entangled", 10,
             _when("CASE WHEN f.dependencies_known THEN f.dependents >= 10 END", 10),
             "'ten or more others need it'"),
    ]  # fmt: skip


def score_sql(found: list[Part]) -> tuple[str, str, str]:
    """SQL: score 0 to 100 (NULL where nothing is known), coverage 0 to 1, parts as a list."""
    known = " + ".join(f"CASE WHEN ({p.points}) IS NULL THEN 0 ELSE {p.most} END" for p in found)
    points = " + ".join(f"coalesce({p.points}, 0)" for p in found)
    total = sum(part.most for part in found)
    told = ", ".join(
        f"CASE WHEN ({p.points}) > 0 THEN '{p.name}: ' || ({p.points}) || ' (' || {p.reason} "
        "|| ')' END"
        for p in found
    )
    return (
        f"round(100.0 * ({points}) / nullif({known}, 0), 1)",
        f"round(({known}) / {total}.0, 3)",
        f"list_filter([{told}], lambda part: part IS NOT NULL)",
    )
