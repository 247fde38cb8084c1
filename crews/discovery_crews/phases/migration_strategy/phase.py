"""Runs migration_strategy: facts, groups, the crew's choice, and the exports."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Sequence
from pathlib import Path

from discovery_core.wire.results import StrategyResult

from discovery_crews.crew_base import ContextTool, Step, Submission, run_crew
from discovery_crews.inventory_file import inventory_of
from discovery_crews.phase import PhaseContext, PhaseOutcome
from discovery_crews.systems import as_of
from discovery_crews.tables.engine import connect

from .exports import Exports, write_exports
from .facts import Facts
from .judgement import MOST_SHOWN, AssetGroup, StrategyPlan, check, recommend
from .readiness import ATTRIBUTES
from .rules import RULES
from .strategies import StrategyCounts, apply_choices, asset_groups, write_strategies
from .workbook import write_workbook

CONFIG = Path(__file__).parent / "config"
_SUBMIT = "submit_strategy_plan"
_NAMED = 8


def today() -> dt.date:
    """The day that support and warranty dates are compared with."""
    return dt.datetime.now(dt.UTC).date()


def run(context: PhaseContext) -> PhaseOutcome:
    """Propose strategies for the inventory; see `discovery_crews.phase.RunPhase`."""
    started = time.perf_counter()
    workdir, assets = context.workdir, inventory_of(context)
    dependencies, day = context.inputs["dependencies"], today()
    with connect(workdir) as connection:
        context.progress(None, None, "gathering facts")
        facts = Facts(connection, assets, dependencies)
        facts.build(day)
        groups = asset_groups(connection)
        context.progress(None, None, "the crew chooses strategies")
        submission = Submission(
            name=_SUBMIT,
            description="Hand in other strategies for groups, with reasons. Ends your task.",
            schema=StrategyPlan,
            check=lambda answer: check(groups, answer),
            recommend=lambda: recommend(groups),
        )
        outcome = run_crew(
            CONFIG,
            [Step("migration_strategist", "choose_strategies", _tools(groups), submission)],
            context.llm,
            inputs={
                "assets": str(sum(group.number for group in groups)),
                "groups": str(len(groups)),
                "hint": context.hint or "none",
            },
        )
        plan: StrategyPlan = outcome.answers[_SUBMIT]
        apply_choices(connection, groups, plan.choices)
        strategies = workdir / "strategies.parquet"
        counts = write_strategies(connection, facts, assets, day.isoformat(), strategies)
        context.progress(None, None, "writing exports")
        exports = write_exports(connection, facts, workdir, assets)
        files = exports.files | {"strategies": strategies, "plan": workdir / "plan.json"}
        files["plan"].write_text(plan.model_dump_json(indent=2), encoding="utf-8")
        result = _result(counts, exports, plan, day)
        files["assets_xlsx"] = workdir / "assets.xlsx"
        write_workbook(connection, files["assets_xlsx"], _summary(result, day), dependencies)
    outcome.usage.seconds_crew = round(time.perf_counter() - started, 3)
    return PhaseOutcome(result, files, outcome.usage)


def _tools(groups: Sequence[AssetGroup]) -> tuple[ContextTool, ...]:
    return (
        ContextTool(
            "list_groups",
            "Groups of assets with the same facts, the largest first, with what is proposed.",
            lambda: [group.shown() for group in groups[:MOST_SHOWN]],
        ),
        ContextTool(
            "list_rules",
            "The rules behind the proposals, in order.",
            lambda: [
                {"rule": rule.name, "strategy": rule.strategy, "confidence": rule.confidence}
                for rule in RULES
            ],
        ),
    )


def _result(
    counts: StrategyCounts, exports: Exports, plan: StrategyPlan, day: dt.date
) -> StrategyResult:
    listed = ", ".join(f"{number} {name}" for name, number in counts.by_strategy.items()) or "none"
    findings = [
        f"Support dates are those known on {as_of().isoformat()}, compared with {day.isoformat()}."
    ]
    if counts.end_of_life:
        findings.append(
            f"{counts.end_of_life} assets have an operating system or database out of support."
        )
    most = [f"{name} ({number})" for name, number in list(counts.gaps.items())[:_NAMED]]
    if most:
        findings.append(f"Most often missing for a plan: {', '.join(most)}.")
    if counts.readiness is not None:
        findings.append(
            f"Of the attributes that a migration is decided by, {counts.readiness:.0%} are known; "
            "people have to be asked for the rest."
        )
    findings.extend(
        f"{number} servers are not in {name}, because it requires what they lack or they are "
        f"nothing to migrate; see {name}-left-out.csv."
        for name, number in exports.left_out.items()
    )
    findings.extend(
        f"{number} servers are in {name} with a warning; see {name}-warnings.csv."
        for name, number in exports.warned.items()
    )
    return StrategyResult(
        assets=counts.assets,
        by_strategy=counts.by_strategy,
        end_of_life=counts.end_of_life,
        mean_technical_debt=counts.mean_debt,
        gaps=counts.gaps,
        readiness=counts.readiness,
        unknown_attributes=counts.unknown_attributes,
        findings=findings,
        summary=f"{counts.assets} assets: {listed}. {plan.summary}".strip(),
    )


def _summary(result: StrategyResult, day: dt.date) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [("Assets", result.assets), ("As of", day.isoformat())]
    rows += [(f"Strategy: {name}", number) for name, number in result.by_strategy.items()]
    rows += [
        ("Out of support", result.end_of_life),
        ("Mean technical debt (0 to 100)", result.mean_technical_debt),
    ]
    rows += [(f"Missing: {name}", number) for name, number in result.gaps.items()]
    rows.append((f"Readiness: known share of {len(ATTRIBUTES)} attributes", result.readiness))
    rows += [(f"Ask for: {name}", number) for name, number in result.unknown_attributes.items()]
    return rows
