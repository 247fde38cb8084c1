"""Measures the field mapping engine on labelled inventories, and prints how far to trust it.

Each file in `mapping_cases/` is a synthetic inventory of a product or a person: per column its
header, the right target (`null` for none, `a|b` where either is right) and its values. Files in
`tuning/` are what the engine was improved on; those in `held_out/` were written before that and
are only scored for a release (`--release`). Every case takes the real way: a CSV file, the
reader, the profile over all rows, the engine.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from discovery_core.wire.results import ColumnProfile, FieldMapping
from discovery_crews.mapping.command import columns_of
from discovery_crews.mapping.engine import propose
from discovery_crews.settings import ReaderLimits
from discovery_crews.target_schema import TargetField, TargetSchema, builtin_schema

CASES = Path(__file__).parent / "mapping_cases"
NONE = "null"


@dataclass(frozen=True)
class Case:
    """One labelled inventory: per column the header, the right targets and the values.

    The columns of a `separate` case have nothing to do with each other.
    """

    name: str
    columns: list[tuple[str, frozenset[str], list[str]]]
    separate: bool = False


@dataclass
class Score:
    """Counts over columns. `either` columns may be mapped or not and are left out."""

    targets: int = 0
    first: int = 0
    five: int = 0
    none: int = 0
    none_right: int = 0
    shown: list[tuple[float, bool]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def add(self, case: str, right: frozenset[str], mapping: FieldMapping) -> None:
        """Judge one proposal."""
        correct = (mapping.target or NONE) in right
        if mapping.target is not None:
            self.shown.append((mapping.confidence, correct))
        candidates = [candidate.target for candidate in mapping.candidates]
        if right == {NONE}:
            self.none += 1
            self.none_right += correct
        elif NONE not in right:
            self.targets += 1
            self.first += correct
            self.five += bool(right & set(candidates))
        if not correct:
            wrong = ", ".join(f"{c.target} {c.score:.2f}" for c in mapping.candidates[:3])
            self.errors.append(
                f"{case}: {mapping.column!r} -> {mapping.target or NONE} "
                f"({mapping.confidence:.2f}), right: {'|'.join(sorted(right))}; {wrong}"
            )

    def merge(self, other: Score) -> None:
        """Add another's counts."""
        for name in ("targets", "first", "five", "none", "none_right"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.shown += other.shown
        self.errors += other.errors

    def line(self, name: str) -> str:
        """One row of the table."""
        return (
            f"{name:<22}{self.targets:>8}{_share(self.first, self.targets):>8}"
            f"{_share(self.five, self.targets):>8}{self.none:>8}"
            f"{_share(self.none_right, self.none):>8}"
        )


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.3f}" if whole else "-"


def cases(folder: Path) -> Iterator[Case]:
    """The cases of a folder, by name. All values are text, as in a CSV file."""
    for path in sorted(folder.glob("*.yaml")):
        content: dict[str, Any] = yaml.load(path.read_text("utf-8"), Loader=yaml.BaseLoader)
        columns = [
            (header, frozenset(label.split("|")), values[0] if values else [])
            for header, label, *values in content["columns"]
        ]
        yield Case(path.stem, columns, separate="separate" in content)


def profiles(case: Case, workdir: Path) -> list[ColumnProfile]:
    """What the readers and the profile make of a case."""
    if case.separate:
        return [
            ColumnProfile(name=header, type="string", filled=0, missing=0, distinct=0)
            for header, _, _ in case.columns
        ]
    path = workdir / f"{case.name}.csv"
    rows = max((len(values) for _, _, values in case.columns), default=0)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([header for header, _, _ in case.columns])
        for row in range(rows):
            writer.writerow(
                [values[row] if row < len(values) else "" for *_, values in case.columns]
            )
    # an import leaves credentials out; here they are columns like others that have no target
    return columns_of(path, limits=ReaderLimits(keep_credential_columns=True))


def score(case: Case, columns: list[ColumnProfile]) -> Score:
    """Map one case and judge every column."""
    result = Score()
    groups = [[column] for column in columns] if case.separate else [columns]
    mappings = [mapping for group in groups for mapping in propose(group, builtin_schema())]
    for (_, right, _), mapping in zip(case.columns, mappings, strict=True):
        result.add(case.name, right, mapping)
    return result


def reliability(shown: list[tuple[float, bool]]) -> str:
    """Of the mappings shown at a confidence, how many are right."""
    lines = ["confidence      shown   mean  right"]
    bounds = [0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 1.01]
    for low, high in itertools.pairwise(bounds):
        part = [(value, right) for value, right in shown if low <= value < high]
        if part:
            mean = sum(value for value, _ in part) / len(part)
            right = sum(right for _, right in part) / len(part)
            lines.append(
                f"{low:.2f} - {min(high, 1.0):.2f}{len(part):>10}{mean:>7.2f}{right:>7.2f}"
            )
    return "\n".join(lines)


def speed() -> str:
    """Seconds for 100 columns, with the built-in fields and with 700 others."""
    columns = [
        ColumnProfile(
            name=f"{word} {kind} {number}", type="string", filled=50, missing=0, distinct=50,
            samples=[f"{word}-{number}-{i}" for i in range(5)],
        )
        for number in range(4)
        for word in ("Server", "Memory", "Disk", "Patient", "Region")
        for kind in ("Name", "Type", "Size (GB)", "Status", "Date")
    ]  # fmt: skip
    many = TargetSchema(
        fields=tuple(
            TargetField(name=f"{a}_{b}_{c}", description=f"the {b} {c} of a {a} at some visit")
            for a in ("patient", "sample", "tumor", "visit", "drug", "gene", "slide", "site",
                      "cohort", "assay")
            for b in ("first", "last", "primary", "total", "mean", "current", "prior", "expected",
                      "reported", "derived")
            for c in ("date", "size", "status", "count", "name", "grade", "type")
        )
    )  # fmt: skip
    lines = []
    for name, schema in (("64 built-in fields", builtin_schema()), ("700 other fields", many)):
        started = time.perf_counter()
        propose(columns, schema)
        first = time.perf_counter() - started
        started = time.perf_counter()
        propose(columns, schema)
        lines.append(
            f"100 columns, {name}: {first:.3f} s, again {time.perf_counter() - started:.3f} s"
        )
    return "\n".join(lines)


def main() -> int:
    """Print the scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--release", action="store_true", help="score the held-out cases too")
    parser.add_argument("--errors", action="store_true", help="list the wrong tuning proposals")
    options = parser.parse_args()
    print(f"{'case':<22}{'targets':>8}{'first':>8}{'five':>8}{'none':>8}{'kept':>8}")
    for folder in ("tuning", "held_out") if options.release else ("tuning",):
        total = Score()
        with tempfile.TemporaryDirectory() as workdir:
            for case in cases(CASES / folder):
                result = score(case, profiles(case, Path(workdir)))
                if folder == "tuning":
                    print(result.line(case.name))
                total.merge(result)
        print(total.line(f"all of {folder}"))
        print(f"\n{reliability(total.shown)}\n")
        if options.errors and folder == "tuning":
            print("\n".join(total.errors) + "\n")
    print(speed())
    return 0


if __name__ == "__main__":
    sys.exit(main())
