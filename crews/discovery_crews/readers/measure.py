"""Measures a workbook's XML before a parser that lays sheets out in memory sees it.

That parser makes a dense table from the first to the last cell with a value, copies a shared
text into each cell that names it, and believes some counts: a few bytes can ask for terabytes,
which ends the process. So every part is parsed here as a stream with the same rules, and only
what was measured is written into the copy that the parser is given.
"""

from __future__ import annotations

import collections
import functools
import re
import zipfile
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO
from xml.parsers import expat

from discovery_core.errors import DiscoveryError, ErrorCode

from .archive import expansion_of, open_archive, unpack
from .model import ReadRequest

LAST_ROW, LAST_COLUMN = 1_048_576, 16_384
_CELL = re.compile("([A-Za-z]{1,3})([0-9]{1,7})$")
_ROW = re.compile("[A-Za-z]{0,3}([0-9]{1,7})$")
_BOM = b"\xef\xbb\xbf"
_PARTS = (".xml", ".rels")
# What costs memory by its number, apart from cells and shared texts.
_LISTED = frozenset("xf numFmt definedName mergeCell sheet Relationship Override".split())


class _RefusedError(Exception):
    """What is wrong with a part."""


class _TooMuchError(_RefusedError):
    """A part is sound, but too large."""


class _Measures:
    """What all parts of a workbook amount to."""

    def __init__(self, most_cells: int) -> None:
        self.most_cells = most_cells
        self.sheets = 0
        self.named_sheets = 0
        self.listed = 0
        self.references = array("I")
        self.texts: list[array[int]] = []

    def refer(self, index: int) -> None:
        """Count a cell that names a shared text. Beyond the limit there can be no such text."""
        if 0 <= index < self.most_cells:
            missing = index + 1 - len(self.references)
            if missing > 0:
                self.references.extend([0] * max(missing, min(len(self.references), 65536)))
            self.references[index] += 1

    def characters(self) -> int:
        """How long all shared texts are, each as often as a cell names it.

        Parsers do not agree whether an empty text has a number, so the larger sum counts.
        """
        return max(
            (sum(map(int.__mul__, self.references, lengths)) for lengths in self.texts), default=0
        )


class _Part:
    """One part as it is parsed: where its cells are, and how much else it holds."""

    def __init__(self, measures: _Measures) -> None:
        self.all = measures
        self.row = self.column = self.at_row = 0
        self.cells = self.last_row = self.last_column = 0
        self.is_sheet = self.in_cell = self.shared = self.phonetic = self.has_text = False
        self.text: list[str] = []
        self.lengths: tuple[array[int], array[int]] | None = None
        self.begun = 0
        self.parser = expat.ParserCreate(encoding="iso-8859-1")
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.StartDoctypeDeclHandler = _no_doctype

    def feed(self, data: bytes, *, last: bool = False) -> None:
        """Parse on. Raises _RefusedError and ExpatError."""
        self.parser.Parse(data, last)

    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        if ":" in name:
            name = name.rpartition(":")[2]
        if self.is_sheet:
            if name == "c":
                self._cell(attributes)
            elif self.in_cell and name in {"v", "is"}:
                self._value(name)
            elif name == "row" and "r" in attributes:
                self.row = _row(attributes["r"]) - 1
        elif self.lengths is not None:
            self._text(name)
        elif name == "sheetData":
            self.is_sheet = True
            self.all.sheets += 1
        elif name == "sst":
            self._shared_texts(attributes.get("uniqueCount", ""))
        if name in _LISTED:
            self.all.listed += 1
            self.all.named_sheets += name == "sheet"
            if self.all.listed > self.all.most_cells:
                raise _TooMuchError(
                    f"more than {self.all.most_cells} formats, names or merged ranges"
                )

    def _end(self, name: str) -> None:
        if ":" in name:
            name = name.rpartition(":")[2]
        if self.is_sheet:
            if name == "v" and self.shared and self.text:
                index = "".join(self.text).strip()
                self.all.refer(int(index) if index.isascii() and index.isdigit() else -1)
                self.parser.CharacterDataHandler = None
            elif name == "c" and self.in_cell:
                self.column += 1
                self.in_cell = False
            elif name == "row":
                self.row += 1
                self.column = 0
        elif self.lengths is not None:
            if name == "si":
                for lengths in self.lengths[: 1 + self.has_text]:
                    lengths.append(self.parser.CurrentByteIndex - self.begun)
                if len(self.lengths[0]) > self.all.most_cells:
                    raise _TooMuchError(f"more than {self.all.most_cells} shared texts")
            elif name == "rPh":
                self.phonetic = False

    def _text(self, name: str) -> None:
        """See into a shared text: whether there is any."""
        if name == "si":
            self.begun, self.has_text = self.parser.CurrentByteIndex, False
        elif name == "rPh":
            self.phonetic = True
        elif name == "r" or (name == "t" and not self.phonetic):
            self.has_text = True

    def _cell(self, attributes: Mapping[str, str]) -> None:
        reference = attributes.get("r")
        self.in_cell, self.at_row = True, self.row
        if reference is not None:
            found = _CELL.match(reference)
            if not found:
                raise _RefusedError(
                    f"a cell says that it is at {reference[:40]!r}, which is no place"
                )
            self.column = _column(found[1]) - 1
            self.at_row = int(found[2]) - 1
        if not (0 <= self.at_row < LAST_ROW and self.column < LAST_COLUMN):
            raise _RefusedError(
                f"a cell is at row {self.at_row + 1}, column {self.column + 1}, where no sheet "
                "reaches"
            )
        self.shared = attributes.get("t") == "s"

    def _value(self, name: str) -> None:
        self.cells += 1
        if self.at_row >= self.last_row or self.column >= self.last_column:
            self.last_row = max(self.last_row, self.at_row + 1)
            self.last_column = max(self.last_column, self.column + 1)
        limit = self.all.most_cells
        if self.last_row * self.last_column > limit or self.cells > limit:
            raise _TooMuchError(
                f"a sheet reaches to row {self.last_row}, column {self.last_column}, which is "
                f"more than {limit} cells"
            )
        if self.shared and name == "v":
            self.text = []
            self.parser.CharacterDataHandler = self.text.append

    def _shared_texts(self, count: str) -> None:
        if count.isascii() and count.isdigit() and int(count[:20]) > self.all.most_cells:
            raise _TooMuchError(f"more than {self.all.most_cells} shared texts")
        self.lengths = array("I"), array("I")
        self.all.texts += self.lengths


