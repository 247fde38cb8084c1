"""What a file is, by its bytes: exports are often named for another format than their own.

A signature counts only where it is whole, so that a table whose first header is `PK` or `BZh` stays
a table.
"""

from __future__ import annotations

import re
import zipfile

from discovery_core.errors import DiscoveryError, ErrorCode

from .model import ReadRequest
from .workbook import packed_kind

MARKUP = ("html", "xml")
ARCHIVE_START = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
GZIP_START = b"\x1f\x8b\x08"
OLE_START = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_HEAD = 4096
_OLE_LOOKED_AT = 16 * 1024 * 1024
_UNPACK = "archive; unpack it first"
# From the formats' specifications; a page and XML may have anything in front.
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (rb"\x89PNG\r?\n", "a PNG image"),
    (rb"%PDF-\d", "a PDF document"),
    (rb"GIF8[79]a", "a GIF image"),
    (rb"\xff\xd8\xff", "a JPEG image"),
    (rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)", f"a bzip2 {_UNPACK}"),
    (rb"\xfd7zXZ\x00", f"an xz {_UNPACK}"),
    (rb"\x28\xb5\x2f\xfd", f"a zstd {_UNPACK}"),
    (rb"7z\xbc\xaf\x27\x1c", f"a 7-Zip {_UNPACK}"),
    (rb"Rar!\x1a\x07", f"a RAR {_UNPACK}"),
    (rb"(?s:.{257})ustar[\x00 ]", f"a tar {_UNPACK}"),
    (rb"\x7fELF", "a program"),
    (rb"MZ\x90\x00", "a program"),
    (rb"PAR1[\x00-\x1f]", "a Parquet file"),
    (rb"SQLite format 3\x00", "a SQLite database"),
    (rb"\{\\rtf\d", "an RTF document"),
    (rb"(?i:MIME-Version:)", "a web archive (MHT); open it in a spreadsheet program and save it"),
)
_PAGE = re.compile(rb"(?i)<(?:!DOCTYPE\s+html|html|head|body|table|meta|style)\b")
_REMARK = rb"<!--"
# also an element that begins with another one, which no header does
_XML = re.compile(
    rb"<\?xml\b|<[A-Za-z][\w.:-]{0,100}(?:\s[^<>]{0,1000}xmlns|(?:\s[^<>]{0,1000})?>\s*<[A-Za-z/!?])"
)
_SPREADSHEET_2003 = b"urn:schemas-microsoft-com:office:spreadsheet"
_REMEDY = "Export the inventory as CSV, XLSX or JSON."


def kind_of(request: ReadRequest) -> str:
    """`zip`, `xlsx`, `xlsb`, `ods`, `xls`, `html`, `xml` (XML Spreadsheet 2003), `gzip` or `text`.

    Raises DiscoveryError for what is none of these, with what it is and what to do.
    """
    with request.path.open("rb") as stream:
        head = stream.read(_HEAD)
    if head.startswith(ARCHIVE_START):
        return packed_kind(request)
    if head.startswith(GZIP_START):
        return "gzip"
    if head.startswith(OLE_START):
        return _ole_kind(request)
    for signature, what in _SIGNATURES:
        if re.match(signature, head):
            raise _not_a_table(request, what)
    if zipfile.is_zipfile(request.path):
        raise _not_a_table(request, "a self-extracting archive")
    return _text_kind(request, head)


def _text_kind(request: ReadRequest, head: bytes) -> str:
    # UTF-16 has a zero byte in every second place; the rest are the letters
    start = head.replace(b"\x00", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")
    marked = start.startswith(_REMARK) or _XML.match(start)
    if marked and _SPREADSHEET_2003 in start:
        return "xml"
    if _PAGE.match(start) or (marked and _PAGE.search(start)):
        return "html"
    if not marked:
        return "text"
    raise _not_a_table(request, "an XML document")


def _ole_kind(request: ReadRequest) -> str:
    """OLE containers: encrypted workbooks name their stream so ([MS-OFFCRYPTO] 2.3.4.4)."""
    with request.path.open("rb") as stream:
        content = stream.read(_OLE_LOOKED_AT)
    if "EncryptedPackage".encode("utf-16-le") in content:
        raise DiscoveryError(
            ErrorCode.ENCRYPTED_FILE,
            f"{request.name}: the workbook is protected by a password. Save it without one "
            "(File > Info > Protect Workbook) and try again.",
        )
    if any(f"{name}\0".encode("utf-16-le") in content for name in ("Workbook", "Book")):
        return "xls"
    raise _not_a_table(request, "an old Office file (DOC, PPT, MSG)")


def _not_a_table(request: ReadRequest, what: str) -> DiscoveryError:
    return DiscoveryError(
        ErrorCode.UNSUPPORTED_FORMAT, f"{request.name}: this is {what}, not a table. {_REMEDY}"
    )
