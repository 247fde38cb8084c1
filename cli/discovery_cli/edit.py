"""Mappings as YAML for an editor, and back: what was changed, checked before it is sent."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from discovery_core.errors import InvalidAnswerError
from discovery_core.mapping_edits import apply_edits
from discovery_core.resource_gate import MappingEdit
from discovery_core.wire.results import FieldMapping, TargetDescription
from pydantic import ValidationError

from .errors import CliError, ExitCode
from .output import as_yaml, plain, warn

_HEAD = """\
# Mappings of {name}. Change `target` (empty: not mapped) and `unit` (unit:MiB, decimal:comma, both
# with a comma between, or none), save and leave the editor. An unchanged file, or an empty one,
# sends nothing. Lines with # are remarks.
# Targets: {targets}
"""


def document(
    name: str,
    mappings: list[dict[str, Any]],
    targets: list[str],
    findings: Sequence[str] = (),
) -> str:
    """What the editor shows: findings, then the least certain columns first."""
    lines = [_HEAD.format(name=plain(name), targets=plain(", ".join(targets)))]
    lines += [f"# ! {plain(_one_line(finding))}" for finding in findings]
    for mapping in sorted(mappings, key=lambda entry: entry["confidence"]):
        samples = plain(", ".join(_one_line(text)[:30] for text in mapping["samples"][:3]))
        others = plain(", ".join(candidate["target"] for candidate in mapping["candidates"]))
        entry = {
            "column": mapping["column"],
            "target": mapping["target"] or "",
            "unit": mapping["transform"] or "",
        }
        lines.append(
            f"# {mapping['confidence']:.2f} {plain(_one_line(mapping['reason']))}\n"
            f"#   samples: {samples}\n#   alternatives: {others}\n{as_yaml([entry])}"
        )
    return "\n".join(lines)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def changes(
    text: str, mappings: list[dict[str, Any]], request: dict[str, Any]
) -> list[MappingEdit]:
    """The edits that a changed document asks for. Raises CliError naming each fault."""
    try:
        content = yaml.safe_load(text) or []
    except yaml.YAMLError as error:
        raise CliError(f"the file is not YAML: {error}", ExitCode.USAGE) from error
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise CliError("the file is a list of column, target and unit", ExitCode.USAGE)
    known = {mapping["column"]: mapping for mapping in mappings}
    edits, problems = [], []
    for entry in content:
        column = str(entry.get("column", ""))
        target, unit = str(entry.get("target") or ""), str(entry.get("unit") or "")
        before = known.get(column)
        if before is None:
            problems.append(f"there is no column {column!r}")
            continue
        same_unit = unit == (before["transform"] or "")
        if target == (before["target"] or "") and same_unit:
            continue
        try:
            transform = None if same_unit else unit or "none"
            edits.append(MappingEdit(column=column, target=target, transform=transform))
        except ValidationError as error:
            problems += [f"column {column!r}: {item['msg']}" for item in error.errors()]
    if not problems:
        problems = faults(edits, mappings, request)
    if problems:
        raise CliError("the changes cannot be sent:", ExitCode.USAGE, problems)
    return edits


def faults(
    edits: list[MappingEdit], mappings: list[dict[str, Any]], request: dict[str, Any]
) -> list[str]:
    """What the operator would say about the edits."""
    try:
        apply_edits(
            [FieldMapping.model_validate(mapping) for mapping in mappings],
            edits,
            request["targets"],
            [TargetDescription.model_validate(field) for field in request.get("fields", [])],
        )
    except InvalidAnswerError as error:
        return list(error.problems)
    return []


def in_editor(text: str) -> str:
    """The text after a person has edited it with $VISUAL or $EDITOR. Raises CliError."""
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory(prefix="discoveryflow-") as folder:
        file = Path(folder) / "mappings.yaml"
        file.write_text(text, encoding="utf-8")
        try:
            done = subprocess.run([*shlex.split(command), str(file)], check=False)
        except OSError as error:
            raise CliError(f"the editor {command!r} does not start: {error}") from error
        if done.returncode:
            raise CliError(f"the editor {command!r} ended with {done.returncode}; nothing is sent")
        return file.read_text(encoding="utf-8")


def kept(text: str) -> Path:
    """Keeps a refused text, so that nothing typed is lost."""
    handle, path = tempfile.mkstemp(prefix="discoveryflow-", suffix=".yaml")
    os.close(handle)
    Path(path).write_text(text, encoding="utf-8")
    warn(f"Your changes are kept in {path}; --from-file sends them again.")
    return Path(path)
