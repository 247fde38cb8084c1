"""What the phases have found: quality, rows, inventory, dependencies, strategies, files."""

from __future__ import annotations

import csv
import io
import json
from typing import Annotated, Any

from discovery_core.errors import NotFoundError
from discovery_core.phases import Phase
from discovery_core.store.inventory.assets import AssetSource
from discovery_core.store.reads.contents import AssetRow
from discovery_core.wire.results import ColumnProfile, QualityPart, RuleApplication
from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, TypeAdapter

from ..context import Visit, Visited
from .files import content, download, saved_as

router = APIRouter(prefix="/api/v1/discovery/flows/{flow_id}", tags=["results"])
MOST_EDGES = 2000
_COLUMNS = TypeAdapter(list[ColumnProfile])
MISSING: dict[int | str, dict[str, Any]] = {
    404: {"description": "no such flow, or its phase has no result yet; `detail` says which"}
}


class HistoryEntry(BaseModel):
    """One entry of the append-only history."""

    sequence: int
    at: str
    actor: str
    trigger: str
    from_state: str | None
    to_state: str
    phase: str | None
    round: int
    attempt: int | None
    message: str
    details: dict[str, Any]


class Quality(BaseModel):
    """How good the source is, by its parts, and what cleansing has changed."""

    quality_score: float | None
    quality: list[QualityPart]
    findings: list[str]
    columns: list[ColumnProfile]
    rules: list[RuleApplication]
    rows_imported: int | None
    rows_rejected: int | None


class Preview(BaseModel):
    """The first rows; null is a missing value, `numbers` are the rows' numbers in the source."""

    columns: list[str]
    numbers: list[int | None]
    rows: list[list[str | None]]
    total: int


class AssetPage(BaseModel):
    """A page of the inventory of the flow's engagement."""

    items: list[AssetRow]
    next_cursor: str | None
    total: int
    by_type: dict[str, int]


class Edge(BaseModel):
    """One dependency with its evidence."""

    source: str
    target: str
    kind: str
    protocol: str | None
    port: int | None
    confidence: float
    evidence: Any


class Node(BaseModel):
    """An end of dependencies."""

    id: str
    name: str
    kind: str
    in_inventory: bool


class Graph(BaseModel):
    """Dependencies as a graph. `truncated`: there are more edges than are shown."""

    nodes: list[Node]
    edges: list[Edge]
    groups: list[Any]
    cycles: list[Any]
    shared_services: list[str]
    truncated: bool


class Strategies(BaseModel):
    """How the assets are to be migrated, in figures; the file `strategies` has every asset."""

    assets: int
    by_strategy: dict[str, int]
    mean_technical_debt: float | None
    end_of_life: int
    gaps: dict[str, int]
    findings: list[str]
    summary: str


class ArtefactView(BaseModel):
    """A file that a phase has made."""

    phase: str
    round: int
    attempt: int
    name: str
    digest: str
    size: int = Field(description="bytes")
    media_type: str
    file_name: str


@router.get("/history", response_model=list[HistoryEntry])
async def get_history(
    visited: Visited, after: Annotated[int, Query(ge=0, le=2**62)] = 0
) -> list[HistoryEntry]:
    """Who did what, when; the oldest first, after a sequence number."""
    events = await visited.store.history(visited.tenant_id, visited.flow_id, after)
    return [
        HistoryEntry(
            sequence=event.sequence,
            at=event.at.isoformat(),
            actor=event.actor,
            trigger=event.trigger,
            from_state=event.from_state,
            to_state=event.to_state,
            phase=event.phase,
            round=event.round,
            attempt=event.attempt,
            message=event.message,
            details=event.details,
        )
        for event in events
    ]


@router.get("/quality", response_model=Quality, responses=MISSING)
async def get_quality(visited: Visited) -> Quality:
    """The source's quality score with its parts, findings, columns, and applied rules."""
    results = await visited.store.results(visited.tenant_id, visited.flow_id)
    imported = _result(results, Phase.DATA_IMPORT)
    cleansed = results.get(Phase.DATA_CLEANSING, {})
    profile = _COLUMNS.validate_json(await content(visited, Phase.DATA_IMPORT, "profile"))
    return Quality.model_validate(
        {
            "quality_score": imported.get("qualityScore"),
            "quality": imported.get("quality", []),
            "findings": imported.get("findings", []),
            "columns": profile,
            "rules": cleansed.get("rules", []),
            "rows_imported": imported.get("rowsImported"),
            "rows_rejected": imported.get("rowsRejected"),
        }
    )


@router.get("/records", response_model=Preview, responses=MISSING)
async def get_records(
    visited: Visited,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    phase: Annotated[
        Phase | None, Query(description="data_import or data_cleansing; default: the later one")
    ] = None,
) -> Preview:
    """The first rows as they were imported, or cleansed."""
    results = await visited.store.results(visited.tenant_id, visited.flow_id)
    latest = Phase.DATA_CLEANSING if Phase.DATA_CLEANSING in results else Phase.DATA_IMPORT
    shown = json.loads(await content(visited, phase or latest, "preview"))
    return Preview.model_validate(
        shown | {"rows": shown["rows"][:limit], "numbers": shown["numbers"][:limit]}
    )


@router.get("/rejected-rows", responses=MISSING, response_class=StreamingResponse)
async def get_rejected_rows(visited: Visited) -> Response:
    """Rows that were not imported, as CSV with what is wrong; correct it and submit it again."""
    return await download(visited, Phase.DATA_IMPORT, "rejected", "rejected-rows")


