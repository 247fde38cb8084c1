"""Commands about flows: create, list, describe, watch, stop, go on, end, once more, logs, open."""

from __future__ import annotations

import secrets
import sys
import time
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from discovery_core.resource import KIND
from kubernetes.client.exceptions import ApiException

from .cluster import Resource, flow_body, translated
from .common import FlowName, Output, Work, Yes, confirmed, settings_of, status_of
from .errors import CliError, ExitCode
from .output import Format, age, lines, name_of, say, structured, table, tell

ENDED = ("Succeeded", "Failed", "Rejected", "Cancelled")
CONFIG_MAP_BYTES = 1_000_000
app = typer.Typer()


@app.command()
def create(
    context: typer.Context,
    file: Annotated[
        Path, typer.Option("--file", "-f", help="A manifest (YAML), or a file to import.")
    ],
    name: Annotated[str | None, typer.Option(help="Default: from the file's name.")] = None,
    engagement: Annotated[str | None, typer.Option(help="Groups flows of one inventory.")] = None,
    format: Annotated[str, typer.Option(help="auto, csv, xlsx, json, ndjson, rvtools, zip.")] = (  # noqa: A002
        "auto"
    ),
    config_map: Annotated[
        bool, typer.Option(help="Put a small file into a ConfigMap instead of uploading it.")
    ] = False,
    dry_run: Annotated[bool, typer.Option(help="Only say whether it would be accepted.")] = False,
    output: Output = Format.NAME,
) -> None:
    """Create a flow from a manifest, or from a file to import."""
    work = Work.of(context)
    if not file.is_file():
        raise CliError(f"{file}: no such file", ExitCode.USAGE)
    body = _manifest(file) if file.suffix in (".yaml", ".yml") else None
    if body is None:
        chosen = name or _name_of(file)
        spec = {"source": _source(work, file, chosen, config_map=config_map, dry_run=dry_run)}
        spec["source"]["format"] = format
        body = flow_body(chosen, work.cluster.namespace, spec)
    if engagement:
        body["spec"]["engagement"] = engagement
    if name:
        body["metadata"]["name"] = name
    made = work.cluster.create(body, dry_run=dry_run)
    if output in (Format.JSON, Format.YAML):
        structured(made, output)
    else:
        say(f"{name_of(made)} created" + (" (dry run)" if dry_run else ""))


def _manifest(file: Path) -> Resource:
    try:
        body = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CliError(f"{file}: not YAML: {error}", ExitCode.USAGE) from error
    if not isinstance(body, dict) or body.get("kind") != KIND:
        raise CliError(f"{file}: not a {KIND}; apply other objects by kubectl", ExitCode.USAGE)
    body.setdefault("metadata", {})
    body.setdefault("spec", {})
    return body


def _source(
    work: Work, file: Path, name: str, *, config_map: bool, dry_run: bool
) -> dict[str, Any]:
    """The file as a source of the flow; with `dry_run` nothing is stored."""
    size = file.stat().st_size
    if config_map:
        if size > CONFIG_MAP_BYTES:
            raise CliError(
                f"{file} has {size} bytes, and a ConfigMap holds 1 MiB: leave --config-map out",
                ExitCode.USAGE,
            )
        if not dry_run:
            work.cluster.create_config_map(name, "source", file.read_bytes())
        return {"configMap": {"name": name, "key": "source"}}
    if dry_run:
        return {"artefact": {"digest": "sha256:" + "0" * 64, "name": file.name}}
    with file.open("rb") as stream:
        stored = work.api().upload(stream, size, namespace=work.cluster.namespace, name=file.name)
    tell(f"{file.name}: {stored['size']} bytes uploaded")
    return {"artefact": {"digest": stored["digest"], "name": stored["name"]}}


def _name_of(file: Path) -> str:
    stem = "".join(c if c.isascii() and c.isalnum() else "-" for c in file.stem.lower())
    return f"{'-'.join(filter(None, stem.split('-')))[:40] or 'flow'}-{secrets.token_hex(3)}"


