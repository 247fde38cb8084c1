"""Runs field_mapping: the engine proposes, the crew judges the shortlists, code puts together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from discovery_core.wire.protocol import ApprovedMapping
from discovery_core.wire.results import FieldMapping, MappingResult, TargetDescription
from pydantic import TypeAdapter

from discovery_crews.crew_base import ContextTool, CrewOutcome, Step, Submission, run_crew
from discovery_crews.mapping.engine import lesson_key, propose
from discovery_crews.phase import PhaseContext, PhaseOutcome
from discovery_crews.profile import read_profile
from discovery_crews.readers.connections import is_connections
from discovery_crews.tables.units import units_like
from discovery_crews.target_schema import TargetField, TargetSchema, load_schema

from .checks import checked
from .hint import Followed, follow
from .judgement import (
    Doubts,
    MappingDecisions,
    apply_decisions,
    check_decisions,
    check_doubts,
)

CONFIG = Path(__file__).parent / "config"
SUBMIT_DOUBTS = "submit_doubts"
SUBMIT_MAPPING = "submit_mapping"
SHOWN = 300
_SAMPLE = 60
_DESCRIPTION = 300
_ALLOWED = 500
_PROBLEMS = 10
_NO_ASSET: dict[str, Any] = {
    "target": None,
    "role": "primary",
    "transform": None,
    "confidence": 0.9,
    "decided_by": "engine",
    "reason": "The table lists connections: its rows become dependencies, and no assets.",
}


def run(context: PhaseContext) -> PhaseOutcome:
    """Map the columns; see `discovery_crews.phase.RunPhase`."""
    started = time.perf_counter()
    profile = read_profile(context.inputs["profile"])
    schema = load_schema(context.inputs.get("targetSchema"))
    context.progress(None, None, f"comparing {len(profile)} columns with the target fields")
    history = {lesson_key(lesson.header): lesson for lesson in context.mapping_history}
    proposed = propose(profile, schema, history)
    context.progress(None, None, "the crew judges the shortlists")
    outcome = judge(context, proposed, history)
    mappings = apply_decisions(
        proposed, outcome.answers[SUBMIT_MAPPING], outcome.answers[SUBMIT_DOUBTS]
    )
    if is_connections([mapping.column for mapping in mappings]):
        mappings = [mapping.model_copy(update=_NO_ASSET) for mapping in mappings]
    fields = [_described(field) for field in schema.fields]
    followed = follow(context.hint, mappings, fields)
    context.progress(None, None, "reading numbers as proposed")
    mappings, findings = checked(
        context.workdir, context.inputs["records"], profile, followed.mappings, schema
    )
    result = _result(mappings, schema, fields, _about_hint(context.hint, followed), findings)
    artefact = context.workdir / "mappings.json"
    artefact.write_bytes(
        TypeAdapter(list[FieldMapping]).dump_json(mappings, by_alias=True, indent=1)
    )
    outcome.usage.seconds_crew = round(time.perf_counter() - started, 3)
    return PhaseOutcome(result, {"crewMappings": artefact}, outcome.usage)


def judge(
    context: PhaseContext, proposed: list[FieldMapping], history: dict[str, ApprovedMapping]
) -> CrewOutcome:
    """Lets the crew look at the proposals, in a very wide file at the least certain ones.

    Raises what the model's client raises.
    """
    doubts: list[Doubts] = []
    shown = _least_certain(proposed)
    which = "Every column" if len(shown) == len(proposed) else f"The {SHOWN} least certain columns"

    def take_doubts(answer: dict[str, Any]) -> Doubts:
        accepted = check_doubts(proposed, answer)
        doubts[:] = [accepted]
        return accepted

    known = {mapping.column: history.get(lesson_key(mapping.column)) for mapping in proposed}
    steps = [
        Step(
            "pattern_recognizer",
            "recognize_patterns",
            (
                ContextTool(
                    "show_columns",
                    f"{which}, with proposed target and samples.",
                    lambda: [_column(mapping) for mapping in shown],
                ),
            ),
            Submission(
                SUBMIT_DOUBTS,
                "Names the columns whose values contradict the proposal; empty if none.",
                Doubts,
                take_doubts,
                dict,
            ),
        ),
        Step(
            "semantic_matcher",
            "match_fields",
            (
                ContextTool(
                    "show_shortlists",
                    f"{which}, with proposed target and a shortlist of at most five.",
                    lambda: [_shortlist(mapping) for mapping in shown],
                ),
                ContextTool(
                    "show_doubts",
                    "What the pattern recognizer doubts.",
                    lambda: [doubt.model_dump() for answer in doubts for doubt in answer.doubts],
                ),
                ContextTool(
                    "show_history",
                    "What people of this tenant approved before for the same headers.",
                    lambda: [
                        {"column": column, "target": lesson.target, "by": lesson.approved_by}
                        for column, lesson in known.items()
                        if lesson is not None
                    ],
                ),
            ),
            Submission(
                SUBMIT_MAPPING,
                "Takes the columns that are mapped otherwise than proposed. A column that is not "
                "mentioned stays as proposed; an empty list accepts all proposals.",
                MappingDecisions,
                lambda answer: check_decisions(proposed, answer),
                dict,
            ),
        ),
    ]
    inputs = {"phase": "field_mapping", "hint": context.hint or "none"}
    return run_crew(CONFIG, steps, context.llm, inputs=inputs)


def _least_certain(proposed: Sequence[FieldMapping]) -> list[FieldMapping]:
    """As many columns as fit a model's context, in the file's order."""
    doubtful = sorted(range(len(proposed)), key=lambda place: proposed[place].confidence)[:SHOWN]
    return [proposed[place] for place in sorted(doubtful)]


def _column(mapping: FieldMapping) -> dict[str, Any]:
    return {
        "column": mapping.column,
        "proposed": mapping.target,
        "samples": [sample[:_SAMPLE] for sample in mapping.samples],
    }


def _shortlist(mapping: FieldMapping) -> dict[str, Any]:
    return {
        "column": mapping.column,
        "proposed": mapping.target,
        "confidence": mapping.confidence,
        "because": mapping.reason,
        "shortlist": [f"{c.target} ({c.score:.2f})" for c in mapping.candidates],
        "samples": [sample[:_SAMPLE] for sample in mapping.samples[:3]],
    }


def _described(field: TargetField) -> TargetDescription:
    return TargetDescription(
        name=field.name,
        type=field.type,
        unit=field.unit,
        description=field.description[:_DESCRIPTION],
        required=field.required,
        allowed_values=list(field.allowed_values) if len(field.allowed_values) <= _ALLOWED else [],
        transforms=_transforms(field),
    )


def _transforms(field: TargetField) -> list[str]:
    """What may be said of the values of a column that is mapped to the field."""
    if field.type not in ("integer", "number"):
        return []
    units = units_like(field.unit) if field.unit and field.is_measured else []
    possible = [*(f"unit:{unit}" for unit in units), "decimal:comma", "decimal:point"]
    return [*possible, f"times:{field.counted_per}"] if field.counted_per else possible


def _about_hint(hint: str | None, followed: Followed) -> str:
    """What became of the hint, for the summary."""
    if not hint:
        return ""
    told = f" {followed.instructions} instructions of the hint followed."
    if followed.problems:
        told += " Not followed: " + "; ".join(followed.problems[:_PROBLEMS]) + "."
    if not followed.instructions and not followed.problems:
        told = " The hint has no lines such as `Column -> field`; the crew was shown it."
    return told


def _result(
    mappings: Sequence[FieldMapping],
    schema: TargetSchema,
    fields: list[TargetDescription],
    about_hint: str,
    findings: list[str],
) -> MappingResult:
    mapped = {mapping.target for mapping in mappings if mapping.target is not None}
    missing = [f.name for f in schema.fields if f.required and f.name not in mapped]
    by_agent = sum(1 for mapping in mappings if mapping.decided_by == "agent")
    count = sum(1 for mapping in mappings if mapping.target is not None)
    summary = f"{count} of {len(mappings)} columns mapped"
    if by_agent:
        summary += f", {by_agent} of them changed by the crew"
    if missing:
        summary += f"; without a column: {', '.join(missing)}"
    return MappingResult(
        mappings=list(mappings),
        targets=schema.names,
        fields=fields,
        required_unmapped=missing,
        findings=findings,
        summary=summary + "." + about_hint,
    )
