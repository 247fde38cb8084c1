"""NDJSON as it arrives: inventory records without ever holding the whole body.

A record is checked, and goes on in its own words: written anew it would cost as much again.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from discovery_core.errors import DiscoveryError, ErrorCode, ProblemError
from discovery_core.wire.results import InventoryRecord
from pydantic import ValidationError


class InvalidRecordError(ProblemError):
    """`line` of the records is none."""

    status = 422
    kind = "invalid-record"
    title = "A record is not valid"


async def records_of(
    stream: AsyncIterator[bytes], *, max_line: int, max_bytes: int
) -> AsyncIterator[bytes]:
    """The lines of a stream that are InventoryRecords; blank lines are passed over.

    Sizes are in bytes. Raises ProblemError 422 naming the line that is at fault, and
    DiscoveryError(LIMIT_EXCEEDED) for a line or a stream that is too long.
    """
    number = 0
    async for line in _lines(stream, max_line, max_bytes):
        number += 1
        if not line.strip():
            continue
        if len(line) > max_line:
            raise _line_too_long(number, max_line)
        try:
            # what the database would read otherwise is no record: 1.0 or true for a whole number
            InventoryRecord.model_validate_json(line, strict=True, by_alias=True, by_name=False)
            _refuse_no_numbers(line)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"])) or "document"
            raise _invalid(number, f"{place}: {first['msg']}") from error
        except ValueError as error:
            raise _invalid(number, str(error)) from error
        yield line


def _refuse_no_numbers(line: bytes) -> None:
    """Raises ValueError for NaN and Infinity, which are no JSON and no values of a database's."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not a number that JSON has; leave it out or write null")

    if b"NaN" in line or b"Infinity" in line:
        json.loads(line, parse_constant=refuse)


def _invalid(number: int, problem: str) -> InvalidRecordError:
    return InvalidRecordError(
        f"line {number}, {problem}", line=number, code=str(ErrorCode.INVALID_RESULT)
    )


async def _lines(
    stream: AsyncIterator[bytes], max_line: int, max_bytes: int
) -> AsyncIterator[bytes]:
    rest, received, count = b"", 0, 0
    async for piece in stream:
        received += len(piece)
        if received > max_bytes:
            raise DiscoveryError(
                ErrorCode.LIMIT_EXCEEDED, f"the records are larger than {max_bytes} bytes in all"
            )
        *complete, rest = (rest + piece).split(b"\n")
        count += len(complete)
        for line in complete:
            yield line
        if len(rest) > max_line:
            raise _line_too_long(count + 1, max_line)
    if rest:
        yield rest


def _line_too_long(number: int, limit: int) -> DiscoveryError:
    return DiscoveryError(
        ErrorCode.LIMIT_EXCEEDED, f"line {number} of the records is longer than {limit} bytes"
    )
