"""After a restore, and the move into another cluster: what an administrator does as the owner.

Flows are bound to their resources' uids and tenants to their namespaces', which another cluster
gives anew. `adopt` gives both new keys, everything in one transaction: it is done or it is not.
For that time only, foreign keys wait for the commit and the owner sees all rows; the tables are
locked, so nobody else ever sees them without their guards.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.engine import Connection, Engine

from ...errors import StoreError
from ...states import Occurrence

CLUSTER_NAMESPACE = "kube-system"
OWNER = "discovery_owner"

_TABLES = """
    SELECT c.relname FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = :column AND NOT a.attisdropped
    WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace ORDER BY 1
"""
_FOREIGN_KEYS = """
    SELECT k.conrelid::regclass::text, k.conname FROM pg_constraint k
    WHERE k.contype = 'f' AND k.connamespace = 'public'::regnamespace AND NOT k.condeferrable
"""
# identities of rows without a key of their own end with their flow's id
_DERIVED = (
    """
    UPDATE assets SET identity = replace(identity, :old, :new),
           sources = replace(sources::text, :old, :new)::jsonb
    WHERE tenant_id = :tenant AND (sources ? :old OR identity LIKE '%' || :old)
    """,
    """
    UPDATE asset_aliases SET identity = replace(identity, :old, :new),
           asset = replace(asset, :old, :new)
    WHERE tenant_id = :tenant AND (identity LIKE '%' || :old OR asset LIKE '%' || :old)
    """,
    """
    UPDATE asset_decisions SET identity = replace(identity, :old, :new)
    WHERE tenant_id = :tenant AND identity LIKE '%' || :old
    """,
)
# generation 0: the new resource counts from 1 again, and its spec is to be read
_EVENT = """
    WITH f AS (
        UPDATE discovery_flows SET version = version + 1, event_sequence = event_sequence + 1,
               generation = 0, updated_at = clock_timestamp()
        WHERE tenant_id = :tenant AND flow_id = :flow RETURNING *
    )
    INSERT INTO flow_events (tenant_id, flow_id, sequence, actor, trigger, from_state, to_state,
                             phase, round, message, details)
    SELECT f.tenant_id, f.flow_id, f.event_sequence, :actor, :trigger, f.state, f.state, f.phase,
           f.round, 'adopted by another cluster', CAST(:details AS jsonb)
    FROM f
