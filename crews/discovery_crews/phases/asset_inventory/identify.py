"""Gives every row its class and its identity, with the rule and how sure the identity is.

Rows of one identity are one asset. A row without the strong key joins the asset that its weaker key
points to where that is only one; where it points to several, nobody can know, and it stays apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb

from discovery_crews.tables.engine import ROW, identifier, literal

from .classify import (
    asset_type,
    available_keys,
    class_rule_of,
    key_value,
    short_name,
    usable_fields,
)
from .plan import NAME_AND_IP, FieldSource, InventoryPlan

_NAMES = ("asset_name", "hostname", "fqdn", "application_name")
# How surely rows with the same key are the same asset.
CONFIDENCE = {
    "serial_number": 0.95,
    "asset_id": 0.95,
    "fqdn": 0.9,
    "hostname": 0.8,
    NAME_AND_IP: 0.7,
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

    `class_rule` is the rule of the closed list that gave the class, or `default`; `keys` are all
    keys of the row as `kind:value`, by which other files may know the asset.
    """
    fields = {source.role: source.is_list for source in sources}
    keys = [name for name in available_keys(fields) if name in plan.identity_keys]
    keyed = "".join(f", {key_value(name, fields)} AS k{level}" for level, name in enumerate(keys))
    combined = key_value(NAME_AND_IP, fields) if NAME_AND_IP in available_keys(fields) else "NULL"
    short = short_name(fields) if {"asset_name", "hostname", "fqdn"} & set(keys) else "NULL"
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
            {rule} AS class_rule, {combined} AS name_and_ip, {short} AS short_name {keyed}
        FROM read_parquet({literal(typed)})
        """  # noqa: S608 - identifiers and literals are quoted
    )
    connection.execute(
        f"CREATE TEMP TABLE identified AS SELECT *, {_own_identity(keys)}, {_all_keys(keys)} "  # noqa: S608 - quoted
        "AS keys FROM keyed"
    )
    connection.execute("DROP TABLE keyed")
    _link(connection, keys)


_NAMED = "asset_type IN ('application', 'database')"


def _all_keys(keys: list[str]) -> str:
    """A list of what the row is known by; names without their domain are of the kind `name`."""
    said = {name: f"k{level}" for level, name in enumerate(keys)}
    said |= {NAME_AND_IP: "name_and_ip", "name": "short_name"}
    listed = ", ".join(
        f"{literal(name + ':')} || {column}"
        for name, column in said.items()
        if name not in ("hostname", "asset_name")
    )
    return (
        f"CASE WHEN {_NAMED} THEN []::VARCHAR[] "
        f"ELSE list_filter([{listed}]::VARCHAR[], lambda k: k IS NOT NULL) END"
    )


def _own_identity(keys: list[str]) -> str:
    """Columns `identity`, `level` and `identity_confidence`: the strongest key of the row itself.

    Applications and databases are told apart by name first: several of them share one host.
    """
    cases = " ".join(
        f"WHEN k{level} IS NOT NULL THEN {literal(name + ':')} || k{level}"
        for level, name in enumerate(keys)
    )
    levels = " ".join(f"WHEN k{level} IS NOT NULL THEN {level}" for level, _ in enumerate(keys))
    sure = " ".join(
        f"WHEN k{level} IS NOT NULL THEN {CONFIDENCE[name]}" for level, name in enumerate(keys)
    )
    by_name = f"WHEN {_NAMED} AND trim(name) <> '' THEN"
    return (
        f"CASE {by_name} asset_type || ':' || lower(left(trim(name), 400)) {cases} "
        "ELSE 'row:' || row END AS identity, "
        f"CASE WHEN {_NAMED} THEN -1 {levels} ELSE -1 END AS level, "
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