@router.get("/assets", response_model=AssetPage)
async def get_assets(
    visited: Visited,
    q: Annotated[str, Query(max_length=200, description="part of a name or identity")] = "",
    asset_type: Annotated[str, Query(alias="type", max_length=63)] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str, Query(max_length=1024)] = "",
) -> AssetPage:
    """The inventory of the flow's engagement, all its flows merged."""
    flow = await visited.flow()
    items = await visited.store.list_assets(
        visited.tenant_id,
        flow.engagement,
        search=_storable(q),
        asset_type=_storable(asset_type),
        after=_storable(cursor),
        limit=limit,
    )
    summary = await visited.store.inventory_summary(visited.tenant_id, flow.engagement)
    return AssetPage(
        items=items,
        next_cursor=items[-1].identity if len(items) == limit else None,
        total=summary["assets"],
        by_type=summary["by_type"],
    )


@router.get("/assets/sources", response_model=list[AssetSource])
async def get_asset_sources(
    visited: Visited,
    identity: Annotated[str, Query(min_length=1, max_length=512)],
) -> list[AssetSource]:
    """The source rows of an asset: each value with its original text, its unit and the rule."""
    flow = await visited.flow()
    return await visited.store.asset_sources(
        visited.tenant_id, flow.engagement, _storable(identity)
    )


def _storable(text: str) -> str:
    """Without NUL, which the database cannot compare with."""
    return text.replace("\0", "")


@router.get("/dependencies", response_model=Graph, responses=MISSING)
async def get_dependencies(visited: Visited) -> Graph:
    """What needs what, and what should move together."""
    return await dependency_graph(visited)


@router.get("/strategies", response_model=Strategies, responses=MISSING)
async def get_strategies(visited: Visited) -> Strategies:
    """The 6R strategies in figures."""
    results = await visited.store.results(visited.tenant_id, visited.flow_id)
    found = _result(results, Phase.MIGRATION_STRATEGY)
    return Strategies(
        assets=found.get("assets", 0),
        by_strategy=found.get("byStrategy", {}),
        mean_technical_debt=found.get("meanTechnicalDebt"),
        end_of_life=found.get("endOfLife", 0),
        gaps=found.get("gaps", {}),
        findings=found.get("findings", []),
        summary=found.get("summary", ""),
    )


@router.get("/artefacts", response_model=list[ArtefactView])
async def list_artefacts(visited: Visited) -> list[ArtefactView]:
    """Files of the accepted results, exports among them (phase migration_strategy)."""
    found = await visited.store.artefacts(visited.tenant_id, visited.flow_id)
    return [
        ArtefactView(
            phase=entry.phase,
            round=entry.round,
            attempt=entry.attempt,
            name=entry.name,
            digest=entry.digest,
            size=entry.size,
            media_type=entry.media_type,
            file_name=saved_as(visited, entry),
        )
        for entry in found
    ]


@router.get("/artefacts/{phase}/{name}", responses=MISSING, response_class=StreamingResponse)
async def get_artefact(
    visited: Visited,
    phase: Phase,
    name: Annotated[str, Path(max_length=128, pattern=r"^[A-Za-z0-9_-]+$")],
) -> Response:
    """The bytes of a file; `ETag` is its digest."""
    return await download(visited, phase, name)


def _result(results: dict[str, dict[str, Any]], phase: Phase) -> dict[str, Any]:
    if phase not in results:
        raise NotFoundError(f"{phase} has no result yet")
    return results[phase]


async def dependency_graph(visited: Visit) -> Graph:
    """Nodes and edges from the phase's files. Raises NotFoundError."""
    table = (await content(visited, Phase.DEPENDENCY_ANALYSIS, "dependencies_csv")).decode()
    groups = json.loads(await content(visited, Phase.DEPENDENCY_ANALYSIS, "groups"))
    nodes: dict[str, Node] = {}
    edges: list[Edge] = []
    truncated = False
    for row in csv.DictReader(io.StringIO(table)):
        if len(edges) >= MOST_EDGES:
            truncated = True
            break
        edges.append(_edge(row, nodes))
    return Graph(
        nodes=list(nodes.values()),
        edges=edges,
        groups=groups["groups"],
        cycles=groups["cycles"],
        shared_services=groups["sharedServices"],
        truncated=truncated,
    )


def _edge(row: dict[str, str], nodes: dict[str, Node]) -> Edge:
    target = row["to_identity"] or f"?{row['to_text']}"
    source = row["from_identity"]
    nodes.setdefault(
        source,
        Node(
            id=source,
            name=row["from_name"],
            kind=row["from_kind"],
            in_inventory=row["from_in_inventory"] == "True",
        ),
    )
    nodes.setdefault(
        target,
        Node(
            id=target,
            name=row["to_text"],
            kind=row["to_kind"] or "unknown",
            in_inventory=row["to_in_inventory"] == "True",
        ),
    )
    return Edge(
        source=source,
        target=target,
        kind=row["kind"],
        protocol=row["protocol"] or None,
        port=int(row["port"]) if row["port"] else None,
        confidence=float(row["confidence"] or 0),
        evidence=json.loads(row["evidence"] or "null"),
    )


def table_of(text: str, most: int) -> list[list[str]]:
    """The first rows of a CSV text, its header among them."""
    rows = []
    for row in csv.reader(io.StringIO(text)):
        rows.append(row)
        if len(rows) >= most:
            break
    return rows
