"""Machines that share a key although nothing else says that they are one, and what people decide.

A copied virtual machine keeps its UUID. Whether two machines of one key are the same is remembered
by the key and the machines' names, so that it holds for later imports; a machine that comes new to
the key is asked about again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Row, delete, func, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from ...errors import NotFoundError
from ..schema import IdentityDecision
from .assets import SOURCES, key_of, without_loops

SameOrNot = Literal["same", "different"]
# What is asked of a key, by its kind; of others, such as a name alone, nothing is.
QUESTIONS = {
    "serial_number": "same serial number, different machines?",
    "asset_id": "same VM UUID or asset id, different machines: a copy?",
    "fqdn": "same domain name, different machines?",
    "name_and_ip": "same name and address, different machines?",
}
_KINDS = ", ".join(f"'{kind}'" for kind in QUESTIONS)


@dataclass(frozen=True)
class Machine:
    """An asset with the key, and the latest row that says so.

    `label` is what it is called among those that share it, `names` are those decided about.
    """

    identity: str
    label: str
    names: list[str]
    flow: str
    row: int
    at: datetime


@dataclass(frozen=True)
class SharedKey:
    """A key of several machines; `choice` is None where a machine is not decided about.

    `groups` are the names that a person has put together, as `IdentityDecision` keeps them.
    """

    key: str
    question: str
    machines: list[Machine]
    groups: list[list[str]]
    choice: str | None = None
    decided_by: str | None = None


_SHARED = text(
    f"""
    WITH {SOURCES}, decisions AS (
        SELECT * FROM identity_decisions d
        WHERE d.tenant_id = :tenant AND d.engagement = :engagement
    ), pairs AS MATERIALIZED (
        SELECT s.asset, s.flow, s.row, s.finished_at, s.rank, s.keys, k.key
        FROM source_rows s, jsonb_array_elements_text(s.keys) AS k(key)
        WHERE split_part(k.key, ':', 1) IN ({_KINDS})
          AND (CAST(:key AS text) IS NULL OR k.key = :key)
    ), shared AS (
        SELECT key FROM pairs GROUP BY key HAVING count(DISTINCT asset) > 1
        UNION SELECT d.key FROM decisions d
    ), machines AS (
        SELECT p.key, p.asset, (array_agg(p.flow ORDER BY p.rank DESC))[1] AS flow,
               (array_agg(p.row ORDER BY p.rank DESC))[1] AS row,
               (array_agg(p.finished_at ORDER BY p.rank DESC))[1] AS at,
               min(n.name) AS name,
               coalesce(jsonb_agg(DISTINCT n.name) FILTER (WHERE n.name IS NOT NULL), '[]')
                   AS names
        FROM pairs p JOIN shared USING (key) LEFT JOIN LATERAL (
            SELECT substr(e.key, 6) AS name FROM jsonb_array_elements_text(p.keys) AS e(key)
            WHERE e.key LIKE 'name:%'
        ) AS n ON true
        GROUP BY p.key, p.asset
    )
    SELECT m.key, d.choice, d.machines AS decided, d.decided_by, jsonb_agg(jsonb_build_object(
               'identity', m.asset, 'name', m.name, 'names', m.names, 'flow', m.flow,
               'row', m.row, 'at', m.at)
               ORDER BY m.asset) AS machines
    FROM machines m LEFT JOIN decisions d USING (key)
    GROUP BY m.key, d.choice, d.machines, d.decided_by
    ORDER BY d.choice IS NOT NULL, m.key LIMIT :most
    """  # noqa: S608 - texts of ours
)


async def shared_keys(
    session: AsyncSession,
    tenant_id: UUID,
    engagement: str | None,
    *,
    key: str | None = None,
    limit: int,
) -> list[SharedKey]:
    """Keys that several assets share, and decided ones; at most `limit`, the undecided first."""
    async with without_loops(session):
        rows = await session.execute(
            _SHARED, key_of(tenant_id, engagement) | {"key": key, "most": limit}
        )
    return [found for row in rows if (found := _shared_key(row)) is not None]


def _shared_key(row: Row[Any]) -> SharedKey | None:
    groups: list[list[str]] = row.decided or []
    known = {name for group in groups for name in group}
    names = [entry["name"] for entry in row.machines]
    machines = [
        Machine(
            identity=entry["identity"],
            label=entry["name"] if _is_single(entry["name"], names) else entry["identity"],
            names=[name for name in entry["names"] if name in known],
            flow=entry["flow"],
            row=entry["row"],
            at=datetime.fromisoformat(entry["at"]),
        )
        for entry in row.machines
    ]
    if len(machines) == 1 and row.choice != "same":
        return None
    decided = len(machines) == 1 or {machine.label for machine in machines} <= known
    return SharedKey(
        key=row.key,
        question=QUESTIONS[row.key.partition(":")[0]],
        machines=machines,
        groups=groups,
        choice=row.choice if decided else None,
        decided_by=row.decided_by if decided else None,
    )


def _is_single(name: str | None, names: list[str | None]) -> bool:
    return bool(name) and names.count(name) == 1


async def decide_key(
    session: AsyncSession,
    tenant_id: UUID,
    engagement: str | None,
    *,
    key: str,
    choice: str,
    decided_by: str,
) -> None:
    """Writes down whether the machines that share a key are the same.

    Raises NotFoundError where no two machines share it.
    """
    found = await shared_keys(session, tenant_id, engagement, key=key, limit=1)
    if not found:
        raise NotFoundError(f"no two machines share {key!r}")
    groups = [sorted({entry.label, *entry.names}) for entry in found[0].machines]
    if len(groups) == 1:
        groups = [[name] for group in found[0].groups for name in group]
    if choice == "same":
        groups = [sorted({name for group in groups for name in group})]
    values = {"machines": groups, "choice": choice, "decided_by": decided_by}
    statement = insert(IdentityDecision).values(
        tenant_id=tenant_id, engagement=engagement or "", key=key, **values
    )
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=["tenant_id", "engagement", "key"],
            set_=values | {"decided_at": func.clock_timestamp()},
        )
    )


async def undo_key(session: AsyncSession, engagement: str | None, key: str) -> None:
    """Takes a decision back. Raises NotFoundError where there is none."""
    gone = await session.execute(
        delete(IdentityDecision).where(
            IdentityDecision.engagement == (engagement or ""), IdentityDecision.key == key
        )
    )
    if not getattr(gone, "rowcount", 0):
        raise NotFoundError(f"nothing is decided about {key!r}")
