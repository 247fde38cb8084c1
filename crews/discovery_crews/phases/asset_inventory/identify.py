"""Gives every row its class and its identity, with the rule and how sure the identity is.

Rows of one identity are one asset. A shared key joins rows only where nothing else about them
contradicts it (`machines`); those that it does not join get the key and their own name as identity,
which depends on their content alone. A row without the strong key joins the asset that its weaker
key points to where that is only one; where it points to several, nobody can know, and it stays
apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from discovery_crews.tables.engine import ROW, identifier, literal

from .classify import (
    NAME_FIELDS,
    asset_type,
    available_keys,
    class_rule_of,
    key_value,
    short_name,
    short_names,
    usable_fields,
)
from .machines import VCENTER, VM_ID, find_machines
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
# of a key that several machines of the file have
_SHARED = 0.6
# of a name behind a key, so that the identity stays short enough to be asked for
_LONGEST_NAME = 60
# addresses that every machine may have
_ANYWHERE = r"(127\.|169\.254\.|0\.0\.0\.0|fe80:|::1$).*"
_NAMED = "asset_type IN ('application', 'database')"
# facts among the keys by which other files compare machines, but do not find them
FACTS = ("address", "also", "vm")


@dataclass(frozen=True)
class Copies:
    """A key that several machines share, with their names (or identities) and rows."""

    key: str
    machines: list[str]
    rows: list[int]


def identify(
    connection: duckdb.DuckDBPyConnection,
    typed: Path,
    sources: Sequence[FieldSource],
    plan: InventoryPlan,
) -> list[Copies]:
    """Make the table `identified`: row, name, asset_type, class_rule, identity and its confidence.

    `class_rule` is the rule of the closed list that gave the class, or `default`; `keys` are all
    keys of the row as `kind:value`, by which other files may know the asset, and facts by which
    they tell whether it is the same (`FACTS`). Returns the keys that several machines share.
    """
    fields = {source.role: source.is_list for source in sources}
    offered = available_keys(fields)
    keys = [name for name in offered if name in plan.identity_keys]
    _read_rows(connection, typed, fields, plan, keys)
    spare = [name for name in offered if name not in keys and name != NAME_AND_IP]
    connection.execute(
        f"CREATE TEMP TABLE identified AS SELECT *, {_own_identity(keys)}, {_all_keys(keys)} "  # noqa: S608 - quoted
        "AS keys FROM keyed"
    )
    connection.execute("DROP TABLE keyed")
    for level, name in enumerate(keys):
        # a domain name that rows share does not speak for itself
        find_machines(connection, level, "own_labels" if name == "fqdn" else "labels")
        _assign(connection, level, name)
    _spare(connection, typed, fields, spare)
    return _copies(connection, keys)


def _read_rows(
    connection: duckdb.DuckDBPyConnection,
    typed: Path,
    fields: dict[str, bool],
    plan: InventoryPlan,
    keys: list[str],
) -> None:
    """Make the table `keyed`: what is known of each row that may tell its machine from others.

    `label` is the machine's short name, `labels` what two rows of a machine have in common, and
    `own_labels` the same without the domain name and what follows from it.
    """
    keyed = "".join(f", {key_value(name, fields)} AS k{level}" for level, name in enumerate(keys))
    combined = key_value(NAME_AND_IP, fields) if NAME_AND_IP in available_keys(fields) else "NULL"
    # a name that is no key may be anything, such as the host that machines run on
    usable_names = [name for name in NAME_FIELDS if name in keys or name == "asset_name"]
    if not set(usable_names) & set(fields):
        usable_names = list(NAME_FIELDS)
    short = short_name(fields) if {"asset_name", "hostname", "fqdn"} & set(keys) else "NULL"
    listed = [f"'name:' || {text}" for text in short_names(fields, usable_names)]
    # its own name first: several rows may have a domain name by mistake
    others = short_names(fields, [name for name in usable_names if name != "fqdn"])
    label = f"coalesce({', '.join([*others, short_name(fields, usable_names)])})"
    own = ", ".join(f"'name:' || {text}" for text in (label, *others))
    addresses = "[]::VARCHAR[]"
    if "ip_address" in fields:
        value = "ip_address" if fields["ip_address"] else "[ip_address]"
        addresses = (
            f"list_filter(list_transform(coalesce({value}, []), lambda a: lower(trim(a))), "
            f"lambda a: a <> '' AND NOT regexp_full_match(a, {literal(_ANYWHERE)}))"
        )
    names = [
        f"{identifier(name)}[1]" if fields[name] else identifier(name)
        for name in _NAMES
        if name in fields
    ]
    name = f"coalesce({', '.join(names)})" if names else "NULL::VARCHAR"
    usable = usable_fields(fields)
    fqdn = key_value("fqdn", fields) if "fqdn" in usable_names and "fqdn" in fields else "NULL"
    connection.execute(
        f"""
        CREATE TEMP TABLE keyed AS
        SELECT *, list_distinct(list_concat(named, list_transform(addresses, lambda a:
                'address:' || a), [CASE WHEN fqdn IS NOT NULL THEN 'fqdn:' || fqdn END]))
                AS labels,
            list_distinct(list_concat(list_filter(own_names, lambda n: n IS NOT NULL),
                list_transform(addresses, lambda a: 'address:' || a))) AS own_labels,
            concat_ws('/', {VCENTER}, {VM_ID}) AS vm
        FROM (
            SELECT {ROW} AS row, left({name}, 1000) AS name,
                {asset_type(plan.class_rules, plan.default_type, usable)} AS asset_type,
                {class_rule_of(plan.class_rules, usable)} AS class_rule,
                {combined} AS name_and_ip, {short} AS short_name, {label} AS label,
                list_filter([{", ".join(listed)}]::VARCHAR[], lambda n: n IS NOT NULL) AS named,
                [{own}]::VARCHAR[] AS own_names,
                {addresses} AS addresses, {fqdn} AS fqdn,
                {VM_ID} AS vm_id, {VM_ID}, {VCENTER} {keyed}
            FROM read_parquet({literal(typed)})
        )
        """  # noqa: S608 - identifiers and literals are quoted
    )


def _all_keys(keys: list[str]) -> str:
    """A list of what the row is known by; names without their domain are of the kind `name`."""
    said = {name: f"k{level}" for level, name in enumerate(keys)}
    said |= {NAME_AND_IP: "name_and_ip", "name": "short_name"}
    listed = ", ".join(
        f"{literal(name + ':')} || {column}"
        for name, column in said.items()
        if name not in ("hostname", "asset_name")
    )
    facts = (
        "list_transform(addresses[:20], lambda a: 'address:' || left(a, 60)), "
        "list_transform(list_filter(named, lambda n: n[6:] IS DISTINCT FROM short_name), "
        "lambda n: 'also:' || n[6:]), "
        f"[CASE WHEN {VM_ID} IS NOT NULL AND {VCENTER} IS NOT NULL THEN 'vm:' || vm END]"
    )
    return (
        f"CASE WHEN {_NAMED} THEN []::VARCHAR[] ELSE list_distinct(list_filter("
        f"list_concat([{listed}]::VARCHAR[], {facts}), lambda k: k IS NOT NULL)) END"
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


def _assign(connection: duckdb.DuckDBPyConnection, level: int, name: str) -> None:
    """Rows of this level join the one stronger asset of their machine, or are one by themselves.

    Expects `machines` (row, k, machine) of the rows with a contested key.
    """
    key = f"k{level}"
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE placed AS
        SELECT i.row, i.level, i.identity, i.{key} AS k, coalesce(m.machine, 0) AS machine, i.label,
            i.vm_id, i.fqdn, i.addresses[1] AS address
        FROM identified i LEFT JOIN machines m ON m.row = i.row
        WHERE i.level >= 0 AND i.level <= {level} AND i.{key} IS NOT NULL
        """  # noqa: S608 - numbers only
    )
    connection.execute(
        f"""
        UPDATE identified SET identity = strong.identity,
            identity_confidence = identified.identity_confidence * {_LINKED}
        FROM (
            SELECT k, machine, min(identity) AS identity FROM placed WHERE level < {level}
            GROUP BY k, machine HAVING count(DISTINCT identity) = 1
        ) AS strong JOIN placed AS weak ON weak.k = strong.k AND weak.machine = strong.machine
        WHERE weak.level = {level} AND identified.row = weak.row
        """  # noqa: S608 - numbers only
    )
    connection.execute(
        f"""
        UPDATE identified SET identity = {literal(name + ":")} || own.k || ' ' ||
                CASE WHEN length(own.called) > {_LONGEST_NAME}
                    THEN left(own.called, {_LONGEST_NAME - 32}) || md5(own.called)
                    ELSE own.called END,
            identity_confidence = identified.identity_confidence * {_SHARED}
        FROM (
            SELECT k, machine, CASE WHEN count(*) OVER (PARTITION BY k, first) = 1 THEN first
                ELSE concat_ws(' ', first, coalesce(vm_id, fqdn, address)) END AS called
            FROM (
                SELECT k, machine, min(placed.label) AS first, min(placed.vm_id) AS vm_id,
                    min(placed.fqdn) AS fqdn, min(address) AS address
                FROM placed JOIN identified USING (row)
                WHERE placed.level = {level} AND identified.identity = placed.identity
                GROUP BY k, machine
            ) QUALIFY count(*) OVER (PARTITION BY k) > 1
        ) AS own JOIN placed ON placed.k = own.k AND placed.machine = own.machine
        WHERE placed.level = {level} AND identified.row = placed.row
            AND identified.identity = placed.identity AND own.called <> ''
        """  # noqa: S608 - numbers and own names
    )


