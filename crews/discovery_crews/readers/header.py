"""Headers of two rows: groups above, what is meant of each below ("Memory" over "Total", "Used").

Read as one row, the other would count as an asset or as a title, and columns would lose their
names.
"""

from __future__ import annotations

from collections.abc import Sequence

from .layout import Merge, Start, are_values, find_start
from .presets import is_header_of_preset

_BETWEEN = " / "


def find_header(
    rows: Sequence[Sequence[str]], merged: Sequence[Merge] = ()
) -> tuple[Start, list[str]] | None:
    """Where a table starts, and the texts of its header, of one row or of two.

    `merged` are the merged ranges of a workbook. Of two rows the upper counts as `start.top`.
    """
    start = find_start(rows)
    if start is None:
        return None
    if not is_header_of_preset(rows[start.header]):
        for top in (start.header - 1, start.header):
            if 0 <= top < len(rows) - 1 and (
                cells := _joined(rows, top, merged, found_below=top < start.header)
            ):
                titles = tuple(index for index in start.titles if index < top)
                return Start(top + 1, titles, top), cells
    return start, list(rows[start.header])


def _joined(
    rows: Sequence[Sequence[str]], top: int, merged: Sequence[Merge], *, found_below: bool
) -> list[str] | None:
    """Names of the columns where the rows `top` and below are one header together.

    `found_below` where the lower one has been taken for the header already.
    """
    width = max(len(rows[top]), len(rows[top + 1]))
    upper, lower = (_padded(rows[at], width) for at in (top, top + 1))
    if sum(map(bool, upper)) < 2 or not any(lower) or are_values(lower) or are_values(upper):
        return None
    wide = {column for (r, c), (_, last) in merged if r == top for column in range(c, last + 1)
            if last > c}  # fmt: skip
    tall = {c for (r, c), (bottom, _) in merged if r == top and bottom == top + 1}
    names: list[str] = []
    group, groups, alone = "", 0, 0
    for at in range(width):
        above, below = upper[at], lower[at]
        continued = at + 1 < width and not upper[at + 1] and bool(lower[at + 1])
        if above and below and (continued or at in wide):
            group, groups = above, groups + 1
        elif above and below and not tall:
            return None
        elif above:
            group = above if below else ""
            alone += not below
        elif below and not group and not tall:
            return None
        names.append(_BETWEEN.join(filter(None, (above or (group if below else ""), below))))
    if tall and groups + alone:
        return names
    lowest = [text for text in lower if text]
    if groups > 1 and found_below and len(set(lowest)) < len(lowest):
        return names
    body = _padded(rows[top + 2], width) if len(rows) > top + 2 else []
    named = [at for at in range(width) if upper[at] and not lower[at]]
    return names if groups and named and body and body[named[0]] else None


def _padded(cells: Sequence[str], width: int) -> list[str]:
    return [cell.strip() for cell in cells] + [""] * (width - len(cells))


def header_findings(start: Start, number: int, cells: Sequence[str]) -> list[str]:
    """What to tell about a header of two rows; `number` is that of its lower one."""
    if start.top == start.header:
        return []
    shown = next((cell for cell in cells if _BETWEEN in cell), cells[0])
    joined = f"they were joined, as in {shown[:80]!r}."
    return [f"The header has two rows, {number - 1} and {number}; {joined}"]