"""


class AdoptionError(StoreError):
    """The move is not possible as things are; nothing was changed."""


@dataclass
class Adopted:
    """What moved, as `namespace` and `namespace/name`, and what stayed with the old cluster."""

    namespaces: list[str] = field(default_factory=list)
    flows: list[str] = field(default_factory=list)
    without_resource: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Target:
    """What the new cluster gives: uids of namespaces by name, of flows by namespace and name."""

    namespaces: Mapping[str, UUID]
    flows: Mapping[tuple[str, str], UUID]

    @classmethod
    def read(cls, namespaces: Path, flows: Path) -> Target:
        """From what `kubectl get … -o json` printed. Raises AdoptionError."""
        found = {
            item["metadata"]["name"]: UUID(item["metadata"]["uid"]) for item in _items(namespaces)
        }
        resources = {
            (item["metadata"]["namespace"], item["metadata"]["name"]): UUID(item["metadata"]["uid"])
            for item in _items(flows)
        }
        return cls(found, resources)


def _items(path: Path) -> list[dict[str, Any]]:
    try:
        items = json.loads(path.read_text(encoding="utf-8"))["items"]
        assert isinstance(items, list)  # noqa: S101 - a kubectl list has them
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise AdoptionError(
            f"{path} is not the output of kubectl get … -o json: {type(error).__name__}: {error}"
        ) from error
    return items


def mark_restored(engine: Engine) -> dict[UUID, int]:
    """Ends every leadership that the dump has, with an epoch that was never given out.

    An operator that was leading after the dump was made may hold a higher epoch than the dump
    knows. Epochs grow by one for each takeover, far less than one a second, so the seconds since
    1970 are above all of them. Returns the epochs by cluster.
    """
    with engine.begin() as connection:
        connection.execute(text(f"SET LOCAL ROLE {OWNER}"))
        rows = connection.execute(
            text(
                "UPDATE leader SET holder = 'restored', expires_at = clock_timestamp(), epoch = "
                "greatest(epoch + 1, floor(extract(epoch FROM clock_timestamp()))::bigint) "
                "RETURNING cluster_id, epoch"
            )
        )
        return {cluster: int(epoch) for cluster, epoch in rows.tuples()}


def adopt(
    engine: Engine,
    *,
    source: UUID,
    cluster: UUID,
    target: Target,
    actor: str,
    dry_run: bool = False,
) -> Adopted:
    """Moves the flows of cluster `source` to `cluster`, by names of namespaces and resources.

    A flow without a resource there moves under its old id; the operator then finds its resource
    gone. With `dry_run` everything is tried and taken back. Raises AdoptionError.
    """
    if source == cluster:
        raise AdoptionError("the two clusters are the same one")
    if target.namespaces.get(CLUSTER_NAMESPACE) != cluster:
        raise AdoptionError(
            f"the namespaces are not those of cluster {cluster}: the uid of {CLUSTER_NAMESPACE} "
            f"there is {target.namespaces.get(CLUSTER_NAMESPACE)}"
        )
    with engine.connect() as connection, connection.begin() as transaction:
        connection.execute(text(f"SET LOCAL ROLE {OWNER}"))
        connection.execute(text("SET LOCAL lock_timeout = '60s'"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        with _unguarded(connection):
            _check_clusters(connection, source, cluster)
            adopted = _move(connection, source, cluster, target, actor)
        if dry_run:
            transaction.rollback()
    return adopted


@contextmanager
def _unguarded(connection: Connection) -> Iterator[None]:
    """Foreign keys are checked at the end of it, and the owner sees every row."""
    tables = [*_tables(connection, "tenant_id"), "tenants"]
    keys = connection.execute(text(_FOREIGN_KEYS)).tuples().all()
    for table in tables:
        connection.execute(text(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY"))
    for table, key in keys:
        connection.execute(
            text(f"ALTER TABLE {table} ALTER CONSTRAINT {key} DEFERRABLE INITIALLY DEFERRED")
        )
    yield
    connection.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
    for table, key in keys:
        connection.execute(text(f"ALTER TABLE {table} ALTER CONSTRAINT {key} NOT DEFERRABLE"))
    for table in tables:
        connection.execute(text(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY"))


def _tables(connection: Connection, column: str) -> list[str]:
    return list(connection.scalars(text(_TABLES), {"column": column}))


def _check_clusters(connection: Connection, source: UUID, cluster: UUID) -> None:
    """Neither cluster may have an operator at work; the lock keeps one from starting."""
    known = set(connection.scalars(text("SELECT id FROM clusters")))
    if source not in known:
        listed = ", ".join(sorted(str(one) for one in known)) or "none"
        raise AdoptionError(f"the database has no cluster {source}; it has: {listed}")
    connection.execute(
        text("INSERT INTO clusters (id) VALUES (:id) ON CONFLICT DO NOTHING"), {"id": cluster}
    )
    live = connection.execute(
        text(
            "SELECT cluster_id, holder, expires_at > clock_timestamp() AS live FROM leader "
            "WHERE cluster_id IN (:source, :cluster) FOR UPDATE"
        ),
        {"source": source, "cluster": cluster},
    )
    for row in live:
        if row.live:
            raise AdoptionError(
                f"an operator of cluster {row.cluster_id} is at work ({row.holder}): scale its "
                "Deployment to 0 and try again"
            )


def _move(
    connection: Connection, source: UUID, cluster: UUID, target: Target, actor: str
) -> Adopted:
    adopted = Adopted()
    tables, with_flow = _tables(connection, "tenant_id"), _tables(connection, "flow_id")
    taken: set[str] = set()
    rows = connection.execute(
        text(
            "SELECT id, namespace, gone_since IS NOT NULL AS gone FROM tenants "
            "WHERE cluster_id = :source AND purged_at IS NULL "
            "ORDER BY gone_since IS NOT NULL, created_at DESC"
        ),
        {"source": source},
    ).all()
    for row in rows:
        name, uid = row.namespace, target.namespaces.get(row.namespace)
        if uid is None or row.gone or name in taken:
            adopted.left.append(name)
            continue
        taken.add(name)
        _refuse_known(connection, "tenants", "id", uid, f"namespace {name}")
        for table in tables:
            connection.execute(
                text(f"UPDATE {table} SET tenant_id = :new WHERE tenant_id = :old"),  # noqa: S608
                {"new": uid, "old": row.id},
            )
        connection.execute(
            text("UPDATE tenants SET id = :new, cluster_id = :cluster WHERE id = :old"),
            {"new": uid, "old": row.id, "cluster": cluster},
        )
        adopted.namespaces.append(name)
        details = {"fromCluster": str(source), "toCluster": str(cluster)}
        details |= {"fromNamespace": str(row.id), "toNamespace": str(uid)}
        _move_flows(connection, name, uid, target, with_flow, actor, details, adopted)
    return adopted


def _move_flows(
    connection: Connection,
    namespace: str,
    tenant: UUID,
    target: Target,
    tables: list[str],
    actor: str,
    details: dict[str, str],
    adopted: Adopted,
) -> None:
    """Gives the flows of a namespace that has moved their new ids, and says so in each history."""
    rows = connection.execute(
        text(
            "SELECT flow_id, name FROM master_flows WHERE tenant_id = :tenant "
            "AND deleted_at IS NULL ORDER BY created_at DESC"
        ),
        {"tenant": tenant},
    ).all()
    seen: set[str] = set()
    for row in rows:
        new = None if row.name in seen else target.flows.get((namespace, row.name))
        if new is None:
            adopted.without_resource.append(f"{namespace}/{row.name}")
            continue
        seen.add(row.name)
        _refuse_known(connection, "master_flows", "flow_id", new, f"flow {namespace}/{row.name}")
        for table in tables:
            connection.execute(
                text(
                    f"UPDATE {table} SET flow_id = :new "  # noqa: S608 - names of the catalogue
                    "WHERE tenant_id = :tenant AND flow_id = :old"
                ),
                {"new": new, "old": row.flow_id, "tenant": tenant},
            )
        for statement in _DERIVED:
            connection.execute(
                text(statement), {"new": str(new), "old": str(row.flow_id), "tenant": tenant}
            )
        connection.execute(
            text(_EVENT),
            {
                "tenant": tenant,
                "flow": new,
                "actor": actor,
                "trigger": str(Occurrence.ADOPTED),
                "details": json.dumps(
                    {**details, "fromFlow": str(row.flow_id), "toFlow": str(new)}
                ),
            },
        )
        adopted.flows.append(f"{namespace}/{row.name}")


def _refuse_known(connection: Connection, table: str, column: str, uid: UUID, what: str) -> None:
    known = connection.scalar(
        text(f"SELECT count(*) FROM {table} WHERE {column} = :uid"),  # noqa: S608
        {"uid": uid},
    )
    if known:
        raise AdoptionError(
            f"{what} ({uid}) has data of its own in this database already: adopt before the "
            "operator of the new cluster runs for the first time"
        )
