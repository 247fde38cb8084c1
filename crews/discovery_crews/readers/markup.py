"""Tables that are written in tags: web pages and "XML Spreadsheet 2003", often named `.xls`.

Many tools export so because a spreadsheet program opens it.
"""

from __future__ import annotations

from discovery_core.errors import DiscoveryError, ErrorCode

from .marked import TooMuchError
from .model import Part, ReadRequest, Unread
from .page import read_page
from .sheet import read_grids
from .xml_spreadsheet import read_xml_spreadsheet


def read_markup(request: ReadRequest, kind: str) -> tuple[list[Part], list[Unread]]:
    """The tables of a page (`html`) or of an XML Spreadsheet (`xml`), and those that are none.

    Raises DiscoveryError.
    """
    limits = request.limits
    if request.size > limits.max_document_bytes:
        raise DiscoveryError(
            ErrorCode.LIMIT_EXCEEDED,
            f"{request.name}: {request.size} bytes of tags; the limit is "
            f"{limits.max_document_bytes}. Save the table as CSV, or raise "
            "DISCOVERY_MAX_DOCUMENT_BYTES.",
        )
    try:
        tables = read_page(request) if kind == "html" else read_xml_spreadsheet(request)
    except TooMuchError as error:
        raise DiscoveryError(
            ErrorCode.LIMIT_EXCEEDED,
            f"{request.name}: a table reaches over more than {limits.max_workbook_cells} cells. "
            "Save it as CSV, or raise DISCOVERY_MAX_WORKBOOK_CELLS.",
        ) from error
    return read_grids(request, (table.grid() for table in tables), kind)
