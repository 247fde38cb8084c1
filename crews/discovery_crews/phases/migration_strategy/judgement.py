"""What the strategy crew is asked, and what it may answer: another strategy for a whole group.

Assets with the same facts form a group. A group can get one of its rule's alternatives, with a
reason; code applies it to all its assets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .rules import Proposal, Strategy

MOST_SHOWN = 200


class GroupChoice(BaseModel):
    """One group's strategy."""

    model_config = ConfigDict(extra="forbid")

    group: str = Field(description="id of a group, e.g. g3")
    strategy: Strategy = Field(description="the proposed strategy or one of its alternatives")
    reason: str = Field(default="", max_length=300)


class StrategyPlan(BaseModel):
    """The crew's answer; groups that it does not name keep what the rules propose."""

    model_config = ConfigDict(extra="forbid")

    choices: list[GroupChoice] = Field(default_factory=list, max_length=20_000)
    summary: str = Field(default="", max_length=600)


@dataclass(frozen=True)
class AssetGroup:
    """Assets with the same facts: how many, examples, and what the rules say."""

    id: str
    number: int
    facts: Mapping[str, Any]
    examples: tuple[str, ...]
    proposal: Proposal

    def shown(self) -> dict[str, Any]:
        """The group for an agent."""
        told = {
            key: str(value)
            for key, value in self.facts.items()
            if value is not None and value is not False and key != "group_id"
        }
        return {
            "group": self.id,
            "assets": self.number,
            "examples": list(self.examples),
            "facts": told,
            "proposed": self.proposal.strategy,
            "alternatives": list(self.proposal.alternatives),
            "reason": self.proposal.reason,
        }


def check(groups: Sequence[AssetGroup], answer: object) -> StrategyPlan:
    """The answer as a plan. Raises ValueError saying what is wrong with it."""
    try:
        plan = StrategyPlan.model_validate(answer)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise ValueError(f"{place}: {problem['msg']}") from error
    known = {group.id: group for group in groups}
    seen: set[str] = set()
    for choice in plan.choices:
        group = known.get(choice.group)
        if group is None:
            raise ValueError(f"no such group: {choice.group!r}")
        if choice.group in seen:
            raise ValueError(f"group {choice.group!r} is there twice")
        allowed = (group.proposal.strategy, *group.proposal.alternatives)
        if choice.strategy not in allowed:
            raise ValueError(f"{choice.group!r}: {choice.strategy!r} is not one of {allowed}")
        if choice.strategy != group.proposal.strategy and not choice.reason.strip():
            raise ValueError(f"{choice.group!r}: say why it gets {choice.strategy!r}")
        seen.add(choice.group)
    return plan


def recommend(groups: Sequence[AssetGroup]) -> dict[str, Any]:
    """What the rules say: every group keeps its proposal."""
    del groups
    return {"choices": [], "summary": ""}
