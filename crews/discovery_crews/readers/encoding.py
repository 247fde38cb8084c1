"""Finding out how a text file is encoded, from all of its bytes.

A wrong guess silently garbles names, so certainty comes first: byte-order marks, then strict
UTF-8 over the whole file, and only then statistics. What was assumed is told as a finding.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from pathlib import Path

from charset_normalizer import from_bytes
from discovery_core.errors import DiscoveryError, ErrorCode

_CHUNK = 1 << 20
_SAMPLE = 64 * 1024
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What spreadsheet and inventory tools write; a wider choice makes short samples guesswork.
_CANDIDATES = [
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "iso8859_2", "iso8859_15", "koi8_r",
    "cp850", "mac_roman", "cp932", "shift_jis", "gb18030", "big5", "cp949",
]  # fmt: skip
_MAX_CHAOS = 0.2


@dataclass(frozen=True)
class TextEncoding:
    """`codec` is Python's name. `errors` is `surrogateescape` where single rows are at fault."""

    codec: str
    errors: str = "strict"
    finding: str | None = None

    @property
    def label(self) -> str:
        """The name for people."""
        return "utf-8" if self.codec == "utf-8-sig" else self.codec


def detect_encoding(path: Path, name: str) -> TextEncoding:
    """The encoding of a text file.

    Raises DiscoveryError `UnknownEncoding` (nothing plausible) or `UnreadableFile` (not text).
    """
    with path.open("rb") as stream:
        head = stream.read(_SAMPLE)
    for mark, codec in _MARKS:
        if head.startswith(mark):
            return _verified(path, name, codec)
    if b"\x00" in head:
        return _verified(path, name, _wide_codec(head, name))
    position = _first_invalid(path, "utf-8")
    if position is None:
        return TextEncoding("utf-8")
    valid, invalid, sample = _high_lines(path)
    if valid > invalid:
        return TextEncoding(
            "utf-8",
            errors="surrogateescape",
            finding=f"{invalid} of the file's lines are not valid UTF-8 (the rest is).",
        )
    return _guess(path, sample, name, position)


def _wide_codec(head: bytes, name: str) -> str:
    even, odd = head[0::2].count(0), head[1::2].count(0)
    half = len(head) / 2
    if odd > half * 0.4 and even < half * 0.1:
        return "utf-16-le"
    if even > half * 0.4 and odd < half * 0.1:
        return "utf-16-be"
    raise DiscoveryError(
        ErrorCode.UNREADABLE_FILE,
        f"{name}: byte {head.index(0) + 1} is NUL, so this is not a text file. "
        "Export it as CSV (UTF-8), XLSX or JSON.",
    )


def _verified(path: Path, name: str, codec: str) -> TextEncoding:
    position = _first_invalid(path, codec)
    if position is None:
        return TextEncoding(codec)
    if codec == "utf-8-sig":
        return TextEncoding(
            codec,
            errors="surrogateescape",
            finding="Some lines of the file are not valid UTF-8 although it is marked as such.",
        )
    raise DiscoveryError(
        ErrorCode.UNKNOWN_ENCODING,
        f"{name}: looks like {codec}, but is broken near byte {position + 1} (cut off?). "
        "Export it again as CSV UTF-8.",
    )


def _first_invalid(path: Path, codec: str) -> int | None:
    """Offset of the chunk's first byte that does not decode, or None."""
    decoder = codecs.getincrementaldecoder(codec)()
    offset = 0
    with path.open("rb") as stream:
        while True:
            chunk = stream.read(_CHUNK)
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeError as error:
                return offset + (error.start if isinstance(error, UnicodeDecodeError) else 0)
            if not chunk:
                return None
            offset += len(chunk)


def _high_lines(path: Path) -> tuple[int, int, bytes]:
    """Lines with non-ASCII bytes: how many are valid UTF-8, how many not, and a sample."""
    valid = invalid = 0
    sample = bytearray()
    with path.open("rb") as stream:
        while line := stream.readline(_CHUNK):
            if line.isascii():
                continue
            try:
                line.decode("utf-8")
                valid += 1
            except UnicodeDecodeError:
                invalid += 1
                if len(sample) < _SAMPLE:
                    sample += line[:4096]
    return valid, invalid, bytes(sample)


def _guess(path: Path, sample: bytes, name: str, position: int) -> TextEncoding:
    matches = from_bytes(sample, cp_isolation=_CANDIDATES, threshold=_MAX_CHAOS)
    best = matches.best()
    codec: str | None = None
    errors = "strict"
    if best is not None:
        # western exports dominate and short samples fit many code pages equally well
        tied = [match for match in matches if match.chaos <= best.chaos]
        codec = "cp1252" if any(m.encoding == "cp1252" for m in tied) else best.encoding
        # the sample is not all; another line that does not fit costs that line
        errors = "strict" if _first_invalid(path, codec) is None else "surrogateescape"
    if codec is None or _implausible(sample, codec):
        raise DiscoveryError(
            ErrorCode.UNKNOWN_ENCODING,
            f"{name}: byte {position + 1} is not UTF-8 and no known encoding fits. "
            "Save the file as 'CSV UTF-8' and try again.",
        )
    return TextEncoding(
        codec, errors, finding=f"The file is not UTF-8; it was read as {codec}. Check the accents."
    )


def _implausible(sample: bytes, codec: str) -> bool:
    text = sample.decode(codec, errors="replace")
    odd = sum(1 for c in text if c == "\ufffd" or (ord(c) < 32 and c not in "\r\n\t\x1c"))
    return odd > max(1, len(text) // 200)
