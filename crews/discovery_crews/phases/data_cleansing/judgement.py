"""What the cleansing crew is asked, and what it may answer: rules by name, for columns by name.

The candidates are only those rules that would change something, each with how many rows and an
example, measured over all rows before the crew starts. A plan outside of them is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from discovery_core.wire.results import ColumnProfile
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .apply import Step
from .rules import DATE_RULES, ON_REQUEST, RULES, Effect

Candidates = Mapping[str, Sequence[Effect]]
# words that mean "missing" in most columns, but are real settings in some
_AMBIGUOUS = {"none", "null", "default string"}


class PlannedStep(BaseModel):
    """One decision."""

    model_config = ConfigDict(extra="forbid")

    column: str = Field(description="a column with candidates")
    rule: str = Field(description="one of the column's candidate rules")
    reason: str = Field(default="", max_length=300)


class CleansingPlan(BaseModel):
    """The crew's answer."""

    model_config = ConfigDict(extra="forbid")

    steps: list[PlannedStep] | None = Field(
        default=None,
        max_length=20_000,
        description="the whole plan; [] for no rule at all; leave out to do what is recommended",
    )
    summary: str = Field(
        default="", max_length=600, description="one or two sentences for the analyst"
    )


def check(
    candidates: Candidates,
    profile: Sequence[ColumnProfile],
    answer: object,
) -> CleansingPlan:
    """The answer as a plan; one without steps means the recommended ones.

    Raises ValueError saying what is wrong with it.
    """
    try:
        plan = CleansingPlan.model_validate(answer)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise ValueError(f"{place}: {problem['msg']}") from error
    if plan.steps is None:
        return CleansingPlan.model_validate(recommend(candidates, profile))
    chosen: set[tuple[str, str]] = set()
    for step in plan.steps:
        allowed = [effect.rule for effect in candidates.get(step.column, ())]
        if not allowed:
            raise ValueError(f"column {step.column!r} has no candidate rules")
        if step.rule not in allowed:
            raise ValueError(f"{step.column!r}: rule {step.rule!r} is not one of {allowed}")
        if (step.column, step.rule) in chosen:
            raise ValueError(f"{step.column!r}: rule {step.rule!r} is there twice")
        chosen.add((step.column, step.rule))
    for column in candidates:
        dates = [rule for name, rule in chosen if name == column and rule in DATE_RULES]
        if len(dates) > 1:
            raise ValueError(f"{column!r}: choose one way to read dates, not {sorted(dates)}")
    return plan


def steps_of(plan: CleansingPlan) -> list[Step]:
    """The plan as it is applied."""
    return [Step(step.column, step.rule, step.reason) for step in plan.steps or ()]


def recommend(candidates: Candidates, profile: Sequence[ColumnProfile]) -> dict[str, Any]:
    """The plan that rules give: everything that is safe, dates only where one order fits best."""
    profiles = {column.name: column for column in profile}
    steps: list[dict[str, str]] = []
    open_dates: list[str] = []
    for column, effects in candidates.items():
        for effect in effects:
            if effect.rule in DATE_RULES or effect.rule in ON_REQUEST:
                continue
            if effect.rule == "missing_tokens" and _means_it(profiles.get(column)):
                continue
            steps.append(
                {"column": column, "rule": effect.rule, "reason": RULES[effect.rule].title}
            )
        date = _date_rule(effects)
        if date is not None:
            steps.append({"column": column, "rule": date, "reason": RULES[date].title})
        if date in (None, "normalise_date") and _has_open_dates(effects):
            open_dates.append(column)
    summary = f"{len(steps)} rules on {len({step['column'] for step in steps})} columns."
    if open_dates:
        summary += (
            " Left as they are, because day and month cannot be told apart: "
            + ", ".join(open_dates[:10])
            + "."
        )
    return {"steps": steps, "summary": summary}


def _means_it(column: ColumnProfile | None) -> bool:
    """Whether `none` is the column's only word: then it is a setting, not a gap."""
    if column is None:
        return False
    return column.distinct == 1 and column.samples[0].strip().lower() in _AMBIGUOUS


def _has_open_dates(effects: Sequence[Effect]) -> bool:
    changed = {effect.rule: effect.rows_changed for effect in effects}
    most = max((changed.get(rule, 0) for rule in DATE_RULES), default=0)
    return most > changed.get("normalise_date", 0)


def _date_rule(effects: Sequence[Effect]) -> str | None:
    """The order of day and month that the dates prove, else only what is clear anyway."""
    dates = {effect.rule: effect for effect in effects if effect.rule in DATE_RULES}
    proven = [effect.rule for effect in dates.values() if effect.exclusive]
    if len(proven) == 1:
        return proven[0]
    return "normalise_date" if "normalise_date" in dates else None
