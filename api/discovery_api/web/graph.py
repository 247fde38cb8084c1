"""Draws dependencies as SVG: one circle of nodes per group that should move together."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from ..routes.results import Edge, Graph, Node

MOST_NODES = 60
_STEP = 30


def parts_of(graph: Graph) -> list[tuple[list[Node], list[Edge]]]:
    """What hangs together, the largest part first."""
    nodes = {node.id: node for node in graph.nodes}
    near: dict[str, set[str]] = defaultdict(set)
    for edge in graph.edges:
        near[edge.source].add(edge.target)
        near[edge.target].add(edge.source)
    left, found = set(nodes), []
    while left:
        part, frontier = set(), [min(left)]
        while frontier:
            here = frontier.pop()
            if here in part:
                continue
            part.add(here)
            frontier += near[here] - part
        left -= part
        found.append(
            (
                sorted((nodes[key] for key in part), key=lambda node: node.name),
                [edge for edge in graph.edges if edge.source in part],
            )
        )
    return sorted(found, key=lambda entry: (-len(entry[0]), entry[0][0].name))


def drawing(nodes: list[Node], edges: list[Edge], title: str) -> Markup:
    """One part as a picture; empty where it has too many nodes to be read."""
    if len(nodes) > MOST_NODES:
        return Markup("")
    radius = max(70.0, len(nodes) * _STEP / (2 * math.pi))
    width, height = 2 * radius + 320, 2 * radius + 60
    place = {
        node.id: (
            width / 2 + radius * math.cos(2 * math.pi * number / len(nodes)),
            height / 2 + radius * math.sin(2 * math.pi * number / len(nodes)),
        )
        for number, node in enumerate(nodes)
    }
    lines = [
        Markup('<line class="edge" x1="{:.0f}" y1="{:.0f}" x2="{:.0f}" y2="{:.0f}"/>').format(
            *place[edge.source], *place[edge.target]
        )
        for edge in edges
    ]
    dots = []
    for node in nodes:
        x, y = place[node.id]
        right = x >= width / 2
        kind = "node" if node.in_inventory else "node outside"
        dots.append(
            Markup(
                '<circle class="{}" cx="{:.0f}" cy="{:.0f}" r="6"/>'
                '<text class="label" x="{:.0f}" y="{:.0f}" text-anchor="{}">{}</text>'
            ).format(
                kind,
                x,
                y,
                x + (10 if right else -10),
                y + 4,
                "start" if right else "end",
                node.name[:22],
            )
        )
    told = f"{title}: {len(nodes)} nodes, {len(edges)} dependencies"
    return Markup(
        '<svg class="graph" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}{}</svg>'
    ).format(width, height, told, Markup("").join(lines), Markup("").join(dots))
