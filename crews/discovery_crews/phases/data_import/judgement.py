"""What the import crew is asked, and what it may answer.

Three agents look at one aspect each. An answer names observations by id and grades them, so it
can be checked completely; what nobody mentions keeps the grade that rules give it, so an empty
answer agrees with the rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .anomalies import Severity
from .observations import Aspect, Observation


class Grade(BaseModel):
    """One observation as an agent sees it."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(description="id of an observation, e.g. q3")
    severity: Severity = Field(description="info, warning or error")
    comment: str = Field(default="", max_length=300, description="what to do about it, if anything")


class Judgement(BaseModel):
    """An agent's answer about its aspect."""

    model_config = ConfigDict(extra="forbid")

    grades: list[Grade] = Field(default_factory=list, max_length=10_000)
    summary: str = Field(
        default="", max_length=600, description="one or two sentences for the analyst"
    )


def about(aspect: Aspect, observations: Sequence[Observation]) -> list[Observation]:
    """The observations of one aspect."""
    return [entry for entry in observations if entry.aspect == aspect]


def check(aspect: Aspect, observations: Sequence[Observation], answer: object) -> Judgement:
    """The answer as a judgement. Raises ValueError saying what is wrong with it."""
    try:
        judgement = Judgement.model_validate(answer)
    except ValidationError as error:
        raise ValueError(_first_problem(error)) from error
    known = {entry.id for entry in about(aspect, observations)}
    unknown = sorted({grade.id for grade in judgement.grades} - known)
    if unknown:
        raise ValueError(f"no such observation: {', '.join(unknown)}; known: {sorted(known)}")
    judgement.summary = judgement.summary.strip() or recommend(aspect, observations)["summary"]
    return judgement


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"])
    return f"{place}: {problem['msg']}"


def recommend(aspect: Aspect, observations: Sequence[Observation]) -> dict[str, Any]:
    """The answer that rules give."""
    chosen = about(aspect, observations)
    errors = sum(1 for entry in chosen if entry.suggested == "error")
    warnings = sum(1 for entry in chosen if entry.suggested == "warning")
    title = {"schema": "Structure", "quality": "Quality", "anomaly": "Anomalies"}[aspect]
    summary = f"{title}: " + (
        f"{errors} errors, {warnings} to look at." if errors or warnings else "nothing unusual."
    )
    return {
        "grades": [{"id": entry.id, "severity": entry.suggested} for entry in chosen],
        "summary": summary,
    }


def findings(observations: Sequence[Observation], judgements: Sequence[Judgement]) -> list[str]:
    """Sentences for people, errors first: facts by code, grades and comments by agents."""
    grades = {grade.id: grade for judgement in judgements for grade in judgement.grades}
    order = {"error": 0, "warning": 1, "info": 2}
    graded: list[tuple[int, int, str]] = []
    for position, entry in enumerate(observations):
        grade = grades.get(entry.id)
        severity = grade.severity if grade else entry.suggested
        comment = f" {grade.comment.strip()}" if grade and grade.comment.strip() else ""
        place = f"{entry.column}: " if entry.column else ""
        graded.append((order[severity], position, f"[{severity}] {place}{entry.fact}{comment}"))
    return [text for _, _, text in sorted(graded)]
