"""What the dependency crew is asked, and what it may answer.

It decides what code cannot: which of several assets an ambiguous name means, which kinds of edges
make assets move together, and which much-needed nodes are services that everybody shares. It can
add no edge, and an ambiguous end can only become one of its candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .edges import KINDS, Edge, Kind
from .graph import JOINING
from .resolve import Names

MOST_SHOWN = 200


class ResolvedEnd(BaseModel):
    """What an ambiguous name means."""

    model_config = ConfigDict(extra="forbid")

    end: str = Field(description="id of an ambiguous end, e.g. a3")
    asset: str | None = Field(description="one of its candidates, or null for none of them")
    reason: str = Field(default="", max_length=300)


class DependencyPlan(BaseModel):
    """The crew's answer."""

    model_config = ConfigDict(extra="forbid")

    ends: list[ResolvedEnd] = Field(default_factory=list, max_length=20_000)
    joining_kinds: list[Kind] | None = Field(
        default=None,
        max_length=len(KINDS),
        description="kinds of edges that make assets move together; leave out for the usual",
    )
    shared_services: list[str] | None = Field(
        default=None,
        max_length=1000,
        description="hubs that do not join groups; leave out to take all that were found",
    )
    summary: str = Field(default="", max_length=600)


@dataclass(frozen=True)
class Questions:
    """What is open: ambiguous edges by id, and hubs with how many need them."""

    ambiguous: dict[str, Edge]
    hubs: dict[str, int]
    names: Names

    @classmethod
    def of(cls, edges: Sequence[Edge], hubs: dict[str, int], names: Names) -> Questions:
        """The questions that these edges leave."""
        open_ends = [edge for edge in edges if edge.target is None and edge.candidates]
        ambiguous = {f"a{number}": edge for number, edge in enumerate(open_ends, start=1)}
        return cls(ambiguous, hubs, names)

    def shown_ends(self) -> list[dict[str, Any]]:
        """The ambiguous ends for the agent."""
        return [
            {
                "end": key,
                "from": edge.source.name,
                "kind": edge.kind,
                "text": edge.to_text[:120],
                "candidates": [
                    {"asset": other, "type": self.names.nodes[other].kind,
                     "known_as": self.names.known_as[other][:5]}
                    for other in edge.candidates
                ],
            }
            for key, edge in list(self.ambiguous.items())[:MOST_SHOWN]
        ]  # fmt: skip

    def shown_hubs(self) -> list[dict[str, Any]]:
        """The hubs for the agent."""
        return [
            {"node": key, "name": self.name_of(key), "needed_by": number}
            for key, number in list(self.hubs.items())[:MOST_SHOWN]
        ]

    def name_of(self, key: str) -> str:
        """What a node is called."""
        return self.names.nodes[key].name if key in self.names.nodes else key


def check(questions: Questions, answer: object) -> DependencyPlan:
    """The answer as a plan, filled up with what is usual.

    Raises ValueError saying what is wrong with it.
    """
    try:
        plan = DependencyPlan.model_validate(answer)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise ValueError(f"{place}: {problem['msg']}") from error
    seen: set[str] = set()
    for entry in plan.ends:
        edge = questions.ambiguous.get(entry.end)
        if edge is None:
            raise ValueError(f"no such ambiguous end: {entry.end!r}")
        if entry.end in seen:
            raise ValueError(f"{entry.end!r} is there twice")
        if entry.asset is not None and entry.asset not in edge.candidates:
            raise ValueError(
                f"{entry.end!r}: {entry.asset!r} is not one of {list(edge.candidates)}"
            )
        seen.add(entry.end)
    unknown = [key for key in plan.shared_services or () if key not in questions.hubs]
    if unknown:
        raise ValueError(f"not among the hubs: {unknown}")
    usual = recommend(questions)
    if plan.joining_kinds is None:
        plan.joining_kinds = usual["joining_kinds"]
    if plan.shared_services is None:
        plan.shared_services = usual["shared_services"]
    return plan


def recommend(questions: Questions) -> dict[str, Any]:
    """What rules say: leave ambiguous ends open, take every hub for a shared service."""
    return {
        "ends": [],
        "joining_kinds": list(JOINING),
        "shared_services": list(questions.hubs),
        "summary": "",
    }