def _spare(
    connection: duckdb.DuckDBPyConnection, typed: Path, fields: dict[str, bool], spare: list[str]
) -> None:
    """A row without a key that counts is known by one that is at least its alone."""
    for name in spare:
        connection.execute(
            f"""
            UPDATE identified SET identity = {literal(name + ":")} || own.k,
                identity_confidence = {_NO_KEY}
            FROM (
                SELECT {ROW} AS row, {key_value(name, fields)} AS k
                FROM read_parquet({literal(typed)})
                QUALIFY k IS NOT NULL AND count(*) OVER (PARTITION BY k) = 1
            ) AS own
            WHERE own.row = identified.row AND identified.identity LIKE 'row:%'
            """  # noqa: S608 - identifiers and literals are quoted
        )


def _copies(connection: duckdb.DuckDBPyConnection, keys: list[str]) -> list[Copies]:
    """Machines that share several keys are told once, by the strongest."""
    found: list[Copies] = []
    told: set[tuple[int, ...]] = set()
    for level, name in enumerate(keys):
        if name not in ("serial_number", "asset_id", "fqdn", NAME_AND_IP):
            continue
        rows = connection.execute(
            f"""
            SELECT k, list(DISTINCT called ORDER BY called)[:20], list(row ORDER BY row)[:50]
            FROM (SELECT k{level} AS k, row, identity, coalesce(label || CASE WHEN vm_id IS NULL
                      THEN '' ELSE ' (' || vm_id || ')' END, identity) AS called
                  FROM identified WHERE level >= 0 AND k{level} IS NOT NULL)
            GROUP BY k HAVING count(DISTINCT identity) > 1 ORDER BY k LIMIT 1000
            """  # noqa: S608 - numbers only
        ).fetchall()
        found += [
            Copies(f"{name}:{key}", machines, listed)
            for key, machines, listed in rows
            if tuple(listed) not in told
        ]
        told |= {tuple(listed) for _, _, listed in rows}
    return found
