"""Tables of web pages, without regard to whether the page is well formed.

The text is cut at each tag once, so that no page makes the reader go back and forth.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from discovery_core.errors import DiscoveryError, ErrorCode

from .encoding import detect_encoding
from .marked import MarkedTable
from .model import ReadRequest

_MOST_SPAN = 1000
_TAG = re.compile(r"/?[a-zA-Z][a-zA-Z0-9:]{0,20}")
_ATTRIBUTE = re.compile(
    r"""\b(colspan|rowspan|x:num)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE
)
_LONGEST_ATTRIBUTES = 2000
# their text is none of the page's
_SKIPPED = {"script", "style", "head", "select"}
_BREAKS = {"br", "/p", "/div", "/li"}
_ENDS_CELL = {"tr", "/tr", "td", "th", "/td", "/th", "/table", "caption"}
_PASSWORD = re.compile(r"""\btype\s*=\s*["']?password""", re.IGNORECASE)


def read_page(request: ReadRequest) -> list[MarkedTable]:
    """The tables of a page that have rows and columns; those in others are on their own.

    Raises DiscoveryError where there is none, or where the page asks for a password.
    """
    encoding = detect_encoding(request.path, request.name)
    text = request.path.read_text(encoding=encoding.codec, errors="replace")
    tables = _Page(request.limits.max_workbook_cells).read(text)
    useful = [table for table in tables if table.width > 1 and len(table.rows) > 1]
    if not useful or _PASSWORD.search(text):
        raise DiscoveryError(
            ErrorCode.UNSUPPORTED_FORMAT,
            f"{request.name}: this is a web page, not a table; was it a login page that was "
            "saved? Export the inventory as CSV, XLSX or JSON.",
        )
    return useful


def _taken_apart(text: str) -> Iterator[tuple[str, str, str]]:
    """Tags in small letters, what stands in them, and the text behind each."""
    skipped = ""
    for piece in text.split("<"):
        inside, closed, rest = piece.partition(">")
        if skipped == "!--" or piece.startswith("!--"):
            _, ended, rest = piece.partition("-->")
            skipped = "" if ended else "!--"
            if ended:
                yield "", "", rest
            continue
        tag = _name(inside) if closed else ""
        if skipped:
            skipped = "" if tag == f"/{skipped}" else skipped
        elif tag in _SKIPPED:
            skipped = tag
        elif tag or (closed and piece.startswith(("!", "?"))):
            yield tag, inside, rest
        else:
            yield "", "", f"<{piece}"


def _name(inside: str) -> str:
    match = _TAG.match(inside)
    behind = inside[match.end() : match.end() + 1] if match else "?"
    return match[0].lower() if match and (not behind.strip() or behind == "/") else ""


class _Page:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tables: list[MarkedTable] = []
        self._outer: list[tuple[MarkedTable, list[str] | None, str]] = []
        self._cell: list[str] | None = None
        self._attributes = ""

    def read(self, text: str) -> list[MarkedTable]:
        """All tables, in the order in which they begin."""
        for tag, inside, rest in _taken_apart(text):
            self._tag(tag, inside)
            if self._cell is not None:
                self._cell.append(rest)
        while self._outer:
            self._tag("/table", "")
        return self._tables

    def _tag(self, tag: str, inside: str) -> None:
        if tag == "table":
            table = MarkedTable(f"table {len(self._tables) + 1}", self._limit)
            self._tables.append(table)
            self._outer.append((table, self._cell, self._attributes))
            self._cell = None
        elif not self._outer:
            return
        elif tag in _ENDS_CELL:
            self._end_cell()
            if tag == "tr":
                self._outer[-1][0].next_row()
            elif tag in {"td", "th"}:
                self._cell, self._attributes = [], inside[:_LONGEST_ATTRIBUTES]
            elif tag == "/table":
                _, self._cell, self._attributes = self._outer.pop()
        elif tag in _BREAKS and self._cell is not None:
            self._cell.append("\n")

    def _end_cell(self) -> None:
        if self._cell is None:
            return
        given = {
            name.lower(): double or single or bare
            for name, double, single, bare in _ATTRIBUTE.findall(self._attributes)
        }
        # the number behind what Excel shows of it
        text = _plain(given.get("x:num") or "".join(self._cell))
        across, down = (_span(given.get(name, "")) for name in ("colspan", "rowspan"))
        self._outer[-1][0].place(text, across, down)
        self._cell = None


def _plain(text: str) -> str:
    """Text of a cell: references resolved, spaces as they are shown, lines of the page's own."""
    lines = (" ".join(_resolved(line).split()) for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def _resolved(text: str) -> str:
    try:
        plain = html.unescape(text)
    except ValueError:
        # it names a character by thousands of digits
        plain = text
    return plain.encode("utf-8", "replace").decode().replace("\x00", "")


def _span(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 1
    return min(max(number, 1), _MOST_SPAN)
