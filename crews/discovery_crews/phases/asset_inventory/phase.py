"""Runs asset_inventory: gather evidence, let the crew decide, build the records."""

from __future__ import annotations

import time
from pathlib import Path

from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_core.wire.protocol import Usage
from discovery_core.wire.results import FieldMapping, InventoryResult
from pydantic import TypeAdapter, ValidationError

from discovery_crews.crew_base import ContextTool, Step, Submission, run_crew
from discovery_crews.phase import PhaseContext, PhaseOutcome
from discovery_crews.readers.connections import NOT_ASSETS, is_connections
from discovery_crews.tables.engine import connect, count_rows, source_columns
from discovery_crews.target_schema import TargetSchema, builtin_schema, load_schema

from .assets import build_inventory
from .evidence import Evidence, gather, with_separators
from .findings import findings_of
from .judgement import (
    InventoryChoice,
    check,
    class_questions,
    key_questions,
    recommend,
    unit_questions,
)
from .merge import write_nothing
from .plan import InventoryPlan, field_sources

CONFIG = Path(__file__).parent / "config"
_SUBMIT = "submit_inventory_plan"
_MAPPINGS = TypeAdapter(list[FieldMapping])


def run(context: PhaseContext) -> PhaseOutcome:
    """Build the inventory of the approved mappings; see `discovery_crews.phase.RunPhase`."""
    started = time.perf_counter()
    workdir, records = context.workdir, context.inputs["records"]
    with connect(workdir) as connection:
        columns = source_columns(connection, records)
        rows = count_rows(connection, records)
    sources = field_sources(_mappings(context), _schema(context), columns)
    if not sources and is_connections(columns):
        return _of_connections(workdir, rows)
    if not sources:
        raise DiscoveryError(
            ErrorCode.INVALID_MAPPING,
            "No column is mapped to a field, so there is nothing to make an inventory of. Map at "
            "least a name or another identifying column (spec.rerun from field_mapping).",
        )
    context.progress(None, rows, "measuring")
    sources = with_separators(workdir, records, sources)
    evidence = gather(workdir, records, sources, rows)
    context.progress(None, rows, "the crew decides on units, keys and classes")
    submission = Submission(
        name=_SUBMIT,
        description="Hand in units, identity keys and class rules. Ends your task.",
        schema=InventoryChoice,
        check=lambda answer: check(evidence, answer),
        recommend=lambda: recommend(evidence),
    )
    outcome = run_crew(
        CONFIG,
        [Step("inventory_architect", "plan_inventory", _tools(evidence), submission)],
        context.llm,
        inputs={"rows": str(rows), "hint": context.hint or "none"},
    )
    plan: InventoryPlan = outcome.answers[_SUBMIT]
    made, counts = build_inventory(workdir, records, sources, plan, context.progress)
    plan_file = workdir / "plan.json"
    plan_file.write_text(plan.model_dump_json(indent=2), encoding="utf-8")
    outcome.usage.seconds_crew = round(time.perf_counter() - started, 3)
    result = InventoryResult(
        records=counts.records,
        assets=counts.assets,
        duplicates=counts.duplicates,
        by_type=counts.by_type,
        conversion_problems=counts.conversion_problems,
        findings=findings_of(sources, plan, counts),
        summary=f"{counts.assets} assets from {counts.records} rows. {plan.summary}",
    )
    artefacts = {"inventory": made.assets, "plan": plan_file, "problems": made.problems}
    return PhaseOutcome(result, artefacts, outcome.usage, records=made.records)


def _of_connections(workdir: Path, rows: int) -> PhaseOutcome:
    """No asset: the rows are dependencies, for the phase after this one."""
    artefacts, plan = write_nothing(workdir), workdir / "plan.json"
    plan.write_text(InventoryPlan(identity_keys=()).model_dump_json(indent=2), encoding="utf-8")
    result = InventoryResult(
        records=0,
        assets=0,
        duplicates=0,
        findings=[f"{rows} rows. {NOT_ASSETS}"],
        summary=f"{rows} connections and no assets.",
    )
    return PhaseOutcome(result, artefacts | {"plan": plan}, Usage())


def _tools(evidence: Evidence) -> tuple[ContextTool, ...]:
    return (
        ContextTool(
            "list_unit_questions",
            "Columns whose numbers carry no unit, with their range and the units offered.",
            lambda: unit_questions(evidence),
        ),
        ContextTool(
            "list_identity_keys",
            "Fields that can tell assets apart, strongest first. merges: rows sharing a value "
            "with a row of another name; splits: rows sharing their name but not the value.",
            lambda: key_questions(evidence),
        ),
        ContextTool(
            "list_class_rules",
            "Rules for asset classes, with the rows that each would put into a class.",
            lambda: class_questions(evidence),
        ),
    )


def _mappings(context: PhaseContext) -> list[FieldMapping]:
    path = context.inputs["mappings"]
    try:
        return _MAPPINGS.validate_json(path.read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"]) or "document"
        raise DiscoveryError(
            ErrorCode.INVALID_MAPPING,
            f"The approved mappings cannot be read: {place}: {problem['msg']}. They are a JSON "
            "list of objects with column, target, confidence and reason.",
        ) from error


def _schema(context: PhaseContext) -> TargetSchema:
    path = context.inputs.get("targetSchema")
    return builtin_schema() if path is None else load_schema(path)
