"""The contract between the runner and a phase, so that a phase knows nothing of pods or HTTP.

The runner (in a pod) and the developer's command line both build a `PhaseContext`, call the
phase's `run`, and take the `PhaseOutcome`; where the files come from and go to is their affair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from discovery_core.wire.protocol import ApprovedMapping, LLMSettings, Usage
from discovery_core.wire.results import ImportResult, InventoryResult, PhaseResult

__all__ = ["ImportResult", "InventoryResult", "PhaseContext", "PhaseOutcome", "RunPhase"]


# What dependency_analysis has found in other flows of the engagement (Parquet), numbered from 0.
OTHER_DEPENDENCIES = "otherDependencies"


def _silent(done: int | None, total: int | None, message: str) -> None:
    """Progress nobody listens to."""


@dataclass(frozen=True)
class PhaseContext:
    """What a phase may read. Everything is immutable but `workdir`, an empty folder for output.

    `inputs` are local files by artefact name (see `discovery_core.phases.PHASES`): `source` for
    data_import; `records` (Parquet) and `profile` (JSON) after it; `mappings` (JSON, approved)
    for asset_inventory; `targetSchema` where the flow names its own; `engagementInventory` and
    `otherDependencies0` … where the flow belongs to an engagement. `progress(done, total,
    message)` reports rows where they are known. `mapping_history` is what people of this tenant
    decided for headers before.
    """

    workdir: Path
    inputs: dict[str, Path]
    source_name: str = ""
    source_format: str = "auto"
    llm: LLMSettings = field(default_factory=LLMSettings)
    hint: str | None = None
    mapping_history: tuple[ApprovedMapping, ...] = ()
    progress: Callable[[int | None, int | None, str], None] = _silent


@dataclass(frozen=True)
class PhaseOutcome:
    """What a phase made.

    `artefacts` are local files by name; `records` is an NDJSON file of
    `discovery_core.wire.results.InventoryRecord` where the phase makes inventory rows.
    """

    result: PhaseResult
    artefacts: dict[str, Path]
    usage: Usage
    records: Path | None = None


class RunPhase(Protocol):
    """`run(context)`; raises `discovery_core.errors.DiscoveryError` with a code and a remedy."""

    def __call__(self, context: PhaseContext) -> PhaseOutcome:
        """Do the phase's work."""
        ...
