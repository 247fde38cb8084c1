"""How answers are printed: as a table for people, as JSON, YAML or names for programs.

Whatever comes from a file, a cluster or an API may hold signs that a terminal obeys or that turn
the order of letters, and so show somebody who decides something else than there is. Nothing is
written but by this module, and here they are written as escapes.
"""

from __future__ import annotations

import codecs
import json
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import yaml
from discovery_core.resource import SINGULAR


class Format(StrEnum):
    """Output formats."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


def plain(text: str, keep: str = "") -> str:
    """`text` with signs that are not seen as themselves (controls, bidi, unseen) as escapes.

    Those of `keep`, such as line feeds, are left.
    """
    if text.isprintable():
        return text
    return "".join(sign if _is_plain(sign) or sign in keep else _escaped(sign) for sign in text)


def _is_plain(sign: str) -> bool:
    return sign.isprintable() or unicodedata.category(sign) == "Zs"


def _escaped(sign: str) -> str:
    return sign.encode("unicode_escape").decode()


def say(text: str) -> None:
    """A line on standard output."""
    sys.stdout.write(plain(text) + "\n")


def warn(text: str) -> None:
    """A line on standard error."""
    sys.stderr.write(plain(text) + "\n")


def tell(text: str) -> None:
    """A remark on standard error, for people only: nothing where it is piped."""
    if sys.stderr.isatty():
        warn(text)


def structured(value: Any, form: Format) -> None:
    """JSON or YAML."""
    sys.stdout.write(as_json(value) if form is Format.JSON else as_yaml(value))


def as_json(value: Any) -> str:
    """Readable JSON in which what is not plain is escaped as JSON has it."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    if text.replace("\n", "").isprintable():
        return text
    return "".join(
        sign if _is_plain(sign) or sign == "\n" else json.dumps(sign)[1:-1] for sign in text
    )


def as_yaml(value: Any) -> str:
    """Readable YAML; all but ASCII is escaped where anything in it is not plain."""
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    if all(_is_plain(sign) or sign == "\n" for sign in text):
        return text
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=False)


def content(pieces: Iterable[bytes]) -> None:
    """A file on standard output: its bytes where that is piped, plain text on a terminal."""
    if sys.stdout.isatty():
        lines(pieces)
        return
    for piece in pieces:
        sys.stdout.buffer.write(piece)
    sys.stdout.flush()


def lines(pieces: Iterable[bytes]) -> None:
    """Text that is for people, as it comes, in whole lines."""
    decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode
    rest = ""
    for piece in pieces:
        *whole, rest = (rest + decode(piece)).split("\n")
        for line in whole:
            sys.stdout.write(plain(line.removesuffix("\r"), keep="\t") + "\n")
        sys.stdout.flush()
    rest += decode(b"", True)
    if rest:
        say(rest)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns, as kubectl has them."""
    texts = [[plain(str(cell if cell is not None else "")) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *texts, strict=True)]
    for row in ([*head], *texts):
        line = "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        say(line.rstrip())


def name_of(flow: dict[str, Any]) -> str:
    """As `kubectl -o name` has it."""
    return f"{SINGULAR}.discoveryflow.dev/{flow['metadata']['name']}"


def age(timestamp: str | None) -> str:
    """How long ago, in one unit."""
    if not timestamp:
        return ""
    since = datetime.now(UTC) - datetime.fromisoformat(timestamp)
    seconds = int(since.total_seconds())
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
