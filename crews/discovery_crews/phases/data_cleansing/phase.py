"""Runs data_cleansing: measure what rules would do, let the crew choose, apply to all rows."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_core.wire.protocol import Usage
from discovery_core.wire.results import CleansingResult
from pydantic import ValidationError

from discovery_crews.crew_base import ContextTool, Step, Submission, run_crew
from discovery_crews.phase import PhaseContext, PhaseOutcome
from discovery_crews.profile import brief, profile_records, read_profile, write_profile
from discovery_crews.tables.engine import connect, count_rows
from discovery_crews.tables.preview import write_preview

from .apply import apply_plan, candidate_effects
from .judgement import Candidates, CleansingPlan, check, recommend, steps_of
from .rules import RULES

CONFIG = Path(__file__).parent / "config"
_SUBMIT = "submit_cleansing_plan"
_SHOWN = 400
# an input of developers only: a plan to apply instead of asking the crew
REPLAYED = "cleansingPlan"


def run(context: PhaseContext) -> PhaseOutcome:
    """Cleanse the imported records; see `discovery_crews.phase.RunPhase`."""
    started = time.perf_counter()
    workdir, raw = context.workdir, context.inputs["records"]
    plan, usage = _replayed(context) if REPLAYED in context.inputs else _planned(context)
    context.progress(None, None, "applying rules to all rows")
    records = workdir / "records.parquet"
    applications = apply_plan(workdir, raw, steps_of(plan), records)
    with connect(workdir) as connection:
        rows = count_rows(connection, records)
    clean_profile, plan_file = workdir / "profile.json", workdir / "plan.json"
    before = read_profile(context.inputs["profile"])
    profile = profile_records(workdir, records, rows, context.progress, before=before)
    write_profile(clean_profile, profile)
    plan_file.write_text(plan.model_dump_json(indent=2), encoding="utf-8")
    usage.seconds_crew = round(time.perf_counter() - started, 3)
    return PhaseOutcome(
        CleansingResult(rows=rows, rules=applications, summary=plan.summary),
        {
            "records": records,
            "profile": clean_profile,
            "plan": plan_file,
            "preview": write_preview(workdir, records),
        },
        usage,
    )


def _replayed(context: PhaseContext) -> tuple[CleansingPlan, Usage]:
    """The stored plan of an earlier run, applied as it is: nobody judges."""
    try:
        plan = CleansingPlan.model_validate_json(context.inputs[REPLAYED].read_bytes())
    except ValidationError as error:
        raise _unusable(f"it cannot be read: {error.errors()[0]['msg']}") from error
    columns = {column.name for column in read_profile(context.inputs["profile"])}
    for step in plan.steps or ():
        if step.column not in columns:
            raise _unusable(f"column {step.column!r} is not in this source")
        if step.rule not in RULES:
            raise _unusable(f"rule {step.rule!r} is not known")
    return plan, Usage(planner="replay")


def _unusable(why: str) -> DiscoveryError:
    return DiscoveryError(
        ErrorCode.INVALID_RESULT,
        f"The cleansing plan does not fit: {why}. Use plan.json of a run on a source with the "
        "same columns, or leave the plan out.",
    )


def _planned(context: PhaseContext) -> tuple[CleansingPlan, Usage]:
    """The plan that the crew makes of the rules that would change something."""
    workdir, raw = context.workdir, context.inputs["records"]
    profile = read_profile(context.inputs["profile"])
    candidates = candidate_effects(workdir, raw, profile, context.progress)
    context.progress(None, None, "the crew chooses rules")
    submission = Submission(
        name=_SUBMIT,
        description="Hand in the plan: rules of the closed list, by column. Ends your task.",
        schema=CleansingPlan,
        check=lambda answer: check(candidates, profile, answer),
        recommend=lambda: recommend(candidates, profile),
    )
    tools = (
        ContextTool("list_rules", "The closed list of rules.", _rules),
        ContextTool(
            "list_columns", "Every column with its type, fill and samples.", lambda: brief(profile)
        ),
        ContextTool(
            "list_candidates",
            "Rules that would change something, by column: rows changed and the first example. "
            "proven_by_rows: dates that only this order of day and month can read.",
            lambda: _shown(candidates),
        ),
    )
    outcome = run_crew(
        CONFIG,
        [Step("cleansing_planner", "plan_cleansing", tools, submission)],
        context.llm,
        inputs={"columns": str(len(profile)), "hint": context.hint or "none"},
    )
    plan: CleansingPlan = outcome.answers[_SUBMIT]
    return plan, outcome.usage


def _rules() -> list[dict[str, str]]:
    return [{"rule": rule.name, "effect": rule.title} for rule in RULES.values()]


def _shown(candidates: Candidates) -> str:
    effects = sorted(
        (effect for column in candidates.values() for effect in column),
        key=lambda effect: -effect.rows_changed,
    )
    shown: dict[str, list[dict[str, Any]]] = {}
    for effect in effects[:_SHOWN]:
        shown.setdefault(effect.column, []).append(
            {
                "rule": effect.rule,
                "rows_changed": effect.rows_changed,
                "before": effect.before,
                "after": effect.after,
                **({"proven_by_rows": effect.exclusive} if effect.exclusive else {}),
            }
        )
    left_out = len(effects) - _SHOWN
    note = f"\n{left_out} more with fewer rows are not shown." if left_out > 0 else ""
    return json.dumps(shown, ensure_ascii=False) + note
