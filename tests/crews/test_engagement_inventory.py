"""Flows of an engagement plan and analyse with its merged inventory, not with their own alone."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import duckdb
from discovery_core.phases import Phase
from discovery_core.wire.results import DependencyResult, StrategyResult
from discovery_crews.inventory_file import inventory_of
from discovery_crews.local_run import LocalRun
from discovery_crews.phase import PhaseContext, PhaseOutcome
from discovery_crews.runner import load_phase

SERVERS = (
    "Name,IP address,OS,Cores,Memory (MB),Power state,Rack\n"
    "web01,192.0.2.61,Windows Server 2019,4,8192,poweredOn,R1\n"
    "db01,192.0.2.62,Windows Server 2019,8,32768,poweredOn,R2\n"
    "old01,192.0.2.63,Windows Server 2008,2,1024,poweredOff,R2\n"
)
FLOWS = (
    "Source server name,Source IP,Destination server name,Destination IP,Destination port\n"
    "web01,192.0.2.61,db01,192.0.2.62,1433\n"
    "legacy-app,192.0.2.61,db01,192.0.2.62,1434\n"
    "web01,192.0.2.61,,203.0.113.9,443\n"
)


def flow(folder: Path, text: str) -> LocalRun:
    """A flow up to its inventory."""
    folder.mkdir()
    source = folder / "export.csv"
    source.write_text(text)
    (folder / "run").mkdir()
    local = LocalRun(source, folder / "run")
    local.run(Phase.ASSET_INVENTORY)
    return local


def merged(path: Path, *flows: LocalRun, own: LocalRun | None = None) -> Path:
    """What the execution API hands over of these flows; each identity is known to one of them."""
    assets: dict[str, dict[str, Any]] = {}
    for local in flows:
        records = local.outcomes[Phase.ASSET_INVENTORY].records
        for line in records.read_text().splitlines() if records else ():
            record = json.loads(line)
            asset = assets.setdefault(record["identity"], {
                "identity": record["identity"], "name": record["name"],
                "asset_type": record["assetType"], "class_rule": record["classRule"],
                "identity_confidence": record["identityConfidence"], "rows": [], "fields": {},
                "unmapped": {},
            })  # fmt: skip
            asset["rows"] += [record["row"]] if local is own else []
            asset["fields"] |= record["values"]
            asset["unmapped"] |= record["unmapped"]
    lines = [json.dumps(assets[identity]) + "\n" for identity in sorted(assets)]
    path.write_bytes(gzip.compress("".join(lines).encode()))
    return path


def run(local: LocalRun, phase: Phase, folder: Path, **inputs: Path) -> PhaseOutcome:
    """A phase with the flow's own artefacts, and what comes of the engagement."""
    made = {
        name: path
        for outcome in local.outcomes.values()
        for name, path in outcome.artefacts.items()
    }
    records = local.outcomes[Phase.DATA_CLEANSING].artefacts["records"]
    given = {"records": records, "mappings": local.scratch / "mappings.json"}
    folder.mkdir()
    outcome: PhaseOutcome = load_phase(str(phase))(PhaseContext(folder, made | given | inputs))
    return outcome


def table(path: Path) -> list[dict[str, Any]]:
    with duckdb.connect() as connection:
        found = connection.execute(f"SELECT * FROM '{path}'")
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def edges(outcome: PhaseOutcome) -> set[tuple[str, str, int | None]]:
    return {
        (row["from_name"], row["to_text"] if row["to_identity"] is None else "=" + row["to_text"],
         row["port"])
        for row in table(outcome.artefacts["dependencies"])
    }  # fmt: skip


def test_a_second_flow_plans_and_exports_all_assets_of_the_engagement(tmp_path: Path) -> None:
    first, second = (
        flow(tmp_path / "a", SERVERS),
        flow(tmp_path / "b", "Hostname,Cores,Owner\nnew01,2,ann\n"),
    )
    everything = merged(tmp_path / "all", first, second, own=second)
    found = run(second, Phase.DEPENDENCY_ANALYSIS, tmp_path / "d", engagementInventory=everything)
    outcome = run(
        second, Phase.MIGRATION_STRATEGY, tmp_path / "s", engagementInventory=everything,
        dependencies=found.artefacts["dependencies"],
    )  # fmt: skip
    result = outcome.result
    assert isinstance(result, StrategyResult)
    assert (result.assets, result.by_strategy["retire"]) == (4, 1)
    listed = list(csv.DictReader(outcome.artefacts["assets_csv"].open()))
    assert {row["name"] for row in listed} == {"web01", "db01", "old01", "new01"}
    assert len(list(csv.DictReader(outcome.artefacts["aws-import"].open()))) == 4
    alone = run(second, Phase.DEPENDENCY_ANALYSIS, tmp_path / "e")
    own = run(second, Phase.MIGRATION_STRATEGY, tmp_path / "o", **alone.artefacts)
    assert isinstance(own.result, StrategyResult)
    assert own.result.assets == 1


