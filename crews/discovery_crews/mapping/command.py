"""`python -m discovery_crews map FILE…`: the deterministic mapping of files, without any model."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_core.wire import ColumnProfile, FieldMapping

from discovery_crews.profile import profile_records
from discovery_crews.readers import ReadRequest, read_source
from discovery_crews.readers.delimited import detect_dialect
from discovery_crews.readers.encoding import detect_encoding
from discovery_crews.settings import reader_limits
from discovery_crews.target_schema import TargetSchema, load_schema

from .engine import propose

REFUSED = 2


def columns_of(path: Path) -> list[ColumnProfile]:
    """The profile of every column. A file with a header and no rows is taken by its header."""
    with tempfile.TemporaryDirectory(prefix="discovery-map-") as scratch:
        request = ReadRequest(path, Path(scratch), path.name, reader_limits())
        try:
            table = read_source(request)
        except DiscoveryError as error:
            if error.code is not ErrorCode.NO_ROWS:
                raise
            return [_unknown(name) for name in _header(path)]
        return profile_records(Path(scratch), table.parquet, table.rows)


def _unknown(name: str) -> ColumnProfile:
    return ColumnProfile(name=name, type="string", filled=0, missing=0, distinct=0)


def _header(path: Path) -> list[str]:
    if path.suffix.lower() in (".xlsx", ".xlsm"):
        from python_calamine import CalamineWorkbook  # noqa: PLC0415 - only where it is needed

        workbook = CalamineWorkbook.from_path(str(path))
        rows = workbook.get_sheet_by_index(0).to_python()
        return [str(cell) for cell in rows[0] if str(cell).strip()] if rows else []
    encoding = detect_encoding(path, path.name)
    text = path.read_text(encoding=encoding.codec, errors=encoding.errors)
    dialect = detect_dialect(text)
    line = next((line for line in text.splitlines()[dialect.lines_before :] if line.strip()), "")
    return [cell.strip() for cell in dialect.cells(line) or [] if cell.strip()]


def _row(path: Path, mapping: FieldMapping) -> dict[str, Any]:
    return {
        "file": str(path),
        "column": mapping.column,
        "target": mapping.target,
        "confidence": mapping.confidence,
        "candidates": [
            {"target": candidate.target, "score": candidate.score}
            for candidate in mapping.candidates
        ],
    }


def _table(path: Path, mappings: list[FieldMapping]) -> str:
    width = max([len(mapping.column) for mapping in mappings] + [6])
    lines = [f"{path}", f"  {'COLUMN'.ljust(width)}  {'TARGET'.ljust(24)}  SURE  WHY"]
    for mapping in mappings:
        target = mapping.target or "-"
        if mapping.role == "alternate":
            target += " (alternate)"
        lines.append(
            f"  {mapping.column.ljust(width)}  {target.ljust(24)}  {mapping.confidence:4.2f}  "
            f"{mapping.reason}"
        )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m discovery_crews map",
        description="Prints which target field each column of the files is, by rules alone: no "
        "language model, no network.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument(
        "--target-schema",
        type=Path,
        metavar="F",
        help="fields of your own: CSV with field,description, or YAML (default: the built-in 64)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def _refuse(error: DiscoveryError) -> int:
    print(json.dumps({"error": {"code": str(error.code), "message": error.message}}))  # noqa: T201
    return REFUSED


def main(argv: Sequence[str] | None = None) -> int:
    """Maps each file on its own. Exit status 2 where one is refused."""
    options = _parser().parse_args(argv)
    try:
        schema = load_schema(options.target_schema)
        found = [(path, _map(path, schema)) for path in options.files]
    except DiscoveryError as error:
        return _refuse(error)
    except OSError as error:
        return _refuse(
            DiscoveryError(ErrorCode.UNREADABLE_FILE, f"{error.filename}: {error.strerror}")
        )
    if options.json:
        rows = [_row(path, mapping) for path, mappings in found for mapping in mappings]
        sys.stdout.write(json.dumps(rows, ensure_ascii=False, indent=1) + "\n")
    else:
        for path, mappings in found:
            sys.stdout.write(_table(path, mappings) + "\n")
    return 0


def _map(path: Path, schema: TargetSchema) -> list[FieldMapping]:
    return propose(columns_of(path), schema)
