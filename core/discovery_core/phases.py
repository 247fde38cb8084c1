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


@dataclass(frozen=True)
class PhaseSpec:
    """What the product needs to know about a phase to run it.

    `inputs` maps the name under which the crew finds an artefact to the phase that made it and
    its name there. `gated` phases stop the flow for a person's decision on the artefact
    `gate_artefact` of their own result.
    """

    name: Phase
    title: str
    inputs: tuple[tuple[Phase, str], ...] = ()
    gate_artefact: str | None = None

    @property
    def gated(self) -> bool:
        """Whether the flow waits for a person after this phase."""
        return self.gate_artefact is not None


PHASES: tuple[PhaseSpec, ...] = (
    PhaseSpec(Phase.DATA_IMPORT, "Import"),
    PhaseSpec(
        Phase.DATA_CLEANSING,
        "Cleansing",
        inputs=((Phase.DATA_IMPORT, "records"), (Phase.DATA_IMPORT, "profile")),
    ),
    PhaseSpec(
        Phase.FIELD_MAPPING,
        "Field mapping",
        inputs=((Phase.DATA_CLEANSING, "records"), (Phase.DATA_CLEANSING, "profile")),
        gate_artefact="mappings",
    ),
    PhaseSpec(
        Phase.ASSET_INVENTORY,
        "Asset inventory",
        inputs=((Phase.DATA_CLEANSING, "records"),),
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
    """Completed phases of all, for people: "2/4"."""
    if finished:
        return f"{len(PHASES)}/{len(PHASES)}"
    done = 0 if phase is None else [spec.name for spec in PHASES].index(Phase(phase))
    return f"{done}/{len(PHASES)}"
