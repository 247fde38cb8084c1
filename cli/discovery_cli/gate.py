"""Commands at the gate: see the mappings, approve, edit, reject, ask again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from discovery_core.resource_gate import MappingEdit

from . import edit as editing
from .cluster import Resource
from .common import FlowName, Output, Work, Yes, confirmed, status_of
from .errors import CliError, ExitCode
from .output import Format, plain, say, structured, table

WAIT_SECONDS = 5.0
app = typer.Typer()

Reason = Annotated[str, typer.Option(help="Why; kept in the history.")]


@app.command()
def mappings(context: typer.Context, name: FlowName, output: Output = Format.TABLE) -> None:
    """Show the mappings in question, the least certain first."""
    _, shown = _asked(Work.of(context), name)
    found = sorted(shown["ui_state"]["mappings_to_approve"], key=lambda entry: entry["confidence"])
    if output is Format.NAME:
        for mapping in found:
            say(mapping["column"])
    elif output is not Format.TABLE:
        findings = shown["ui_state"].get("findings", [])
        whole = {"request": shown["approval_request"], "mappings": found, "findings": findings}
        structured(whole, output)
    else:
        table(
            ["COLUMN", "TARGET", "UNIT", "CONFIDENCE", "SAMPLES", "WHY"],
            [
                [entry["column"], entry["target"] or "-", entry["transform"] or "",
                 f"{entry['confidence']:.2f}", ", ".join(entry["samples"][:2])[:40],
                 entry["reason"][:70]]
                for entry in found
            ],
        )  # fmt: skip
        for finding in shown["ui_state"].get("findings", []):
            say(f"! {plain(finding)}")


@app.command()
def approve(context: typer.Context, name: FlowName, reason: Reason = "") -> None:
    """Approve the mappings as they are proposed."""
    _answer(Work.of(context), name, {"decision": "Approve", "reason": reason})


@app.command()
def reject(context: typer.Context, name: FlowName, reason: Reason = "", yes: Yes = False) -> None:
    """Reject the mappings; the flow ends as Rejected."""
    if not confirmed(f"Reject the mappings of {name}? The flow ends.", yes=yes):
        raise CliError("nothing is changed")
    _answer(Work.of(context), name, {"decision": "Reject", "reason": reason})


@app.command("ask-again")
def ask_again(
    context: typer.Context,
    name: FlowName,
    hint: Annotated[
        str, typer.Option(help="What to do otherwise; lines such as `Column -> field`.")
    ] = "",
    reason: Reason = "",
) -> None:
    """Have the mapping done once more, with a hint."""
    _answer(Work.of(context), name, {"decision": "AskAgain", "hint": hint, "reason": reason})


@app.command("edit")
def edit_mappings(
    context: typer.Context,
    name: FlowName,
    from_file: Annotated[
        Path | None, typer.Option(help="Take the changed YAML from here, without an editor.")
    ] = None,
    reason: Reason = "",
    yes: Yes = False,
) -> None:
    """Change the mappings in $EDITOR and approve them; checked before anything is sent."""
    work = Work.of(context)
    flow, shown = _asked(work, name)
    proposed, request = shown["ui_state"]["mappings_to_approve"], shown["approval_request"]
    findings = shown["ui_state"].get("findings", [])
    before = editing.document(name, proposed, request["targets"], findings)
    after = from_file.read_text(encoding="utf-8") if from_file else editing.in_editor(before)
    try:
        edits = editing.changes(after, proposed, request)
    except CliError:
        if from_file is None:
            editing.kept(after)
        raise
    if not edits:
        say(f"{name}: nothing is changed, and nothing is sent")
        return
    for change in edits:
        unit = f" ({change.transform})" if change.transform else ""
        say(f"{change.column} -> {change.target or 'not mapped'}{unit}")
    if not confirmed(f"Approve with these {len(edits)} changes?", yes=yes or from_file is not None):
        editing.kept(after)
        raise CliError("nothing is sent")
    _answer(work, name, {"decision": "Approve", "reason": reason}, edits=edits, flow=flow)


def _asked(work: Work, name: str) -> tuple[Resource, dict[str, Any]]:
    """The flow, and what it asks as the API shows it. Raises CliError where it asks nothing."""
    flow = work.cluster.get(name)
    _request(flow)
    shown = work.api().get(f"/flows/{flow['metadata']['uid']}")
    if not shown["ui_state"]["show_approval_ui"]:
        raise CliError(f"{name} asks nothing now; it is {shown['state']}", ExitCode.CONFLICT)
    return flow, dict(shown)


def _request(flow: Resource) -> dict[str, Any]:
    status = status_of(flow)
    request = status.get("approvalRequest")
    if not request:
        state = status.get("state") or "Pending"
        raise CliError(
            f"{flow['metadata']['name']} asks nothing now; it is {state}", ExitCode.CONFLICT
        )
    return dict(request)


def _answer(
    work: Work,
    name: str,
    answer: dict[str, Any],
    *,
    edits: list[MappingEdit] | None = None,
    flow: Resource | None = None,
) -> None:
    """Writes the answer, and says what became of it."""
    request = _request(flow or work.cluster.get(name))
    value = answer | {
        "requestId": request["requestId"],
        "artefactDigest": request["artefactDigest"],
        "decidedBy": work.cluster.user_name(),
    }
    if edits:
        value["edits"] = [
            change.model_dump(mode="json", by_alias=True, exclude_none=True) for change in edits
        ]
    work.cluster.set_spec(name, "approval", value)

    def decided(found: Resource) -> bool:
        now = (status_of(found).get("approvalRequest") or {}).get("requestId")
        return bool(now != request["requestId"])

    seen = work.cluster.wait(name, decided, WAIT_SECONDS)
    if seen is None:
        told = status_of(work.cluster.get(name)).get("message") or ""
        say(f"{name}: the answer is written and not a decision yet. {told}".strip())
        return
    status = status_of(seen)
    if "the answer was refused" in (status.get("message") or ""):
        raise CliError(f"{name}: {status['message']}")
    done = {"Approve": "approved", "Reject": "rejected", "AskAgain": "asked again"}
    say(f"{name} {done[answer['decision']]}")
