"""Technical debt of an asset: points for what will cost, and gaps where nothing is known.

The score is over what is known: points of all points that could be told. `coverage` says how much
that is, since a score over one fact is worth little.
"""

from __future__ import annotations

from dataclasses import dataclass

from .facts import Facts


@dataclass(frozen=True)
class Part:
    """One part: `points` where `condition` (SQL) holds, none where not; NULL is not known."""

    name: str
    points: int
    reason: str
    condition: str


def parts(facts: Facts, today: str) -> list[Part]:
    """The parts, over the tables `facts` (f) and the inventory (a)."""
    column = facts.column
    cpu, peak = column("cpu_utilization_avg"), column("cpu_utilization_max")
    critical = f"lower({column('business_criticality', 'NULL::VARCHAR')})"
    backup = facts.text("backup_policy")
    created = f"try_cast(left({column('created_date', 'NULL::VARCHAR')}, 10) AS DATE)"
    warranty = f"try_cast(left({column('warranty_end', 'NULL::VARCHAR')}, 10) AS DATE)"
    return [
        Part("operating_system", 30, "the operating system is out of support",
             "nullif(f.os_state, 'unknown') = 'end_of_life'"),
        Part("operating_system_paid", 15, "the operating system needs extra paid support",
             "nullif(f.os_state, 'unknown') = 'paid_support'"),
        Part("operating_system_soon", 10, "support of the operating system ends within a year",
             "nullif(f.os_state, 'unknown') = 'ending'"),
        Part("database", 25, "the database is out of support",
             "nullif(f.db_state, 'unknown') = 'end_of_life'"),
        Part("platform", 15, "the platform does not run on the usual clouds",
             "CASE WHEN f.os IS NOT NULL THEN NOT f.os_native END"),
        Part("warranty", 10, "the warranty is over", f"{warranty} < DATE '{today}'"),
        Part("age", 5, "it is older than seven years",
             f"{created} < DATE '{today}' - INTERVAL 7 YEAR"),
        Part("overloaded", 5, "its processors are at their limit", f"{peak} > 95"),
        Part("idle", 5, "its processors idle", f"{cpu} < 3"),
        Part("backup", 10, "it has no backup",
             f"trim({backup}) IN ('no', 'none', 'false', 'nein', 'keine', 'non', 'never', '0')"),
        Part("recovery", 5, "it is critical and has no recovery class",
             f"CASE WHEN {critical} IS NOT NULL THEN ({critical} LIKE '%critical%' OR {critical} "
             f"IN ('high', 'hoch', 'haute', 'alta', '1')) AND {column('dr_class')} IS NULL END"),
        Part("owner", 5, "nobody owns it",
             f"{column('owner')} IS NULL" if "owner" in facts.fields else "NULL"),
        Part("entangled", 10, "ten or more others need it",
             "CASE WHEN f.dependencies_known THEN f.dependents >= 10 END"),
    ]  # fmt: skip


def score_sql(found: list[Part]) -> tuple[str, str, str]:
    """SQL: score 0 to 100 (NULL where nothing is known), coverage 0 to 1, parts as JSON."""
    known = " + ".join(
        f"CASE WHEN ({p.condition}) IS NULL THEN 0 ELSE {p.points} END" for p in found
    )
    points = " + ".join(f"CASE WHEN ({p.condition}) THEN {p.points} ELSE 0 END" for p in found)
    total = sum(part.points for part in found)
    told = ", ".join(
        f"CASE WHEN ({p.condition}) THEN '{p.name}: {p.points} ({p.reason})' END" for p in found
    )
    return (
        f"round(100.0 * ({points}) / nullif({known}, 0), 1)",
        f"round(({known}) / {total}.0, 3)",
        f"list_filter([{told}], lambda part: part IS NOT NULL)",
    )
