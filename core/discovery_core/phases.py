"""The register of phases: the one place that knows their order and what each consumes.

A phase is one CrewAI crew in one Job. Adding a phase means adding an entry here, a package of
the same name under `discovery_crews`, and nothing in the operator.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Phase(StrEnum):
    """Name of a phase, as written in status, history, wire models and database."""

    DATA_IMPORT = "data_import"
    DATA_CLEANSING = "data_cleansing"
    FIELD_MAPPING = "field_mapping"
    ASSET_INVENTORY = "asset_inventory"
    DEPENDENCY_ANALYSIS = "dependency_analysis"
    MIGRATION_STRATEGY = "migration_strategy"


@dataclass(frozen=True)
class PhaseInput:
    """An artefact of an earlier phase, and the name under which the crew finds it.

    An `optional` one is there where the phase has made it: not of every source, nor by an older
    crew.
    """

    phase: Phase
    artefact: str
    as_name: str | None = None
    optional: bool = False

    @property
    def name(self) -> str:
        """Name in `Claim.inputs` and `PhaseContext.inputs`."""
        return self.as_name or self.artefact


@dataclass(frozen=True)
class PhaseSpec:
    """What the product needs to know about a phase to run it.

    After a `gated` phase the flow stops for a person's decision on the phase's result. A phase that
    `asks_model` is given the flow's API key; another one never sees it. One `of_engagement` works
    on the merged inventory of the flow's engagement, where it has one.
    """

    name: Phase
    title: str
    inputs: tuple[PhaseInput, ...] = ()
    gated: bool = False
    asks_model: bool = False
    of_engagement: bool = False


PHASES: tuple[PhaseSpec, ...] = (
    PhaseSpec(Phase.DATA_IMPORT, "Import", asks_model=True),
    PhaseSpec(
        Phase.DATA_CLEANSING,
        "Cleansing",
        asks_model=True,
        inputs=(
            PhaseInput(Phase.DATA_IMPORT, "records"),
            PhaseInput(Phase.DATA_IMPORT, "profile"),
        ),
    ),
    PhaseSpec(
        Phase.FIELD_MAPPING,
        "Field mapping",
        asks_model=True,
        inputs=(
            PhaseInput(Phase.DATA_CLEANSING, "records"),
            PhaseInput(Phase.DATA_CLEANSING, "profile"),
        ),
        gated=True,
    ),
    PhaseSpec(
        Phase.ASSET_INVENTORY,
        "Asset inventory",
        asks_model=True,
        inputs=(
            # cleansed records carry the original text of every column that was changed
            PhaseInput(Phase.DATA_CLEANSING, "records"),
            # the mappings as approved, not as proposed
            PhaseInput(Phase.FIELD_MAPPING, "mappings"),
        ),
    ),
    PhaseSpec(
        Phase.DEPENDENCY_ANALYSIS,
        "Dependency analysis",
        asks_model=True,
        inputs=(
            PhaseInput(Phase.ASSET_INVENTORY, "inventory"),
            PhaseInput(Phase.DATA_CLEANSING, "records"),
            PhaseInput(Phase.FIELD_MAPPING, "mappings"),
            # of tables of connections beside the main one
            PhaseInput(Phase.DATA_IMPORT, "connections", optional=True),
        ),
        of_engagement=True,
    ),
    PhaseSpec(
        Phase.MIGRATION_STRATEGY,
        "Migration strategy",
        asks_model=True,
        inputs=(
            PhaseInput(Phase.ASSET_INVENTORY, "inventory"),
            PhaseInput(Phase.DEPENDENCY_ANALYSIS, "dependencies"),
        ),
        of_engagement=True,
    ),
)

FIRST_PHASE = PHASES[0].name


def phase_spec(phase: Phase | str) -> PhaseSpec:
    """The entry of `phase`. Raises KeyError for an unknown name."""
    for spec in PHASES:
        if spec.name == phase:
            return spec
    raise KeyError(phase)


def next_phase(phase: Phase | str) -> Phase | None:
    """The phase after `phase`, or None after the last one."""
    position = [spec.name for spec in PHASES].index(Phase(phase))
    return PHASES[position + 1].name if position + 1 < len(PHASES) else None


def progress(phase: Phase | str | None, *, finished: bool) -> str:
    """Completed phases of all, for people: "2/6"."""
    if finished:
        return f"{len(PHASES)}/{len(PHASES)}"
    done = 0 if phase is None else [spec.name for spec in PHASES].index(Phase(phase))
    return f"{done}/{len(PHASES)}"