@app.command("list")
def list_flows(
    context: typer.Context,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A")] = False,
    selector: Annotated[str, typer.Option("--selector", "-l", help="Labels.")] = "",
    engagement: Annotated[str, typer.Option(help="Only this engagement.")] = "",
    waiting: Annotated[bool, typer.Option(help="Only flows that wait for approval.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """List flows."""
    fields = [f"spec.engagement={engagement}"] if engagement else []
    fields += ["status.state=AwaitingApproval"] if waiting else []
    found = Work.of(context).cluster.flows(
        everywhere=all_namespaces, selector=selector, fields=",".join(fields)
    )
    if output is Format.NAME:
        for flow in found:
            say(name_of(flow))
    elif output is Format.TABLE:
        _table(found, everywhere=all_namespaces)
    else:
        structured({"items": found}, output)


def _table(found: list[Resource], *, everywhere: bool) -> None:
    if not found:
        tell("No flows found.")
        return
    head = ["NAME", "STATE", "PHASE", "PROGRESS", "MAPPINGS", "AGE"]
    rows = []
    for flow in found:
        status, meta = status_of(flow), flow["metadata"]
        asked = (status.get("approvalRequest") or {}).get("mappings", "")
        row = [meta["name"], status.get("state"), status.get("phase"), status.get("progress")]
        row += [asked, age(meta.get("creationTimestamp"))]
        rows.append([meta["namespace"], *row] if everywhere else row)
    table(["NAMESPACE", *head] if everywhere else head, rows)


@app.command()
def describe(context: typer.Context, name: FlowName, output: Output = Format.TABLE) -> None:
    """Show how a flow stands, what it asks, and what has happened."""
    work = Work.of(context)
    flow = work.cluster.get(name)
    history: list[dict[str, Any]] = []
    try:
        history = work.api().get(f"/flows/{flow['metadata']['uid']}/history")
    except CliError as error:
        tell(f"The history is not shown: {error.message}")
    if output is Format.NAME:
        say(name_of(flow))
    elif output is not Format.TABLE:
        structured({"flow": flow, "history": history}, output)
    else:
        _described(flow, history)


def _described(flow: Resource, history: list[dict[str, Any]]) -> None:
    status, spec = status_of(flow), flow["spec"]
    request = status.get("approvalRequest")
    shown = [
        ("Name", flow["metadata"]["name"]),
        ("Namespace", flow["metadata"]["namespace"]),
        ("Engagement", spec.get("engagement")),
        ("Requested by", spec.get("requestedBy")),
        ("State", status.get("state") or "Pending"),
        ("Phase", f"{status.get('phase', '')} {status.get('progress', '')}"),
        ("Round, attempt", f"{status.get('round', 1)}, {status.get('attempt') or '-'}"),
        ("Rows imported", status.get("recordsImported", "-")),
        ("Rows rejected", status.get("recordsRejected", "-")),
        ("Assets", status.get("assets", "-")),
        ("Message", status.get("message")),
    ]  # fmt: skip
    if request:
        shown += [
            ("Asks about", f"{request['mappings']} mappings, until {request['expiresAt']}"),
            ("Request", request["requestId"]),
            ("Digest", request["artefactDigest"]),
        ]
    for label, value in shown:
        if value not in (None, ""):
            say(f"{label + ':':16}{value}")
    for condition in status.get("conditions", []):
        say(f"{'Condition:':16}{condition['type']}={condition['status']} ({condition['reason']})")
    if history:
        say("")
        table(
            ["WHEN", "WHO", "WHAT", "STATE", "PHASE", "MESSAGE"],
            [
                [entry["at"][:19], entry["actor"], entry["trigger"], entry["to_state"],
                 entry["phase"], entry["message"][:80]]
                for entry in history
            ],
        )  # fmt: skip


@app.command()
def watch(
    context: typer.Context,
    name: FlowName,
    until: Annotated[
        str, typer.Option("--for", help="End at this state; default: at any end.")
    ] = "",
    timeout: Annotated[float, typer.Option(help="Seconds; 0: no limit.")] = 0,
) -> None:
    """Follow a flow until it ends. A flow that fails ends the command with 1."""
    work = Work.of(context)
    deadline = time.monotonic() + timeout if timeout else None
    shown = ""
    while True:
        status = status_of(work.cluster.get(name))
        state = status.get("state") or "Pending"
        line = f"{state:17}{status.get('progress') or '':5}{status.get('message') or ''}"
        if line != shown:
            shown = line
            say(line)
        if state == until or (not until and state in ENDED):
            break
        if until and state in ENDED:
            raise CliError(f"{name} is {state}, and will not be {until}")
        if deadline is not None and time.monotonic() >= deadline:
            raise CliError(f"{name} is still {state}", ExitCode.TIMED_OUT)
        time.sleep(1)
    if not until and state != "Succeeded":
        raise CliError(f"{name} is {state}")


def _set_state(context: typer.Context, name: str, state: str, done: str) -> None:
    Work.of(context).cluster.set_spec(name, "state", state)
    say(f"{name} {done}")


@app.command()
def suspend(context: typer.Context, name: FlowName) -> None:
    """Stop a flow until it is resumed."""
    _set_state(context, name, "Suspend", "will be suspended")


@app.command()
def resume(context: typer.Context, name: FlowName) -> None:
    """Go on with a suspended flow."""
    _set_state(context, name, "Run", "will go on")


@app.command()
def cancel(context: typer.Context, name: FlowName, yes: Yes = False) -> None:
    """End a flow for good."""
    if not confirmed(f"Cancel {name} for good?", yes=yes):
        raise CliError("nothing is changed")
    _set_state(context, name, "Cancel", "will be cancelled")


@app.command()
def retry(
    context: typer.Context,
    name: FlowName,
    from_phase: Annotated[
        str | None,
        typer.Option(
            help="data_import … migration_strategy, or approval (ask again about the same "
            "mappings). Default: the phase that the flow is in."
        ),
    ] = None,
    hint: Annotated[str | None, typer.Option(help="What to do otherwise.")] = None,
    rerun_id: Annotated[
        str, typer.Option("--id", help="The same id counts once. Default: a new one.")
    ] = "",
) -> None:
    """Run a flow once more from a phase; later results are superseded."""
    work = Work.of(context)
    flow = work.cluster.get(name)
    if rerun_id and (flow["spec"].get("rerun") or {}).get("id") == rerun_id:
        say(f"{name}: {rerun_id} has been asked for already")
        return
    status = status_of(flow)
    rejected = status.get("state") == "Rejected"
    phase = from_phase or ("approval" if rejected else status.get("phase") or "data_import")
    wanted = {"id": rerun_id or f"cli-{secrets.token_hex(6)}", "fromPhase": phase}
    if hint:
        wanted["hint"] = hint
    work.cluster.set_spec(name, "rerun", wanted)
    before = status.get("round") or 1
    seen = work.cluster.wait(
        name,
        lambda flow: (
            (status_of(flow).get("round") or 1) > before
            or wanted["id"] in (status_of(flow).get("message") or "")
        ),
        10,
    )
    if seen is None:
        say(f"{name}: asked for, and not begun yet")
    elif (status_of(seen).get("round") or 1) > before:
        say(f"{name}: round {status_of(seen)['round']} begins with {phase}")
    else:
        raise CliError(str(status_of(seen)["message"]), ExitCode.CONFLICT)


@app.command()
def logs(
    context: typer.Context,
    name: FlowName,
    phase: Annotated[str, typer.Option(help="Only this phase.")] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f")] = False,
) -> None:
    """Print the logs of the flow's crew pods, as long as they are there."""
    work = Work.of(context)
    flow = work.cluster.get(name)
    pods = [
        pod
        for pod in work.cluster.crew_pods(flow)
        if not phase or (pod.metadata.labels or {}).get("discoveryflow.dev/phase") == phase
    ]
    if not pods:
        raise CliError(
            f"{name} has no pods{f' of {phase}' if phase else ''}: they are removed some time "
            "after they end; `describe` has the history",
            ExitCode.NOT_FOUND,
        )
    for pod in pods:
        labels = pod.metadata.labels or {}
        tell(f"== {labels.get('discoveryflow.dev/phase', '')} {pod.metadata.name}")
        try:
            with translated():
                stream = work.cluster.core.read_namespaced_pod_log(
                    pod.metadata.name, pod.metadata.namespace, follow=follow, _preload_content=False
                )
                lines(stream.stream())
        except ApiException as error:  # pragma: no cover - translated above
            raise CliError(str(error)) from error


@app.command("open")
def open_page(
    context: typer.Context,
    name: FlowName,
    url: Annotated[str, typer.Option(envvar="DISCOVERYFLOW_URL", help="Where the pages are.")] = "",
    no_browser: Annotated[bool, typer.Option(help="Only print the address.")] = False,
) -> None:
    """Open the flow's page in a browser."""
    work = Work.of(context)
    base = url or settings_of(context).api.url
    if not base:
        raise CliError(
            "say where the pages are: --url https://… or DISCOVERYFLOW_URL (Helm value "
            "api.publicUrl)",
            ExitCode.USAGE,
        )
    place = f"{base.rstrip('/')}/flows/{work.flow_id(name)}"
    say(place)
    if not no_browser and sys.stdout.isatty():
        webbrowser.open(place)
