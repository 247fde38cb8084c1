"""The end of a run as far as it must not depend on faults, and how it is compared.

uids, times, versions and attempt numbers are left out; so are histories' rows about attempts that
ended badly, because a crash may cost an attempt and that is what attempts are for.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from tests.faults.control_plane import Raw
from tests.faults.invariants import Expectations, InvariantError, check
from tests.faults.world import World

SETTLE_SECONDS = 15.0

HISTORY = """
    SELECT trigger, from_state, to_state, phase, round, actor FROM flow_events ORDER BY sequence
"""
RESULTS = """
    SELECT round, phase, result, state FROM phase_runs
    WHERE result IS NOT NULL ORDER BY round, phase
"""
ANSWERS = """
    SELECT round, state, decided_by, artefact_digest, approved_digest FROM approval_requests
    ORDER BY opened_at
"""
# those of a deleted flow go in steps, after its end
ARTEFACTS = """
    SELECT DISTINCT split_part(name, '/', 1) AS name, digest FROM flow_artefacts
    WHERE name NOT LIKE 'upload/%'
      AND flow_id NOT IN (SELECT flow_id FROM master_flows WHERE deleted_at IS NOT NULL)
"""
ASSETS = "SELECT identity, asset_type, fields FROM assets ORDER BY identity"
FLOW = "SELECT state, phase, round, reason FROM discovery_flows"
SHOWN = ("state", "phase", "progress", "round", "recordsImported", "recordsRejected", "assets")


@dataclass(frozen=True)
class Outcome:
    """What is compared, part by part."""

    flow: list[Raw]
    history: list[Raw]
    results: list[Raw]
    answers: list[Raw]
    artefacts: list[Raw]
    assets: list[Raw]
    status: Raw

    def differences(self, other: Outcome) -> list[str]:
        """The parts that differ, with both sides."""
        return [
            f"{part}: {mine!r} instead of {theirs!r}"
            for part in self.__dataclass_fields__
            if (mine := getattr(self, part)) != (theirs := getattr(other, part))
        ]


async def outcome_of(world: World) -> Outcome:
    """The outcome, once rows, resources and Jobs agree. Raises InvariantError where they do not."""
    for tries in range(int(SETTLE_SECONDS / 0.2)):
        raw = await world.flow()
        seen = Expectations(
            resources=[raw] if raw else [],
            jobs=await world.jobs(),
            settled=True,
            allow_automatic_approval=True,
            stray=SETTLE_SECONDS,
        )
        try:
            await asyncio.to_thread(check, world.urls.superuser, seen)
        except InvariantError:
            if tries == int(SETTLE_SECONDS / 0.2) - 1:
                raise
            await asyncio.sleep(0.2)
            continue
        break
    rows = await asyncio.to_thread(_rows, world.urls.superuser)
    status = (raw or {}).get("status") or {}
    return Outcome(**rows, status={key: status.get(key) for key in SHOWN})


def _rows(url: str) -> dict[str, list[Any]]:
    queries = {
        "flow": FLOW,
        "history": HISTORY,
        "results": RESULTS,
        "answers": ANSWERS,
        "artefacts": ARTEFACTS,
        "assets": ASSETS,
    }
    with psycopg.connect(url, row_factory=dict_row) as connection:
        found = {part: connection.execute(query).fetchall() for part, query in queries.items()}
    found["artefacts"].sort(key=lambda row: (row["name"], row["digest"]))
    return found
