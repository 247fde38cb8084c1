"""`python -m discovery_crews map`: what the engine alone would do with the columns of files.

For developers and for measuring: it needs neither a cluster nor a model, and never imports
CrewAI, so that it starts at once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_core.logging import configure_logging
from discovery_core.wire.results import ColumnProfile, FieldMapping

from discovery_crews.profile import profile_records
from discovery_crews.readers import ReadRequest, read_source
from discovery_crews.settings import ReaderLimits, reader_limits
from discovery_crews.target_schema import load_schema

from .engine import propose
from .headers import header_of

EXIT_DONE = 0
EXIT_REFUSED = 2
_EPILOG = """\
examples:
  python -m discovery_crews map servers.csv
  python -m discovery_crews map rvtools.xlsx servers.csv --json
  python -m discovery_crews map cases.csv --target-schema fields.csv --json

A target schema is a CSV with the columns field,description (also type, unit, synonyms), or a
YAML list of fields. A file with a header and no rows is mapped by its headers alone.

exit status: 0 done; 2 refused, with {"error": {"code", "message"}} on standard output.
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of `python -m discovery_crews map`."""
    parser = argparse.ArgumentParser(
        prog="python -m discovery_crews map",
        description="Print for every column of the files the target field that the deterministic "
        "engine proposes, its confidence and the five best candidates.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "files", metavar="FILE", nargs="+", type=Path, help="CSV, TSV, XLSX, JSON or NDJSON"
    )
    parser.add_argument(
        "--target-schema",
        metavar="F",
        type=Path,
        help="target schema, CSV or YAML (default: the built-in fields)",
    )
    parser.add_argument(
        "--format",
        default="auto",
        metavar="FORMAT",
        help="auto, csv, xlsx, json, ndjson, rvtools or zip (default: auto)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = build_parser().parse_args(argv)
    configure_logging("crews", os.environ.get("DISCOVERY_LOG_LEVEL", "warning"))
    try:
        schema = load_schema(options.target_schema)
        found = [
            (path, propose(columns_of(path, options.format), schema)) for path in options.files
        ]
    except DiscoveryError as error:
        _print(json.dumps({"error": {"code": str(error.code), "message": error.message}}))
        return EXIT_REFUSED
    if options.json:
        rows = [entry for path, mappings in found for entry in as_json(path, mappings)]
        _print(json.dumps(rows, ensure_ascii=False, indent=1))
    else:
        _print("\n\n".join(as_table(path, mappings) for path, mappings in found))
    return EXIT_DONE


def columns_of(
    path: Path, source_format: str = "auto", limits: ReaderLimits | None = None
) -> list[ColumnProfile]:
    """The profile of every column of a file; without facts where the file has only a header.

    `limits` replace those of the environment. Raises DiscoveryError as the readers do.
    """
    if not path.is_file():
        raise DiscoveryError(
            ErrorCode.UNREADABLE_FILE, f"{path}: there is no such file. Check the path."
        )
    with tempfile.TemporaryDirectory(prefix="discovery-map-") as folder:
        workdir = Path(folder)
        try:
            table = read_source(
                ReadRequest(path, workdir, path.name, limits or reader_limits()), source_format
            )
        except DiscoveryError as error:
            if error.code != ErrorCode.NO_ROWS:
                raise
            return [
                ColumnProfile(name=name, type="string", filled=0, missing=0, distinct=0)
                for name in header_of(path)
            ]
        return profile_records(workdir, table.parquet, table.rows)


def as_json(path: Path, mappings: Sequence[FieldMapping]) -> list[dict[str, Any]]:
    """One entry per column, in the file's order."""
    return [
        {
            "file": str(path),
            "column": mapping.column,
            "target": mapping.target,
            "role": mapping.role,
            "confidence": mapping.confidence,
            "reason": mapping.reason,
            "candidates": [entry.model_dump() for entry in mapping.candidates],
        }
        for mapping in mappings
    ]


def as_table(path: Path, mappings: Sequence[FieldMapping]) -> str:
    """A table for people, with the runners-up in the last column."""
    rows = [("COLUMN", "TARGET", "CONFIDENCE", "OTHER CANDIDATES")]
    for mapping in mappings:
        target = mapping.target or "-"
        if mapping.role == "alternate":
            target += " (alternate)"
        others = [entry for entry in mapping.candidates if entry.target != mapping.target]
        rows.append(
            (
                mapping.column.replace("\n", " ")[:40],
                target,
                f"{mapping.confidence:.2f}",
                ", ".join(f"{entry.target} {entry.score:.2f}" for entry in others[:4]),
            )
        )
    widths = [max(len(row[index]) for row in rows) for index in range(3)]
    lines = [
        "  ".join(
            [*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)), row[3]]
        ).rstrip()
        for row in rows
    ]
    mapped = sum(1 for mapping in mappings if mapping.target)
    return "\n".join(
        [f"{path.name}: {mapped} of {len(mappings)} columns have a target", "", *lines]
    )


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
