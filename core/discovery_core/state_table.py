"""Writes the state table as documentation: `python -m discovery_core.state_table [--check]`.

The table in `states.py` is what the code obeys; generating the page from it is what keeps the
page true.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .states import CONDITION_TYPES, STATES, TRANSITIONS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "states.md"


def render() -> str:
    """The page as Markdown."""
    lines = [
        "# States and transitions",
        "Written by `make generate` from `core/discovery_core/states.py`, which the store obeys.",
        "",
        "| state | meaning | waits for | `phase_status` | " + " | ".join(CONDITION_TYPES) + " |",
        "|" + "---|" * (4 + len(CONDITION_TYPES)),
    ]
    for info in STATES.values():
        marks = " | ".join(
            "✓" if info.conditions[kind] == "True" else "" for kind in CONDITION_TYPES
        )
        lines.append(
            f"| {info.state} | {info.meaning} | {info.waits_for} | {info.phase_status} | {marks} |"
        )
    lines += ["", "A tick means that the condition is `True`; otherwise it is `False`.", ""]
    lines += ["| from | trigger | to |", "|---|---|---|"]
    lines += [f"| {step.source or '—'} | {step.trigger} | {step.target} |" for step in TRANSITIONS]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Writes the page; with --check only says whether it is current (exit status 1 if not)."""
    parser = argparse.ArgumentParser(description="Writes docs/states.md from the state table.")
    parser.add_argument("--check", action="store_true", help="change nothing, fail on drift")
    check = parser.parse_args().check
    text = render()
    if check:
        current = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
        if current != text:
            sys.stderr.write(f"{PAGE.name} is not current; run `make generate`\n")
            return 1
        return 0
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
