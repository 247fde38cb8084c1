"""Tells JSON from tables that look like it, and says where and why a document is none.

A document that is broken is still a document: read as a table it would become one column of
fragments. So whatever begins like JSON, behind remarks too, is read as JSON or refused.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

NAMES = (".json", ".ndjson", ".jsonl")
_REMARK = r"(?:\s|//[^\n]*(?:\n|\Z)|#[^\n]*(?:\n|\Z)|/\*.*?(?:\*/|\Z))*+"
# What some services put before a document: a guard against scripts, an assignment, a call.
_BEFORE = r"(?:\)\]\}',?\s*|(?:(?:var|let|const)\s+)?[\w.$]+\s*(?:=|\()\s*)?"
# also where the quote before its first name is missing
_OBJECT = r"\{\s*+(?:[\"'}/]|[\w$]+\s*:|[^\n\"',;|\t{}]{1,200}[\"']\s*:|\Z)"
_LIST = r"\[\s*(?:[\[{\]\"'/]|(?:-?\d[\d.eE+-]*|true|false|null)\s*(?:,|\]\s*\Z|\Z)|\Z)"
_LIKE_JSON = re.compile(f"^\ufeff?{_REMARK}{_BEFORE}(?:{_OBJECT}|{_LIST})", re.DOTALL)
_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*"?|(-?Infinity|NaN)')


def begins_like_json(start: str) -> bool:
    """Whether a text that begins so is JSON, right or wrong, and no table of delimited cells."""
    return _LIKE_JSON.match(start) is not None


def is_json(text: str) -> bool:
    """Whether the whole text is one JSON value."""
    try:
        json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return False
    return True


@dataclass(frozen=True)
class Fault:
    """Where a text is no JSON, counted from 1, and what to do about it."""

    line: int
    column: int
    problem: str
    remedy: str


def find_fault(text: str, error: ValueError, offset: int = 0) -> Fault:
    """What `error` of the decoder says about `text`; it was given `text[offset:]`."""
    if isinstance(error, json.JSONDecodeError):
        at, problem = error.pos + offset, error.msg
    else:
        at, problem = _constant(text), str(error)
    line = text.count("\n", 0, at) + 1
    column = at - text.rfind("\n", 0, at)
    return Fault(line, column, problem, _remedy(text, at, problem))


def _constant(text: str) -> int:
    """Where NaN or Infinity stands outside of texts; the decoder does not say."""
    return next((match.start() for match in _CONSTANT.finditer(text) if match[1]), 0)


def _remedy(text: str, at: int, problem: str) -> str:
    rest, before = text[at:].lstrip(), text[:at].rstrip()
    if not rest or problem.startswith("Unterminated string"):
        return "The file ends too early or a quote is not closed; export it again."
    if problem.endswith("is not JSON"):
        return "Write null where there is no number."
    if problem == "Extra data":
        return (
            "Put all objects into one list […] with commas between them, or each on a line of "
            "its own without."
        )
    if rest.startswith(("//", "/*", "#")):
        return "JSON has no comments; remove them."
    if rest.startswith("'"):
        return "Write texts and names in double quotes."
    if rest[0] in "]}" and before.endswith(","):
        return "Remove the comma before it."
    if problem.startswith("Expecting ',' delimiter"):
        return "Put the missing comma there, or export it again."
    return "Repair it there, or export it again as JSON."
