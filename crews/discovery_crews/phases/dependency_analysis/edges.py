"""Dependencies as data: what was read, what it became, and how sure it is.

Nothing is invented: an edge exists only with the rows, the column and the text that it was read
from, and an end that nobody can identify stays as the text that it was.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["depends_on", "connects_to", "runs_on", "member_of", "in_cluster"]
KINDS: dict[Kind, str] = {
    "depends_on": "named as a dependency by the source",
    "connects_to": "observed to connect",
    "runs_on": "runs on that host or server",
    "member_of": "is part of that application",
    "in_cluster": "belongs to that cluster",
}
# What a kind of evidence is worth; a connection that was seen often is worth more.
CONFIDENCE: dict[str, float] = {
    "application_dependency_row": 0.95,
    "dependency_column": 0.9,
    "hosting_column": 0.95,
    "database_host": 0.8,
    "application_column": 0.85,
    "connection_table": 0.6,
    "relation_table": 0.9,
}
# another flow of the engagement has found it, as sure as it was there
OTHER_FLOW = "other_flow"
_OFTEN, _SEEN_OFTEN = 10, 0.9
JUDGED = 0.8
MOST_EVIDENCE = 10


@dataclass(frozen=True)
class Mention:
    """One statement of the source: `from_text` (or an asset's identity) names `to_text`.

    `rows` are the first source rows that say so, `times` how many do. `…_instead` are other texts
    of the same rows for the same end, such as an address beside a name. `place` is the table of the
    rows where there are several, `sure` how sure another flow was.
    """

    kind: Kind
    evidence: str
    to_text: str
    column: str
    rows: tuple[int, ...]
    times: int = 1
    from_identity: str | None = None
    from_text: str = ""
    protocol: str | None = None
    port: int | None = None
    from_instead: tuple[str, ...] = ()
    to_instead: tuple[str, ...] = ()
    place: str = ""
    sure: float | None = None


@dataclass(frozen=True)
class Node:
    """An end of an edge: an asset, or something named that the inventory does not hold."""

    key: str
    name: str
    kind: str
    in_inventory: bool


@dataclass
class Edge:
    """A dependency. `target` is None where nobody can tell what `to_text` is."""

    source: Node
    target: Node | None
    to_text: str
    kind: Kind
    protocol: str | None
    port: int | None
    confidence: float
    evidence: list[dict[str, object]] = field(default_factory=list)
    observations: int = 0
    candidates: tuple[str, ...] = ()

    @property
    def resolved(self) -> bool:
        """Whether it is known what both ends are."""
        return self.target is not None and self.source.kind != "unknown"

    @property
    def identity(self) -> tuple[str, str, str, str, int]:
        """Mentions of the same edge have the same; it also orders edges."""
        target = self.target.key if self.target else f"?{self.to_text.lower()}"
        return (self.source.key, target, self.kind, self.protocol or "", self.port or 0)


def confidence(mention: Mention) -> float:
    """How sure a mention makes an edge."""
    if mention.sure is not None:
        return mention.sure
    if mention.evidence == "connection_table" and mention.times >= _OFTEN:
        return _SEEN_OFTEN
    return CONFIDENCE[mention.evidence]
