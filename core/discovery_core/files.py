"""The kinds of files that phases read and make: what they are called, and as what they are sent.

A kind is known by the suffix, never by what a client says of its file.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

UNKNOWN = "application/octet-stream"
MEDIA_TYPES = {
    ".csv": "text/csv",
    ".gz": "application/gzip",
    ".json": "application/json",
    ".ndjson": "application/x-ndjson",
    ".parquet": "application/vnd.apache.parquet",
    ".tsv": "text/tab-separated-values",
    ".txt": "text/plain",
    ".xls": "application/vnd.ms-excel",
    ".xlsm": "application/vnd.ms-excel.sheet.macroenabled.12",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    ".yaml": "application/yaml",
    ".zip": "application/zip",
}
_ALSO = {".jsonl": ".ndjson", ".tab": ".tsv", ".yml": ".yaml"}
_SUFFIXES = {media_type: suffix for suffix, media_type in MEDIA_TYPES.items()}
_MOST_CHARACTERS = 100


def media_type(name: str) -> str:
    """What a file of that name is."""
    suffix = PurePosixPath(name).suffix.lower()
    return MEDIA_TYPES.get(_ALSO.get(suffix, suffix), UNKNOWN)


def file_name(parts: list[str], media_type: str) -> str:
    """A name for a download, safe for every file system and in a header: `cmdb-assets.xlsx`.

    A format at the end of an artefact's name (`assets_xlsx`) is dropped, because the suffix says
    it; where the media type says nothing, it is the suffix.
    """
    base, _, kind = parts[-1].rpartition("_")
    named = bool(base) and f".{kind}" in MEDIA_TYPES
    suffix = _SUFFIXES.get(media_type, f".{kind}" if named else ".bin")
    words = [*parts[:-1], base if named else parts[-1]]
    text = "-".join(word[:_MOST_CHARACTERS] for word in words if word)
    return (re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip("._-") or "file") + suffix
