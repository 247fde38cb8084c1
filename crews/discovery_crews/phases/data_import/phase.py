"""Runs data_import: read, profile, let the crew judge, hand over."""

from __future__ import annotations

import datetime as dt
import time
from pathlib import Path

from discovery_core.wire.results import ColumnProfile, ImportResult

from discovery_crews.crew_base import ContextTool, CrewOutcome, Step, Submission, run_crew
from discovery_crews.phase import PhaseContext, PhaseOutcome
from discovery_crews.profile import brief, profile_records, write_profile
from discovery_crews.readers import ReadRequest, ReadTable, read_apart
from discovery_crews.settings import reader_limits
from discovery_crews.tables.preview import write_preview

from .anomalies import find_anomalies
from .judgement import Judgement, about, check, findings, recommend
from .observations import Aspect, Observation, observe
from .quality import assess

CONFIG = Path(__file__).parent / "config"
ASPECTS: tuple[tuple[Aspect, str], ...] = (
    ("schema", "schema_validator"),
    ("quality", "data_quality_checker"),
    ("anomaly", "anomaly_detector"),
)
_SHOWN = 200


def run(context: PhaseContext) -> PhaseOutcome:
    """Import the source; see `discovery_crews.phase.RunPhase`."""
    started = time.perf_counter()
    request = ReadRequest(
        context.inputs["source"],
        context.workdir,
        context.source_name or context.inputs["source"].name,
        reader_limits(),
        context.progress,
    )
    table = read_apart(request, context.source_format)
    profile = profile_records(
        context.workdir, table.parquet, table.rows, context.progress, delimiter=table.delimiter
    )
    profile_file = context.workdir / "profile.json"
    write_profile(profile_file, profile)
    context.progress(table.rows, table.rows, "looking for values that cannot be right")
    today = dt.datetime.now(dt.UTC).date()
    anomalies = find_anomalies(context.workdir, table.parquet, profile, today)
    found = observe(table, profile, anomalies.found)
    score, quality = assess(table, profile, anomalies)
    context.progress(table.rows, table.rows, "the crew looks at the table")
    outcome = judge(context, table, profile, found)
    judgements = [outcome.answers[_submission(aspect)] for aspect, _ in ASPECTS]
    result = ImportResult(
        rows_imported=table.rows,
        rows_rejected=table.rows_rejected,
        columns=table.columns,
        format=table.format,
        encoding=table.encoding,
        delimiter=table.delimiter,
        sheet=table.sheet,
        quality_score=score,
        quality=quality,
        findings=findings(found, judgements)[:_SHOWN],
        summary=" ".join(judgement.summary for judgement in judgements),
    )
    outcome.usage.seconds_crew = round(time.perf_counter() - started, 3)
    artefacts = {"records": table.parquet, "profile": profile_file, "rejected": table.rejected}
    if table.connections is not None:
        artefacts["connections"] = table.connections
    artefacts["preview"] = write_preview(context.workdir, table.parquet)
    return PhaseOutcome(result, artefacts, outcome.usage)


def judge(
    context: PhaseContext,
    table: ReadTable,
    profile: list[ColumnProfile],
    found: list[Observation],
) -> CrewOutcome:
    """Let three agents grade the observations of their aspect."""
    steps = [_step(aspect, agent, profile, found) for aspect, agent in ASPECTS]
    inputs = {
        "source": context.source_name or "the source",
        "rows": str(table.rows),
        "columns": str(len(table.columns)),
        "hint": context.hint or "none",
    }
    return run_crew(CONFIG, steps, context.llm, inputs=inputs)


def _submission(aspect: Aspect) -> str:
    return f"submit_{aspect}_judgement"


def _step(
    aspect: Aspect, agent: str, profile: list[ColumnProfile], found: list[Observation]
) -> Step:
    columns = ContextTool(
        "list_columns", "Every column with its type, fill and samples.", lambda: brief(profile)
    )
    observations = ContextTool(
        "list_observations",
        f"The facts about {aspect} that were measured over all rows, each with an id.",
        lambda: [entry.as_json() for entry in about(aspect, found)[:_SHOWN]],
    )
    submission = Submission(
        name=_submission(aspect),
        description="Hand in your grades of observations, by id, and a summary. Ends your task.",
        schema=Judgement,
        check=lambda answer: check(aspect, found, answer),
        recommend=lambda: recommend(aspect, found),
    )
    return Step(agent, f"judge_{aspect}", (columns, observations), submission)
