"""Charts as SVG, made here: no script, no style attribute, readable by a screen reader.

Each is a picture of a table that stands beside it; colours come from the style sheet by class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

_ROW, _LABEL, _WIDTH = 26, 190, 560
_MOST = 24


def bars(values: Mapping[str, float], title: str, *, unit: str = "") -> Markup:
    """Horizontal bars, the largest first."""
    rows = sorted(values.items(), key=lambda item: -item[1])[:_MOST]
    if not rows:
        return Markup("")
    top = max(value for _, value in rows) or 1
    space = _WIDTH - _LABEL - 70
    parts = []
    for number, (label, value) in enumerate(rows):
        y = number * _ROW
        width = max(1.0, space * value / top)
        text = f"{value:g}{unit}"
        parts.append(
            Markup(
                '<text class="label" x="{}" y="{}" text-anchor="end">{}</text>'
                '<rect class="bar" x="{}" y="{}" width="{:.1f}" height="{}" rx="3"/>'
                '<text class="value" x="{:.1f}" y="{}">{}</text>'
            ).format(
                _LABEL - 8,
                y + 17,
                _cut(label, 26),
                _LABEL,
                y + 4,
                width,
                _ROW - 8,
                _LABEL + width + 6,
                y + 17,
                text,
            )
        )
    return _svg(title, rows, _WIDTH, len(rows) * _ROW, parts)


def histogram(tenths: Sequence[Mapping[str, float]], title: str) -> Markup:
    """Columns per tenth: how many, and how many of them were changed."""
    if not tenths:
        return Markup("")
    top = max(entry["columns"] for entry in tenths) or 1
    parts = []
    for entry in tenths:
        x = 30 + entry["from"] * 500
        height = 140 * entry["columns"] / top
        edited = 140 * entry["edited"] / top
        parts.append(
            Markup(
                '<rect class="bar" x="{:.0f}" y="{:.1f}" width="44" height="{:.1f}"/>'
                '<rect class="bar changed" x="{:.0f}" y="{:.1f}" width="44" height="{:.1f}"/>'
                '<text class="label" x="{:.0f}" y="176" text-anchor="middle">{:.1f}</text>'
            ).format(x, 158 - height, height, x, 158 - edited, edited, x + 22, entry["from"])
        )
    rows = [(f"{entry['from']:.1f} to {entry['to']:.1f}", entry["columns"]) for entry in tenths]
    return _svg(title, rows, 560, 184, parts)


def donut(share: float, title: str) -> Markup:
    """A share of 1 as a ring with its percentage."""
    share = min(1.0, max(0.0, share))
    around = 2 * math.pi * 52
    ring = Markup(
        '<circle class="ring" cx="64" cy="64" r="52"/>'
        '<circle class="ring filled" cx="64" cy="64" r="52" stroke-dasharray="{:.1f} {:.1f}" '
        'transform="rotate(-90 64 64)"/>'
        '<text class="score" x="64" y="72" text-anchor="middle">{:.0f} %</text>'
    ).format(around * share, around, share * 100)
    return _svg(title, [("share", round(share * 100, 1))], 128, 128, [ring], "donut")


def _svg(
    title: str,
    rows: Sequence[tuple[str, float]],
    width: int,
    height: int,
    parts: Sequence[Markup],
    kind: str = "chart",
) -> Markup:
    told = "; ".join(f"{label}: {value:g}" for label, value in rows)
    return Markup(
        '<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}: {}">{}</svg>'
    ).format(kind, width, height, title, told, Markup("").join(parts))


def _cut(text: str, length: int) -> Markup:
    text = str(text)
    return escape(text if len(text) <= length else text[: length - 1] + "…")
