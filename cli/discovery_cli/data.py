"""Commands for bulk data, which comes from the user API: rejected rows and exports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from .common import FlowName, OutFile, Output, Work, Yes, confirmed
from .errors import CliError, ExitCode
from .output import Format, content, say, structured, table, tell

app = typer.Typer()


@app.command("rejected-rows")
def rejected_rows(context: typer.Context, name: FlowName, file: OutFile = None) -> None:
    """Get the rows that were not imported, as CSV; correct them and submit them again."""
    work = Work.of(context)
    _write(work.api().download(f"/flows/{work.flow_id(name)}/rejected-rows"), file)


@app.command()
def export(
    context: typer.Context,
    name: FlowName,
    format: Annotated[  # noqa: A002 - the option's name
        str, typer.Option(help="Name of a file of the flow; without one they are listed.")
    ] = "",
    file: OutFile = None,
    output: Output = Format.TABLE,
) -> None:
    """List the flow's files, or get one of them, such as assets_csv."""
    work = Work.of(context)
    flow_id, api = work.flow_id(name), work.api()
    found: list[dict[str, Any]] = api.get(f"/flows/{flow_id}/artefacts")
    if not format:
        if output in (Format.JSON, Format.YAML):
            structured(found, output)
            return
        rows = [
            [entry["name"], entry["phase"], entry["size"], entry["file_name"]] for entry in found
        ]
        table(["NAME", "PHASE", "BYTES", "FILE"], rows)
        return
    chosen = [entry for entry in found if entry["name"] == format]
    if not chosen:
        known = ", ".join(sorted({entry["name"] for entry in found})) or "none yet"
        raise CliError(f"{name} has no file {format!r}; there are: {known}", ExitCode.NOT_FOUND)
    entry = chosen[-1]
    _write(api.download(f"/flows/{flow_id}/artefacts/{entry['phase']}/{entry['name']}"), file)


@app.command()
def purge(
    context: typer.Context,
    name: FlowName,
    inventory: Annotated[
        bool,
        typer.Option(help="Also take the flow's rows out of its engagement's inventory."),
    ] = False,
    yes: Yes = False,
) -> None:
    """Remove the data of an ended flow for good: files, history, approvals.

    The record of the removal stays, with who decided what, and so does the resource. Needs the
    verb purge.
    """
    what = "data and its part of the inventory" if inventory else "data"
    if not confirmed(f"Remove the {what} of {name} for good?", yes=yes):
        raise CliError("nothing is changed")
    work = Work.of(context)
    chosen = "remove" if inventory else "keep"
    asked = work.api().delete(f"/flows/{work.flow_id(name)}/data", inventory=chosen)
    say(f"{name} will be purged ({asked['purge_id']})")


def _write(pieces: Iterator[bytes], file: Path | None) -> None:
    """To a file, which is there whole or not at all, or to standard output."""
    if file is None:
        if sys.stdout.isatty():
            tell("(--file writes to a file)")
        content(pieces)
        return
    part = file.with_name(file.name + ".part")
    try:
        with part.open("wb") as stream:
            for piece in pieces:
                stream.write(piece)
        part.replace(file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    tell(f"{file} written")
