"""What the inventory crew is asked, and what it may answer.

Units of bare numbers, the keys that tell assets apart, and the rules for classes: each a choice
from a closed list with evidence measured over all rows.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from discovery_crews.mapping.amounts import judged_unit
from discovery_crews.tables.units import canonical_unit, convertible, units_like
from discovery_crews.target_schema import TargetField

from .evidence import Evidence, KeyEvidence, UnitEvidence
from .plan import ASSET_TYPES, CLASS_RULES, NAME_AND_IP, InventoryPlan

_MANY = 0.05
# of identifiers, more is shared before they are taken for something else's: the rows that share one
# are told apart by what else is known of them
_FEW = 6
_MANY_IDENTIFIERS = 0.25
_IDENTIFIERS = ("serial_number", "asset_id")


class UnitChoice(BaseModel):
    """The unit of a column whose numbers carry none."""

    model_config = ConfigDict(extra="forbid")

    column: str
    unit: str = Field(description="one of the units offered for the column")
    reason: str = Field(default="", max_length=300)


class InventoryChoice(BaseModel):
    """The crew's answer."""

    model_config = ConfigDict(extra="forbid")

    units: list[UnitChoice] = Field(default_factory=list, max_length=5000)
    identity_keys: list[str] | None = Field(
        default=None,
        max_length=20,
        description="fields that tell assets apart, of those offered; leave out for all usable",
    )
    class_rules: list[str] | None = Field(
        default=None, max_length=20, description="rules for asset classes; leave out for all"
    )
    default_type: str = Field(default="unknown", description="class where no rule applies")
    summary: str = Field(
        default="", max_length=600, description="one or two sentences for the analyst"
    )


def unit_questions(evidence: Evidence) -> list[dict[str, Any]]:
    """For a tool: bare numbers, and the units that they may be in."""
    return [
        {**asdict(entry), "units_offered": units_like(entry.target_unit)}
        for entry in evidence.units
    ]


def key_questions(evidence: Evidence) -> list[dict[str, Any]]:
    """For a tool: the keys that are mapped, strongest first, with what they merge and split."""
    return [{**asdict(entry), "rows": evidence.rows} for entry in evidence.keys]


def class_questions(evidence: Evidence) -> list[dict[str, Any]]:
    """For a tool: the class rules, with the rows that each would put into a class."""
    return [
        {"rule": rule, "meaning": meaning, "rows_by_class": evidence.classes.get(rule, {})}
        for rule, meaning in CLASS_RULES.items()
    ]


def check(evidence: Evidence, answer: object) -> InventoryPlan:
    """The answer as a plan; what it leaves open is as recommended.

    Raises ValueError saying what is wrong with it.
    """
    try:
        choice = InventoryChoice.model_validate(answer)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise ValueError(f"{place}: {problem['msg']}") from error
    usual = recommend(evidence)
    units = {entry["column"]: entry["unit"] for entry in usual["units"]}
    reasons = {entry["column"]: entry["reason"] for entry in usual["units"]}
    units |= _check_units(evidence, choice)
    reasons |= {entry.column: entry.reason for entry in choice.units}
    keys = _check_keys(evidence, choice, usual["identity_keys"])
    named_rules = usual["class_rules"] if choice.class_rules is None else choice.class_rules
    if unknown := [rule for rule in named_rules if rule not in CLASS_RULES]:
        raise ValueError(f"class rules {unknown} do not exist; known: {list(CLASS_RULES)}")
    rules = tuple(rule for rule in CLASS_RULES if rule in named_rules)
    if choice.default_type not in ASSET_TYPES:
        raise ValueError(f"default_type must be one of {list(ASSET_TYPES)}")
    summary = choice.summary.strip() or usual["summary"]
    return InventoryPlan(
        identity_keys=keys,
        class_rules=rules,
        default_type=choice.default_type,
        units=units,
        reasons=reasons,
        summary=summary,
    )


def _check_keys(evidence: Evidence, choice: InventoryChoice, usual: list[str]) -> tuple[str, ...]:
    """The chosen keys by strength, whatever order they were named in."""
    offered = [entry.field for entry in evidence.keys]
    named = usual if choice.identity_keys is None else choice.identity_keys
    if unknown := [key for key in named if key not in offered]:
        raise ValueError(f"identity keys {unknown} are not offered; offered: {offered}")
    if offered and not named:
        raise ValueError(f"choose at least one identity key of {offered}")
    return tuple(key for key in offered if key in named)


def _check_units(evidence: Evidence, choice: InventoryChoice) -> dict[str, str]:
    questions = {entry.column: entry for entry in evidence.units}
    units: dict[str, str] = {}
    for entry in choice.units:
        question = questions.get(entry.column)
        if question is None:
            raise ValueError(
                f"column {entry.column!r}: its unit is known or not needed; asked: "
                f"{list(questions)}"
            )
        unit = canonical_unit(entry.unit) or (entry.unit if entry.unit == "fraction" else None)
        if unit is None or not convertible(unit, question.target_unit):
            raise ValueError(
                f"{entry.column!r}: {entry.unit!r} is not one of {units_like(question.target_unit)}"
            )
        units[entry.column] = unit
    return units


def recommend(evidence: Evidence) -> dict[str, Any]:
    """The answer that rules give."""
    units = [
        {"column": entry.column, "unit": unit, "reason": reason}
        for entry in evidence.units
        for unit, reason in [_unit_of(entry)]
    ]
    usable = [entry.field for entry in evidence.keys if _tells_apart(entry)]
    names = [entry.field for entry in evidence.keys if entry.field in ("asset_name", "hostname")]
    if names and names[-1] in usable:
        # where names do, the address with them would only part a machine that changed its own
        usable = [key for key in usable if key != NAME_AND_IP]
    keys = usable or [entry.field for entry in evidence.keys]
    left_out = [
        entry.field
        for entry in evidence.keys
        if entry.field not in keys and entry.field != NAME_AND_IP
    ]
    summary = f"Assets are told apart by {', '.join(keys) or 'nothing but their row'}."
    if left_out:
        summary += f" Not by {', '.join(left_out)}: shared by assets of different names."
    return {
        "units": units,
        "identity_keys": keys,
        "class_rules": list(CLASS_RULES),
        "default_type": "unknown",
        "summary": summary,
    }


def _tells_apart(entry: KeyEvidence) -> bool:
    most = _MANY * entry.filled
    if entry.field in _IDENTIFIERS:
        most = max(_FEW, _MANY_IDENTIFIERS * entry.filled)
    elif entry.field == "fqdn":
        most = max(2, most)
    if entry.merges > most:
        return False
    # a number that is new on every row, though rows share their names, only counts rows
    counts_rows = (
        entry.counts and entry.distinct == entry.filled and entry.splits > _MANY * entry.filled
    )
    return not (entry.field == "asset_id" and counts_rows)


def _unit_of(entry: UnitEvidence) -> tuple[str, str]:
    target = TargetField(name=entry.target, type="number", unit=entry.target_unit)
    return judged_unit(target, entry.median, entry.maximum)