def _no_doctype(*_: object) -> None:
    raise _RefusedError("it has a DOCTYPE, which workbooks must not have")


def _row(text: str) -> int:
    found = _ROW.match(text)
    number = int(found[1]) if found else 0
    if not 0 < number <= LAST_ROW:
        raise _RefusedError(f"a row says that it is at {text[:40]!r}, which is no place")
    return number


@functools.lru_cache(maxsize=LAST_COLUMN)
def _column(letters: str) -> int:
    number = 0
    for letter in letters.upper():
        number = number * 26 + ord(letter) - 64
    return number


def write_measured(request: ReadRequest, target: Path) -> None:
    """Copy the workbook to `target` with what was measured and nothing else; see the module.

    The suffix of `target` should be the format's, so that the parser tries no other.

    Raises DiscoveryError `LimitExceeded` or `UnreadableFile`.
    """
    measures = _Measures(request.limits.max_workbook_cells)
    expansion = expansion_of(request)
    names: set[str] = set()
    problem: DiscoveryError | None = None
    with (
        open_archive(request, "workbook") as archive,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as copy,
    ):
        for info in archive.infolist():
            name = part_name(info.filename)
            if name.lower() in names:
                raise _unreadable(request, name, "the archive has two files of this name")
            names.add(name.lower())
            content = unpack(archive, info, expansion)
            if name.lower().endswith(_PARTS):
                with copy.open(name, "w", force_zip64=True) as output:
                    found = _copy_part(request, name, content, output, measures)
                problem = problem or found
            collections.deque(content, maxlen=0)
    if problem is not None:
        raise problem
    _check_whole(request, measures, names)


def part_name(name: str) -> str:
    """The name of a workbook's part as it should be; programs write backslashes, or a root."""
    return name.replace("\\", "/").removeprefix("./").lstrip("/")


def _copy_part(
    request: ReadRequest,
    name: str,
    content: Iterator[bytes],
    output: IO[bytes],
    measures: _Measures,
) -> DiscoveryError | None:
    """Copy what can be parsed; what is wrong with the rest."""
    part = _Part(measures)
    problem: Exception | None = None
    data = next(content, b"").removeprefix(_BOM)
    while problem is None:
        try:
            part.feed(data, last=not data)
        except (_RefusedError, expat.ExpatError) as error:
            problem = error
        else:
            if not data:
                return None
            output.write(data)
            data = next(content, b"")
    if isinstance(problem, _TooMuchError):
        return DiscoveryError(
            ErrorCode.LIMIT_EXCEEDED,
            f"{request.name}: {problem}. Delete the empty rows and columns below and beside the "
            "table, save the sheet as CSV, or raise DISCOVERY_MAX_WORKBOOK_CELLS.",
        )
    if isinstance(problem, _RefusedError) or name.lower().startswith("xl/"):
        return _unreadable(request, name, str(problem))
    return None


def _unreadable(request: ReadRequest, name: str, problem: str) -> DiscoveryError:
    return DiscoveryError(
        ErrorCode.UNREADABLE_FILE,
        f"{request.name}: the workbook cannot be read: {name[:200]!r}: {problem}. Open it in a "
        "spreadsheet program and save it again.",
    )


def _check_whole(request: ReadRequest, measures: _Measures, names: set[str]) -> None:
    """Refuse parts that are used again and again: sheets under many names, texts in many cells."""
    charts = sum("sheets/" in name and name.endswith(".xml") for name in names)
    if measures.named_sheets > measures.sheets + charts:
        raise _unreadable(request, "xl/workbook.xml", "it names more sheets than there are")
    limit = request.limits.max_expanded_bytes
    if measures.characters() > limit:
        raise DiscoveryError(
            ErrorCode.LIMIT_EXCEEDED,
            f"{request.name}: its cells repeat more than {limit} bytes of text. Shorten the long "
            "texts that many cells have, or raise DISCOVERY_MAX_EXPANDED_BYTES.",
        )
