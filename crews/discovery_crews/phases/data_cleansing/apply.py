"""Applying a plan of cleansing rules to every row, with the originals kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from discovery_core.wire.results import ColumnProfile, RuleApplication

from discovery_crews.mapping.engine import sure_columns
from discovery_crews.tables.engine import (
    ORIGINAL_PREFIX,
    ROW,
    connect,
    identifier,
    literal,
    source_columns,
)
from discovery_crews.target_schema import builtin_schema

from .rules import RULES, Effect, applicable_rules, effects_alone, effects_in_order

# how sure a proposed mapping has to be for a rule that is about one field
_SURE = 0.5


@dataclass(frozen=True)
class Step:
    """One decision of the plan: a rule for a column, and why."""

    column: str
    rule: str
    reason: str = ""


def candidate_effects(
    workdir: Path,
    records: Path,
    profile: Sequence[ColumnProfile],
    progress: Callable[[int | None, int | None, str], None] | None = None,
) -> dict[str, list[Effect]]:
    """Per column the rules that would change something, with what they would change."""
    found: dict[str, list[Effect]] = {}
    sure = sure_columns(profile, builtin_schema(), _SURE)
    fields = {column.name: field for field, column in sure.items()}
    with connect(workdir) as connection:
        for position, column in enumerate(profile, start=1):
            rules = applicable_rules(column, fields.get(column.name))
            effects = effects_alone(connection, records, column.name, rules)
            if changing := [effect for effect in effects if effect.rows_changed]:
                found[column.name] = changing
            if progress:
                progress(None, None, f"examining column {position} of {len(profile)}")
    return found


def apply_plan(
    workdir: Path, records: Path, plan: Sequence[Step], target: Path
) -> list[RuleApplication]:
    """Write `target`: cleansed columns, `__row`, and `__original.<column>` where it changed.

    Rules of one column are applied in the order of the closed list. Returns what each did.
    """
    chosen: dict[str, dict[str, Step]] = defaultdict(dict)
    for step in plan:
        chosen[step.column][step.rule] = step
    applications: list[RuleApplication] = []
    expressions: list[str] = []
    originals: list[str] = []
    with connect(workdir) as connection:
        for column in source_columns(connection, records):
            steps = chosen.get(column, {})
            rules = [name for name in RULES if name in steps]
            effects, final = effects_in_order(connection, records, column, rules)
            name = identifier(column)
            if any(effect.rows_changed for effect in effects):
                expressions.append(f"{final} AS {name}")
                originals.append(f"{name} AS {identifier(ORIGINAL_PREFIX + column)}")
            else:
                expressions.append(name)
            applications.extend(
                RuleApplication(
                    rule=effect.rule,
                    column=column,
                    rows_changed=effect.rows_changed,
                    before=effect.before,
                    after=effect.after,
                    reason=steps[effect.rule].reason,
                )
                for effect in effects
            )
        selected = ", ".join([*expressions, ROW, *originals])
        connection.execute(
            f"COPY (SELECT {selected} FROM read_parquet({literal(records)})) "  # noqa: S608 - quoted
            f"TO {literal(target)} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 100000)"
        )
    return applications
