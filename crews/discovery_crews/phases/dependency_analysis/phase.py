"""Runs dependency_analysis: read what the source says, resolve, let the crew judge, group."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_core.wire.results import DependencyResult, FieldMapping
from pydantic import TypeAdapter, ValidationError

from discovery_crews.crew_base import ContextTool, Step, Submission, run_crew
from discovery_crews.inventory_file import inventory_of
from discovery_crews.phase import OTHER_DEPENDENCIES, PhaseContext, PhaseOutcome
from discovery_crews.tables.engine import connect, count_rows

from .edges import KINDS, Edge
from .extract import Inventory, mentions
from .graph import JOINING, cycles, groups, hubs
from .judgement import DependencyPlan, Questions, check, recommend
from .resolve import Names, choose, edges_of, merged
from .write import write_dependencies, write_groups

CONFIG = Path(__file__).parent / "config"
_SUBMIT = "submit_dependency_plan"
_NAMED = 10
_GROUPS_SHOWN = 50


def run(context: PhaseContext) -> PhaseOutcome:
    """Analyse the inventory's dependencies; see `discovery_crews.phase.RunPhase`."""
    started = time.perf_counter()
    workdir, assets = context.workdir, inventory_of(context)
    context.progress(None, None, "reading dependencies")
    with connect(workdir) as connection:
        total = count_rows(connection, assets)
        inventory = Inventory.of(
            connection,
            assets,
            context.inputs["records"],
            _mappings(context),
            context.inputs.get("connections"),
            [
                path
                for name, path in sorted(context.inputs.items())
                if name.startswith(OTHER_DEPENDENCIES)
            ],
        )
        names = Names.of(connection, assets, inventory.fields)
        edges = edges_of(mentions(connection, inventory), names)
    questions = Questions.of(edges, hubs(edges, total), names)
    context.progress(None, None, "the crew judges dependencies")
    submission = Submission(
        name=_SUBMIT,
        description="Hand in what names mean, what joins and what is shared. Ends your task.",
        schema=DependencyPlan,
        check=lambda answer: check(questions, answer),
        recommend=lambda: recommend(questions),
    )
    outcome = run_crew(
        CONFIG,
        [Step("dependency_analyst", "analyse_dependencies", _tools(edges, questions), submission)],
        context.llm,
        inputs={"edges": str(len(edges)), "hint": context.hint or "none"},
    )
    plan: DependencyPlan = outcome.answers[_SUBMIT]
    for entry in plan.ends:
        if entry.asset is not None:
            choose(questions.ambiguous[entry.end], entry.asset, names)
    edges = merged(edges)
    context.progress(None, None, "grouping")
    circles = cycles(edges)
    moving = [
        group
        for group in groups(edges, plan.joining_kinds or (), plan.shared_services or ())
        if sum(key in names.nodes for key in group) > 1
    ]
    files = write_dependencies(workdir, edges)
    files["groups"] = write_groups(workdir, moving, circles, plan, questions, edges)
    files["plan"] = workdir / "plan.json"
    files["plan"].write_text(plan.model_dump_json(indent=2), encoding="utf-8")
    outcome.usage.seconds_crew = round(time.perf_counter() - started, 3)
    return PhaseOutcome(_result(edges, circles, moving, plan, names), files, outcome.usage)


def _mappings(context: PhaseContext) -> list[FieldMapping]:
    try:
        return TypeAdapter(list[FieldMapping]).validate_json(
            context.inputs["mappings"].read_bytes()
        )
    except ValidationError as error:
        raise DiscoveryError(
            ErrorCode.INVALID_MAPPING,
            f"The approved mappings cannot be read: {error.errors()[0]['msg']}. Ask for the "
            "mapping again (spec.rerun from field_mapping).",
        ) from error


def _tools(edges: Sequence[Edge], questions: Questions) -> tuple[ContextTool, ...]:
    counted = Counter(edge.kind for edge in edges)
    return (
        ContextTool(
            "list_kinds",
            "Kinds of edges, what they mean, and how many there are.",
            lambda: [
                {"kind": kind, "meaning": meaning, "edges": counted[kind]}
                for kind, meaning in KINDS.items()
            ],
        ),
        ContextTool(
            "list_ambiguous_ends",
            "Names that several assets go by, with at most five candidates each.",
            questions.shown_ends,
        ),
        ContextTool(
            "list_groups",
            "The largest groups as they would be with the usual kinds and all hubs left out.",
            lambda: [
                {"size": len(group), "some": [questions.name_of(key) for key in group[:5]]}
                for group in groups(edges, JOINING, questions.hubs)[:_GROUPS_SHOWN]
            ],
        ),
        ContextTool(
            "list_hubs",
            "Nodes that very many others need, most needed first.",
            questions.shown_hubs,
        ),
    )


def _result(
    edges: Sequence[Edge],
    circles: list[list[str]],
    moving: list[list[str]],
    plan: DependencyPlan,
    names: Names,
) -> DependencyResult:
    unresolved = [edge for edge in edges if not edge.resolved]
    touched = {
        node.key
        for edge in edges
        for node in (edge.source, edge.target)
        if node is not None and node.in_inventory
    }
    summary = (
        f"{len(edges)} dependencies between {len(touched)} assets, {len(moving)} groups that "
        f"should move together. {plan.summary}"
        if edges
        else "The source says nothing about dependencies."
    )
    return DependencyResult(
        dependencies=len(edges),
        by_kind=dict(sorted(Counter(edge.kind for edge in edges).items())),
        assets_connected=len(touched),
        cycles=len(circles),
        groups=len(moving),
        unresolved=len(unresolved),
        findings=_findings(edges, unresolved, circles, plan, names),
        summary=summary.strip(),
    )


def _findings(
    edges: Sequence[Edge],
    unresolved: Sequence[Edge],
    circles: list[list[str]],
    plan: DependencyPlan,
    names: Names,
) -> list[str]:
    def listed(texts: Sequence[str]) -> str:
        return ", ".join(texts[:_NAMED]) + (" …" if len(texts) > _NAMED else "")

    def name(key: str) -> str:
        return names.nodes[key].name if key in names.nodes else key

    found: list[str] = []
    open_ends = [edge for edge in unresolved if edge.target is None]
    ambiguous = sorted({edge.to_text for edge in open_ends if edge.candidates})
    unknown = sorted(
        {edge.to_text for edge in open_ends if not edge.candidates}
        | {edge.source.name for edge in unresolved if edge.source.kind == "unknown"}
    )
    if edges and len(unresolved) == len(edges):
        found.append(
            f"None of the {len(edges)} dependencies has both ends in the inventory. Import the "
            "servers by a flow of the same engagement, then run this phase again (spec.rerun)."
        )
    if unknown:
        found.append(
            f"{len(unknown)} names are not in the inventory: {listed(unknown)}. Kept as they are "
            f"named; {len(unresolved)} dependencies without a known end are in dependencies.csv."
        )
    if ambiguous:
        found.append(f"Several assets go by these names: {listed(ambiguous)}. Left open.")
    outside = sorted(
        {
            f"{edge.target.kind} {edge.target.name}"
            for edge in edges
            if edge.target is not None and not edge.target.in_inventory
        }
    )
    if outside:
        found.append(f"Named by assets and not in the inventory themselves: {listed(outside)}.")
    found.extend(
        "These need each other in a circle: " + listed([name(key) for key in circle]) + "."
        for circle in circles[:_NAMED]
    )
    if plan.shared_services:
        shared = [name(key) for key in plan.shared_services]
        found.append(f"Shared services, which do not join groups: {listed(shared)}.")
    return found
