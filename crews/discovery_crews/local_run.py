"""Phases on local files, without a cluster: each after those that it builds on.

The developer's command line and tests run flows this way. It is the pods' work with the same
checks; only where files come from and go to differs, and proposals count as approved.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_core.phases import Phase, phase_spec
from discovery_core.wire.protocol import LLMSettings
from discovery_core.wire.results import FieldMapping, MappingResult
from pydantic import TypeAdapter

from discovery_crews.phase import PhaseContext, PhaseOutcome
from discovery_crews.runner import load_phase

Progress = Callable[[int | None, int | None, str], None]


def _silent(_: str) -> Progress:
    return lambda *_: None


@dataclass
class LocalRun:
    """A flow's phases on one file.

    `source` is an export, or records.parquet of an earlier run. `given` are files by artefact
    name that replace what a phase would make: `mappings` (approved, JSON), `cleansingPlan`
    (plan.json of an earlier run), `targetSchema`.
    `scratch` is an empty folder.
    """

    source: Path
    scratch: Path
    given: dict[str, Path] = field(default_factory=dict)
    source_format: str = "auto"
    llm: LLMSettings = field(default_factory=LLMSettings)
    hint: str | None = None
    progress: Callable[[str], Progress] = _silent
    outcomes: dict[Phase, PhaseOutcome] = field(default_factory=dict)
    _made: dict[tuple[Phase, str], Path] = field(default_factory=dict)

    def run(self, phase: Phase) -> PhaseOutcome:
        """Run a phase, and before it every phase whose artefacts are missing.

        Raises DiscoveryError as the phases do, and for files that are not there.
        """
        for path in self.given.values():
            _existing(path)
        if self.source.suffix.lower() == ".parquet" and not self._made:
            self._take_parquet(phase)
        inputs = dict(self.given)
        if self.source.suffix.lower() != ".parquet":
            inputs["source"] = self.source
        for needed in phase_spec(phase).inputs:
            if needed.name in self.given:
                continue
            if (needed.phase, needed.artefact) not in self._made:
                if needed.optional:
                    continue
                self._keep(needed.phase, self.run(needed.phase))
            inputs[needed.name] = self._made[needed.phase, needed.artefact]
        workdir = self.scratch / str(phase)
        workdir.mkdir()
        self.outcomes[phase] = load_phase(str(phase))(self._context(phase, workdir, inputs))
        return self.outcomes[phase]

    def _keep(self, phase: Phase, outcome: PhaseOutcome) -> None:
        """Remember what a phase made; here its proposals count as approved, as they are."""
        for name, path in outcome.artefacts.items():
            self._made[phase, name] = path
        if isinstance(outcome.result, MappingResult):
            accepted = self.scratch / "mappings.json"
            accepted.write_bytes(
                TypeAdapter(list[FieldMapping]).dump_json(outcome.result.mappings, by_alias=True)
            )
            self._made[phase, "mappings"] = accepted

    def _context(self, phase: Phase, workdir: Path, inputs: dict[str, Path]) -> PhaseContext:
        return PhaseContext(
            workdir=workdir,
            inputs=inputs,
            source_name=self.source.name,
            source_format=self.source_format,
            llm=self.llm,
            hint=self.hint,
            progress=self.progress(str(phase)),
        )

    def _take_parquet(self, wanted: Phase) -> None:
        """Use the records of an earlier run in place of the phases before the wanted one."""
        from discovery_crews.profile import profile_records, write_profile  # noqa: PLC0415
        from discovery_crews.tables.engine import (  # noqa: PLC0415
            ROW,
            all_columns,
            connect,
            count_rows,
        )

        records = _existing(self.source)
        if wanted == Phase.DATA_IMPORT:
            raise DiscoveryError(
                ErrorCode.UNSUPPORTED_FORMAT,
                f"{records.name}: data_import reads exports, not Parquet. Name a later phase.",
            )
        with connect(self.scratch) as connection:
            if ROW not in all_columns(connection, records):
                raise DiscoveryError(
                    ErrorCode.UNSUPPORTED_FORMAT,
                    f"{records.name}: no column {ROW}; only records.parquet of an earlier phase "
                    "can be used here.",
                )
            rows = count_rows(connection, records)
        profile = self.scratch / "profile.json"
        write_profile(profile, profile_records(self.scratch, records, rows))
        owner = Phase.DATA_IMPORT if wanted == Phase.DATA_CLEANSING else Phase.DATA_CLEANSING
        self._made[owner, "records"], self._made[owner, "profile"] = records, profile


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise DiscoveryError(
            ErrorCode.UNREADABLE_FILE, f"{path}: there is no such file. Check the path."
        )
    return path
