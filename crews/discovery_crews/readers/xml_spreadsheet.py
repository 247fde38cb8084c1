"""XML Spreadsheet 2003 (Microsoft, "XML Spreadsheet Reference"), parsed as a stream.

Nothing is believed but elements, attributes and text: a document with a DOCTYPE is refused.
"""

from __future__ import annotations

from xml.parsers import expat

from discovery_core.errors import DiscoveryError, ErrorCode

from .marked import MarkedTable
from .measure import LAST_COLUMN, LAST_ROW
from .model import ReadRequest

_CHUNK = 1 << 20
_SPREADSHEET = "urn:schemas-microsoft-com:office:spreadsheet"
_EXCEL = "urn:schemas-microsoft-com:office:excel"


def read_xml_spreadsheet(request: ReadRequest) -> list[MarkedTable]:
    """The sheets of the file. Raises DiscoveryError `UnreadableFile`, and TooMuchError."""
    sheets = _Sheets(request.limits.max_workbook_cells)
    try:
        with request.path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                sheets.parser.Parse(chunk, False)
        sheets.parser.Parse(b"", True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise DiscoveryError(
            ErrorCode.UNREADABLE_FILE,
            f"{request.name}: the XML Spreadsheet cannot be read ({error}). Open it in a "
            "spreadsheet program and save it as XLSX.",
        ) from error
    return sheets.tables


class _Sheets:
    def __init__(self, limit: int) -> None:
        self.tables: list[MarkedTable] = []
        self._limit = limit
        self._text: list[str] | None = None
        self._value = self._type = ""
        self._remark = False
        self._span = (1, 1)
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters
        self.parser.StartDoctypeDeclHandler = _no_doctype
        self.parser.buffer_text = True

    def _start(self, element: str, attributes: dict[str, str]) -> None:
        space, _, name = element.rpartition(" ")
        if space == _EXCEL and name == "Visible":
            self._text = []
        if space != _SPREADSHEET:
            return
        given = {key.rpartition(" ")[2]: value for key, value in attributes.items()}
        if name == "Worksheet":
            title = given.get("Name") or f"table {len(self.tables) + 1}"
            self.tables.append(MarkedTable(title, self._limit))
        elif name == "Comment":
            self._remark = True
        elif name == "Data" and not self._remark:
            self._text, self._type = [], given.get("Type", "")
        elif self.tables and name == "Row":
            at = _number(given, "Index", LAST_ROW)
            self.tables[-1].next_row(at or None)
        elif self.tables and name == "Cell":
            self._value = ""
            across = _number(given, "MergeAcross", LAST_COLUMN)
            self._span = 1 + across, 1 + _number(given, "MergeDown", LAST_ROW)
            if at := _number(given, "Index", LAST_COLUMN):
                self.tables[-1].move_to(at)

    def _characters(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def _end(self, element: str) -> None:
        space, _, name = element.rpartition(" ")
        if space == _EXCEL and name == "Visible":
            if self.tables:
                self.tables[-1].hidden = "".join(self._text or ()) != "SheetVisible"
            self._text = None
        if space != _SPREADSHEET:
            return
        if name == "Comment":
            self._remark = False
        elif name == "Data" and self._text is not None:
            self._value = _typed("".join(self._text).strip(), self._type)
            self._text = None
        elif name == "Cell" and self.tables:
            self.tables[-1].place(self._value, *self._span)


def _no_doctype(*_: object) -> None:
    raise ValueError("it has a DOCTYPE")


def _number(given: dict[str, str], name: str, most: int) -> int:
    """A place or a number of cells; 0 where it is not given."""
    text = given.get(name, "0")
    if not (text.isascii() and text.isdigit() and int(text[:12]) <= most):
        raise ValueError(f"a cell or row says {name} {text[:40]!r}, where no sheet reaches")
    return int(text)


def _typed(text: str, kind: str) -> str:
    """A value as the other readers write it: TRUE and FALSE, dates without a midnight."""
    if kind == "Boolean":
        return {"1": "TRUE", "0": "FALSE"}.get(text, text)
    if kind == "DateTime" and "T" in text:
        date, _, time = text.partition("T")
        return f"{date} {time.partition('.')[0]}" if time.strip("0:.Z") else date
    return text