def test_the_merged_inventory_of_one_flow_is_its_own(tmp_path: Path) -> None:
    """The same columns of the same types, so that exports do not differ."""
    only = flow(tmp_path / "a", SERVERS)
    own = only.outcomes[Phase.ASSET_INVENTORY].artefacts["inventory"]
    path = merged(tmp_path / "all", only, own=only)
    made = inventory_of(PhaseContext(tmp_path, {"inventory": own, "engagementInventory": path}))

    def columns(file: Path) -> dict[str, str]:
        described = duckdb.execute(f"DESCRIBE SELECT * FROM '{file}'").fetchall()
        return {name: str(kind).replace("JSON", "VARCHAR") for name, kind, *_ in described}

    assert columns(made) == columns(own)

    def shown(file: Path) -> list[dict[str, Any]]:
        rows = sorted(table(file), key=lambda row: str(row["identity"]))
        return [row | {"unmapped": json.loads(row["unmapped"])} for row in rows]

    assert shown(made) == shown(own)


def test_fields_that_no_schema_knows_keep_their_kind(tmp_path: Path) -> None:
    lines = [
        {"identity": "a", "fields": {"x_wave": 3, "x_tags": ["p", "q"], "x_ok": True, "rows": "r"}},
        {"identity": "b", "fields": {"x_wave": 2.5, "x_mixed": "two", "memory_gb": 16}},
        {"identity": "c", "fields": {"x_mixed": 2}},
    ]
    path = tmp_path / "all"
    path.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))
    made = table(inventory_of(PhaseContext(tmp_path, {"engagementInventory": path})))
    assert [row["x_wave"] for row in made] == [3.0, 2.5, None]
    assert made[0]["x_tags"] == ["p", "q"]
    assert made[0]["x_ok"] is True
    assert made[0]["mapped.rows"] == "r"
    assert [row["x_mixed"] for row in made] == [None, "two", "2"]
    assert made[1]["memory_gb"] == 16.0


def test_an_engagement_without_assets_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "all"
    path.write_bytes(gzip.compress(b""))
    made = inventory_of(PhaseContext(tmp_path, {"engagementInventory": path}))
    assert table(made) == []


def test_connections_of_a_later_flow_lead_to_servers_of_an_earlier_one(tmp_path: Path) -> None:
    servers, flows = flow(tmp_path / "a", SERVERS), flow(tmp_path / "b", FLOWS)
    everything = merged(tmp_path / "all", servers, flows, own=flows)
    outcome = run(flows, Phase.DEPENDENCY_ANALYSIS, tmp_path / "d", engagementInventory=everything)
    # the third row is known by its address alone
    assert edges(outcome) == {
        ("web01", "=db01", 1433), ("web01", "=db01", 1434), ("web01", "203.0.113.9", 443),
    }  # fmt: skip
    result = outcome.result
    assert isinstance(result, DependencyResult)
    assert (result.assets_connected, result.unresolved, result.groups) == (2, 1, 1)


def test_connections_of_an_earlier_flow_lead_to_servers_of_a_later_one(tmp_path: Path) -> None:
    flows, servers = flow(tmp_path / "b", FLOWS), flow(tmp_path / "a", SERVERS)
    before = run(flows, Phase.DEPENDENCY_ANALYSIS, tmp_path / "d")
    assert isinstance(before.result, DependencyResult)
    assert before.result.unresolved == 3
    everything = merged(tmp_path / "all", flows, servers, own=servers)
    outcome = run(
        servers, Phase.DEPENDENCY_ANALYSIS, tmp_path / "e", engagementInventory=everything,
        otherDependencies0=before.artefacts["dependencies"],
    )  # fmt: skip
    assert edges(outcome) == {
        ("web01", "=db01", 1433), ("web01", "=db01", 1434), ("web01", "203.0.113.9", 443),
    }  # fmt: skip
    # what a third flow is given of it is given once: by the flow whose source says so
    third = run(
        servers, Phase.DEPENDENCY_ANALYSIS, tmp_path / "f", engagementInventory=everything,
        otherDependencies0=outcome.artefacts["dependencies"],
    )  # fmt: skip
    assert edges(third) == set()


def test_edges_of_other_flows_assets_say_that_another_flow_says_so(tmp_path: Path) -> None:
    first = flow(tmp_path / "a", "Hostname,Depends on,OS\nweb,db,Linux\ndb,,Linux\n")
    second = flow(tmp_path / "b", "Hostname,OS\napp,Linux\n")
    everything = merged(tmp_path / "all", first, second, own=second)
    outcome = run(second, Phase.DEPENDENCY_ANALYSIS, tmp_path / "d", engagementInventory=everything)
    (edge,) = table(outcome.artefacts["dependencies"])
    evidence = json.loads(edge["evidence"])[0]
    assert (edge["from_name"], edge["to_text"], edge["observations"]) == ("web", "db", 1)
    assert (evidence["rows"], evidence["column"]) == (
        [], "depends_on (another flow of the engagement)",
    )  # fmt: skip
