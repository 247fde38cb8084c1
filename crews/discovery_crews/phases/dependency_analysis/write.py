"""The artefacts of dependency_analysis: edges for the next phase and for people, and groups."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from discovery_crews.readers.table import spreadsheet_safe
from discovery_crews.tables.engine import connect, literal

from .edges import Edge
from .graph import splitters
from .judgement import DependencyPlan, Questions

_LARGE = 50
_ADVISED = 5
_COLUMNS = {
    "from_identity": "VARCHAR", "from_name": "VARCHAR", "from_kind": "VARCHAR",
    "from_in_inventory": "BOOLEAN", "to_identity": "VARCHAR", "to_text": "VARCHAR",
    "to_kind": "VARCHAR", "to_in_inventory": "BOOLEAN", "kind": "VARCHAR", "protocol": "VARCHAR",
    "port": "INTEGER", "confidence": "DOUBLE", "observations": "BIGINT", "evidence": "VARCHAR",
}  # fmt: skip


def write_dependencies(workdir: Path, edges: Sequence[Edge]) -> dict[str, Path]:
    """`dependencies` (Parquet, one row per edge) and `dependencies_csv` for spreadsheets.

    `to_identity` is null where `to_text` could not be resolved.
    """
    spool, parquet, sheet = (
        workdir / "edges.ndjson",
        workdir / "dependencies.parquet",
        workdir / "dependencies.csv",
    )
    rows = [_row(edge) for edge in edges]
    with spool.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    columns = ", ".join(f"{literal(name)}: '{kind}'" for name, kind in _COLUMNS.items())
    with connect(workdir) as connection:
        connection.execute(
            f"COPY (SELECT * FROM read_json({literal(spool)}, format = 'newline_delimited', "  # noqa: S608 - quoted
            f"columns = {{{columns}}})) TO {literal(parquet)} (FORMAT parquet, COMPRESSION zstd)"
        )
    spool.unlink()
    with sheet.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\r\n")
        writer.writerow(_COLUMNS)
        for row in rows:
            writer.writerow(["" if v is None else spreadsheet_safe(str(v)) for v in row.values()])
    return {"dependencies": parquet, "dependencies_csv": sheet}


def _row(edge: Edge) -> dict[str, object]:
    target = edge.target
    return {
        "from_identity": edge.source.key,
        "from_name": edge.source.name,
        "from_kind": edge.source.kind,
        "from_in_inventory": edge.source.in_inventory,
        "to_identity": target.key if target else None,
        "to_text": edge.to_text,
        "to_kind": target.kind if target else None,
        "to_in_inventory": target.in_inventory if target else False,
        "kind": edge.kind,
        "protocol": edge.protocol,
        "port": edge.port,
        "confidence": edge.confidence,
        "observations": edge.observations,
        "evidence": json.dumps(edge.evidence, ensure_ascii=False),
    }


def write_groups(
    workdir: Path,
    moving: Sequence[Sequence[str]],
    circles: Sequence[Sequence[str]],
    plan: DependencyPlan,
    questions: Questions,
    edges: Sequence[Edge],
) -> Path:
    """`groups.json`: groups with their assets, cycles, shared services.

    The largest groups, where they have more than 50 nodes, also name the nodes without which they
    fall apart: one of them as a shared service splits the group.
    """
    kinds, shared = plan.joining_kinds or [], plan.shared_services or []
    groups = []
    for number, members in enumerate(moving, start=1):
        group: dict[str, object] = {
            "group": number,
            "size": len(members),
            "members": [{"node": key, "name": questions.name_of(key)} for key in members],
        }
        if len(members) > _LARGE and number <= _ADVISED:
            found = splitters(edges, kinds, shared, members)
            group["heldTogetherBy"] = [questions.name_of(key) for key in found]
        groups.append(group)
    path = workdir / "groups.json"
    content = {
        "groups": groups,
        "cycles": [[questions.name_of(key) for key in circle] for circle in circles],
        "sharedServices": [questions.name_of(key) for key in plan.shared_services or ()],
    }
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    return path
