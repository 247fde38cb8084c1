"""docs/security.md lists the tests of each promise, all of them, and none that is not there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
MANUAL = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
TEST = re.compile(r"^(?:async )?def test_(s\d\d_\w+)", re.MULTILINE)


def _listed() -> dict[tuple[str, str], str]:
    """The promise of each test that the manual lists, by its file and name."""
    return {
        (path, name): promise
        for promise, path, names in re.findall(
            r"^\| (S\d\d) \| `(tests/[^`]+)` \| (.+) \|$", MANUAL, re.MULTILINE
        )
        for name in re.findall(r"`(\w+)`", names)
    }


def test_the_manual_lists_every_test_of_a_promise_and_no_other() -> None:
    there = {
        (str(path.relative_to(ROOT)), name)
        for path in ROOT.glob("tests/**/test_*.py")
        for name in TEST.findall(path.read_text(encoding="utf-8"))
    }
    listed = _listed()
    assert set(listed) == there
    assert all(name.startswith(promise.lower()) for (_, name), promise in listed.items())


def test_every_promise_has_a_test() -> None:
    promises = re.findall(r"^\| (S\d\d) \| [^`]", MANUAL, re.MULTILINE)
    assert promises == [f"S{number:02}" for number in range(1, 24)]
    assert set(_listed().values()) == set(promises)
