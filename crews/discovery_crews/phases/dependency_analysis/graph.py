"""Cycles, groups that should move together, and nodes that hold everything together.

Iterative algorithms, because inventories have chains longer than Python's recursion goes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from .edges import Edge, Kind

DIRECTED: frozenset[Kind] = frozenset({"depends_on", "connects_to"})
# a host or a cluster is shared by what has nothing to do with each other
JOINING: tuple[Kind, ...] = ("depends_on", "connects_to", "member_of")
_HUB_AT_LEAST, _HUB_SHARE = 10, 0.2
_TRIED, _STILL_WHOLE = 10, 0.9


def cycles(edges: Iterable[Edge]) -> list[list[str]]:
    """Sets of nodes that need each other in a circle, each sorted (Tarjan 1972)."""
    following: dict[str, list[str]] = defaultdict(list)
    for edge in edges:
        if edge.kind in DIRECTED and edge.target is not None:
            following[edge.source.key].append(edge.target.key)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    found: list[list[str]] = []
    for root in sorted(following):
        if root in index:
            continue
        work = [(root, iter(following[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, rest = work[-1]
            for other in rest:
                if other not in index:
                    index[other] = low[other] = len(index)
                    stack.append(other)
                    on_stack.add(other)
                    work.append((other, iter(following.get(other, ()))))
                    break
                if other in on_stack:
                    low[node] = min(low[node], index[other])
            else:
                work.pop()
                if work:
                    parent = work[-1][0]
                    low[parent] = min(low[parent], low[node])
                if low[node] == index[node]:
                    _close(node, stack, on_stack, found)
    return sorted(found)


def _close(node: str, stack: list[str], on_stack: set[str], found: list[list[str]]) -> None:
    """Take a finished component from the stack; one of a single node is no cycle."""
    component: list[str] = []
    while True:
        other = stack.pop()
        on_stack.discard(other)
        component.append(other)
        if other == node:
            break
    if len(component) > 1:
        found.append(sorted(component))


def neighbours(edges: Iterable[Edge], kinds: Iterable[Kind]) -> dict[str, set[str]]:
    """Who is joined to whom by edges of these kinds, in both directions.

    What is not in the inventory joins nobody, but for an application that assets say they are of.
    """
    wanted = set(kinds)
    found: dict[str, set[str]] = defaultdict(set)
    for edge in edges:
        if edge.kind not in wanted or edge.target is None:
            continue
        if all(
            node.in_inventory or node.kind == "application" for node in (edge.source, edge.target)
        ):
            found[edge.source.key].add(edge.target.key)
            found[edge.target.key].add(edge.source.key)
    return found


def hubs(edges: Sequence[Edge], assets: int) -> dict[str, int]:
    """Nodes that very many others need or that connect to very many, with how many.

    DNS and directories are the first, backup and monitoring the second.
    """
    needed: dict[str, set[str]] = defaultdict(set)
    for edge in edges:
        if edge.kind in DIRECTED and edge.target is not None:
            needed[edge.target.key].add(edge.source.key)
        if edge.kind == "connects_to" and edge.target is not None:
            needed[edge.source.key].add(edge.target.key)
    least = max(_HUB_AT_LEAST, int(assets * _HUB_SHARE))
    many = {key: len(others) for key, others in needed.items() if len(others) >= least}
    return dict(sorted(many.items(), key=lambda entry: (-entry[1], entry[0])))


def groups(edges: Iterable[Edge], kinds: Iterable[Kind], shared: Iterable[str]) -> list[list[str]]:
    """Connected nodes without the shared services, the largest group first; none of one node."""
    joined = neighbours(edges, kinds)
    left_out = set(shared)
    seen: set[str] = set()
    found: list[list[str]] = []
    for start in sorted(joined):
        if start in seen or start in left_out:
            continue
        component, queue = [], [start]
        seen.add(start)
        while queue:
            node = queue.pop()
            component.append(node)
            for other in joined[node]:
                if other not in seen and other not in left_out:
                    seen.add(other)
                    queue.append(other)
        if len(component) > 1:
            found.append(sorted(component))
    return sorted(found, key=lambda group: (-len(group), group[0]))


def splitters(
    edges: Sequence[Edge], kinds: Sequence[Kind], shared: Iterable[str], group: Sequence[str]
) -> list[str]:
    """Nodes of a group without which it falls apart, the one that splits it best first.

    Only the most joined nodes are tried; one counts that leaves no part with more than nine in ten.
    """
    joined = neighbours(edges, kinds)
    members, left_out = set(group), set(shared)
    found: list[tuple[int, str]] = []
    for key in sorted(group, key=lambda node: (-len(joined[node]), node))[:_TRIED]:
        parts = groups(edges, kinds, {*left_out, key})
        largest = max((len(part) for part in parts if part[0] in members), default=0)
        if largest <= _STILL_WHOLE * len(group):
            found.append((largest, key))
    return [key for _, key in sorted(found)]
