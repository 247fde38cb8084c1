"""Finds the asset that a text names, or says that there are several or none.

A name is compared without case. A short name also means the asset whose FQDN begins so, and an FQDN
the asset of that short name, unless that asset is known to be in another domain. Hosts, clusters
and applications that are no assets become nodes of their own, because a migration has to know them;
any other unknown end stays a text.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import duckdb

from discovery_crews.tables.engine import identifier, literal

from .edges import JUDGED, MOST_EVIDENCE, Edge, Kind, Mention, Node, confidence
from .extract import without_port

MOST_CANDIDATES = 5
# whoever connects to itself depends on nobody
_LOOPBACK = re.compile(
    r"^(127\.\d+\.\d+\.\d+|::1|0\.0\.0\.0|::|\*(:\*)?|localhost.*)$", re.IGNORECASE
)
_NAMES = ("name", "hostname", "fqdn", "asset_name", "asset_id", "serial_number")
_OWN_NODES: dict[Kind, str] = {
    "runs_on": "host",
    "in_cluster": "cluster",
    "member_of": "application",
}


class Names:
    """Which assets go by a name, an address or an id."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.known_as: dict[str, list[str]] = {}
        self._exact: dict[str, set[str]] = defaultdict(set)
        self._short: dict[str, set[str]] = defaultdict(set)
        self._in_a_domain: set[str] = set()

    @classmethod
    def of(
        cls, connection: duckdb.DuckDBPyConnection, assets: Path, fields: frozenset[str]
    ) -> Names:
        """The names of an inventory."""
        found = cls()
        named = [name for name in _NAMES if name in fields]
        texts = ", ".join(identifier(name) for name in named)
        addresses = "ip_address" if "ip_address" in fields else "NULL"
        rows = connection.execute(
            f"SELECT identity, name, asset_type, {addresses}, {texts} "  # noqa: S608 - quoted
            f"FROM read_parquet({literal(assets)}) ORDER BY identity"
        ).fetchall()
        for identity, name, kind, ips, *others in rows:
            found.add(Node(identity, name or identity, kind, True), [*others, *(ips or ())])
        return found

    def add(self, node: Node, names: Iterable[str | None]) -> None:
        """An asset with everything that it is called."""
        self.nodes[node.key] = node
        said = [name for name in names if name]
        self.known_as[node.key] = list(dict.fromkeys(said))
        for name in (node.key, *said):
            folded = _folded(name)
            self._exact[folded].add(node.key)
            short, dot, _ = folded.partition(".")
            if dot and short and not short.isdigit() and ":" not in short:
                self._short[short].add(node.key)
                self._in_a_domain.add(node.key)

    def find(self, text: str) -> list[str]:
        """Keys of the assets that `text` may mean, in order; one means that it is known."""
        folded = _folded(text)
        exact = self._exact.get(folded)
        if exact:
            return sorted(exact)
        short, dot, _ = folded.partition(".")
        if not dot:
            return sorted(self._short.get(folded, set()))
        if short.isdigit():
            return []
        return sorted(self._exact.get(short, set()) - self._in_a_domain)

    def find_any(self, texts: Iterable[str]) -> list[str]:
        """What the first text that is known means; several texts are one thing.

        Where that is several assets, a later text may tell which.
        """
        first: list[str] = []
        for text in texts:
            found = self.find(text) or self.find(without_port(text)[0])
            if len(found) == 1 and (not first or found[0] in first):
                return found
            first = first or found
        return first


def _folded(text: str | None) -> str:
    return " ".join((text or "").lower().split()).rstrip(".")


def edges_of(mentions: Iterable[Mention], names: Names) -> list[Edge]:
    """One edge for everything that says the same, with its evidence; none to itself."""
    return merged(_edge(mention, names) for mention in mentions)


def merged(edges: Iterable[Edge]) -> list[Edge]:
    """Edges in order, each once, with the evidence of all of its kind; none to itself."""
    found: dict[tuple[str, str, str, str, int], Edge] = {}
    for edge in edges:
        if edge.target is not None and edge.target.key == edge.source.key:
            continue
        if edge.target is None and _is_itself(edge):
            continue
        known = found.setdefault(edge.identity, edge)
        if known is not edge:
            known.confidence = max(known.confidence, edge.confidence)
            known.observations += edge.observations
            known.evidence = [*known.evidence, *edge.evidence][:MOST_EVIDENCE]
    return [found[key] for key in sorted(found)]


def _is_itself(edge: Edge) -> bool:
    """Whether an unknown end is the machine that connects, or none at all (who only listens)."""
    ends = [edge.to_text] + ([edge.source.name] if edge.source.kind == "unknown" else [])
    return _folded(edge.to_text) == _folded(edge.source.name) or any(
        _LOOPBACK.match(text) for text in ends
    )


def _edge(mention: Mention, names: Names) -> Edge:
    source = _source(mention, names)
    target, candidates = _target(mention, names, source)
    return Edge(
        source=source,
        target=target,
        to_text=mention.to_text,
        kind=mention.kind,
        protocol=mention.protocol,
        port=mention.port,
        confidence=confidence(mention),
        evidence=[
            {
                "evidence": mention.evidence,
                "table": mention.place,
                "column": mention.column,
                "rows": list(mention.rows),
                "text": mention.to_text[:200],
                "also": [list(mention.from_instead), list(mention.to_instead)],
            }
        ],
        observations=mention.times,
        candidates=candidates,
    )


def _source(mention: Mention, names: Names) -> Node:
    if mention.from_identity is not None:
        return names.nodes[mention.from_identity]
    found = names.find_any((mention.from_text, *mention.from_instead))
    if len(found) == 1:
        return names.nodes[found[0]]
    # a peer of a connection may be outside; it is still one end
    return Node(f"unknown:{_folded(mention.from_text)}", mention.from_text, "unknown", False)


def _target(mention: Mention, names: Names, source: Node) -> tuple[Node | None, tuple[str, ...]]:
    own = _OWN_NODES.get(mention.kind)
    named = names.find_any((mention.to_text, *mention.to_instead))
    if named == [source.key]:
        return source, ()
    found = [key for key in named if key != source.key]
    if mention.kind == "member_of":
        found = [key for key in found if names.nodes[key].kind == "application"]
    if mention.kind == "in_cluster":
        found = []
    if len(found) == 1:
        return names.nodes[found[0]], ()
    if found:
        return None, tuple(found[:MOST_CANDIDATES])
    if mention.kind == "runs_on" and mention.evidence == "database_host":
        own = "host"
    if own is not None:
        return Node(f"{own}:{_folded(mention.to_text)}", mention.to_text, own, False), ()
    return None, ()


def choose(edge: Edge, key: str, names: Names) -> Edge:
    """The edge with an ambiguous end decided; the decision is worth less than a plain fact."""
    edge.target = names.nodes[key]
    edge.confidence = round(edge.confidence * JUDGED, 3)
    return edge
