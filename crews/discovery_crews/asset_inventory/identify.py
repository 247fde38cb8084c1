"""Gives every row its class and its identity, with the rule and how sure the identity is.

Rows of one identity are one asset. A row without the strong key joins the asset that its weaker key
points to where that is only one; where it points to several, nobody can know, and it stays apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb

from discovery_crews.tables.engine import ROW, identifier, literal

from .classify import asset_type, available_keys, class_rule_of, key_value, usable_fields
from .plan import FieldSource, InventoryPlan

_NAMES = ("asset_name", "hostname", "fqdn", "application_name")
# How surely rows with the same key are the same asset.
CONFIDENCE = {
    "serial_number": 0.95,
    "asset_id": 0.95,
    "fqdn": 0.9,
    "hostname": 0.8,
    "asset_name": 0.6,
    "ip_address": 0.5,
}
_BY_NAME = 0.8
_NO_KEY = 0.3
_LINKED = 0.8


def identify(
    connection: duckdb.DuckDBPyConnection,
    typed: Path,
    sources: Sequence[FieldSource],
    plan: InventoryPlan,
) -> None:
    """Make the table `identified`: row, name, asset_type, class_rule, identity and its confidence.

    `class_rule` is the rule of the closed list that gave the class, or `default`.
    """
    fields = {source.role: source.is_list for source in sources}
    keys = [name for name in available_keys(fields) if name in plan.identity_keys]
    keyed = "".join(
        f", {key_value(name, is_list=fields[name])} AS k{level}" for level, name in enumerate(keys)
    )
    names = [
        f"{identifier(name)}[1]" if fields[name] else identifier(name)
        for name in _NAMES
        if name in fields
    ]
    name = f"coalesce({', '.join(names)})" if names else "NULL::VARCHAR"
    usable = usable_fields(fields)
    kind = asset_type(plan.class_rules, plan.default_type, usable)
    rule = class_rule_of(plan.class_rules, usable)
    connection.execute(
        f"""
        CREATE TEMP TABLE keyed AS
        SELECT {ROW} AS row, left({name}, 1000) AS name, {kind} AS asset_type,
            {rule} AS class_rule {keyed}
        FROM read_parquet({literal(typed)})
        """  # noqa: S608 - identifiers and literals are quoted
    )
    connection.execute(
        f"CREATE TEMP TABLE identified AS SELECT *, {_own_identity(keys)} FROM keyed"  # noqa: S608 - quoted
    )
    connection.execute("DROP TABLE keyed")
    _link(connection, keys)


def _own_identity(keys: list[str]) -> str:
    """Columns `identity`, `level` and `identity_confidence`: the strongest key of the row itself.

    Applications and databases are told apart by name first: several of them share one host.
    """
    named = "asset_type IN ('application', 'database')"
    cases = " ".join(
        f"WHEN k{level} IS NOT NULL THEN {literal(name + ':')} || k{level}"
        for level, name in enumerate(keys)
    )
    levels = " ".join(f"WHEN k{level} IS NOT NULL THEN {level}" for level, _ in enumerate(keys))
    sure = " ".join(
        f"WHEN k{level} IS NOT NULL THEN {CONFIDENCE[name]}" for level, name in enumerate(keys)
    )
    by_name = f"WHEN {named} AND trim(name) <> '' THEN"
    return (
        f"CASE {by_name} asset_type || ':' || lower(left(trim(name), 400)) {cases} "
        "ELSE 'row:' || row END AS identity, "
        f"CASE WHEN {named} THEN -1 {levels} ELSE -1 END AS level, "
        f"CAST(CASE {by_name} {_BY_NAME} {sure} ELSE {_NO_KEY} END AS DOUBLE) "
        "AS identity_confidence"
    )


def _link(connection: duckdb.DuckDBPyConnection, keys: list[str]) -> None:
    for level in range(1, len(keys)):
        connection.execute(
            f"""
            UPDATE identified SET identity = strong.identity,
                identity_confidence = identified.identity_confidence * {_LINKED}
            FROM (
                SELECT k{level} AS k, min(identity) AS identity FROM identified
                WHERE level >= 0 AND level < {level} AND k{level} IS NOT NULL
                GROUP BY k HAVING count(DISTINCT identity) = 1
            ) AS strong
            WHERE identified.level = {level} AND identified.k{level} = strong.k
            """  # noqa: S608 - numbers only
        )
