"""The developer's command line: a phase on a local file, without a cluster.

It runs what a pod runs, with the same checks; only where files come from and go to differs.
Standard output carries one JSON document and nothing else, whatever a library prints, so that
the output can be piped.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_core.logging import configure_logging, get_logger
from discovery_core.phases import PHASES, Phase
from discovery_core.wire.protocol import LLMSettings

from discovery_crews.local_run import LocalRun
from discovery_crews.phase import PhaseOutcome
from discovery_crews.runner import classify
from discovery_crews.settings import prepare_crewai_environment

log = get_logger(__name__)

EXIT_DONE = 0
EXIT_CRASHED = 1
EXIT_REFUSED = 2
_PROVIDERS = ("builtin", "openai", "openaiCompatible")

_EPILOG = """\
examples:
  python -m discovery_crews run data_import servers.csv --output out
  python -m discovery_crews run field_mapping rvtools.xlsx --output out
  python -m discovery_crews run asset_inventory servers.csv --mappings out/mappings.json
  python -m discovery_crews map servers.csv rvtools.xlsx --json

exit status of run: 0 done; 2 refused, with {"error": {"code", "message"}} on standard output;
1 the crew crashed. Environment: DISCOVERY_LLM_API_KEY, DISCOVERY_MAX_ROWS and the other limits
of discovery_crews/settings.py, DISCOVERY_LOG_LEVEL.
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of `python -m discovery_crews`."""
    parser = argparse.ArgumentParser(
        prog="python -m discovery_crews",
        description="Run the crews of DiscoveryFlow on local files, without a cluster.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{run,map}")
    run = commands.add_parser(
        "run",
        help="run one phase and print its result as JSON",
        description="Run PHASE on FILE and print its result as JSON. The phases before it run "
        "first; the proposed mappings then count as approved unless --mappings says otherwise.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument(
        "phase",
        metavar="PHASE",
        choices=[str(spec.name) for spec in PHASES],
        help=", ".join(str(spec.name) for spec in PHASES),
    )
    run.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        help="the source: CSV, TSV, XLSX, JSON or NDJSON; or records.parquet of an earlier phase",
    )
    run.add_argument(
        "--output", metavar="DIR", type=Path, help="write the artefacts here (default: keep none)"
    )
    run.add_argument(
        "--mappings",
        metavar="FILE",
        type=Path,
        help="approved mappings (JSON) for asset_inventory; default: as proposed",
    )
    run.add_argument(
        "--cleansing-plan",
        metavar="FILE",
        type=Path,
        help="replay plan.json of an earlier data_cleansing instead of asking the crew",
    )
    run.add_argument(
        "--target-schema",
        metavar="FILE",
        type=Path,
        help="target schema; default: the built-in one",
    )
    run.add_argument(
        "--format",
        default="auto",
        metavar="FORMAT",
        help="auto, csv, xlsx, json, ndjson, rvtools or zip (default: auto)",
    )
    run.add_argument(
        "--llm-provider",
        default="builtin",
        choices=_PROVIDERS,
        help="what judges (default: builtin, rules without a network)",
    )
    run.add_argument("--llm-base-url", metavar="URL", help="endpoint of openaiCompatible")
    run.add_argument("--llm-model", metavar="NAME", help="model of openai or openaiCompatible")
    run.add_argument(
        "--llm-timeout",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="longest wait for one answer (default: 60)",
    )
    run.add_argument("--hint", help="a remark for the crew")
    commands.add_parser(
        "map", add_help=False, help="print the deterministic field mapping of files"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["map"]:
        from discovery_crews.mapping.command import main as map_main  # noqa: PLC0415

        return map_main(arguments[1:])
    options = build_parser().parse_args(arguments)
    configure_logging("crews", os.environ.get("DISCOVERY_LOG_LEVEL", "warning"))
    with _stdout_for_json() as emit, tempfile.TemporaryDirectory(prefix="discovery-") as scratch:
        try:
            emit(_run(options, Path(scratch)))
        except Exception as error:
            failure = classify(error)
            if failure is not error:
                log.warning("the crew crashed", exc_info=error)
            emit({"error": {"code": str(failure.code), "message": failure.message}})
            return EXIT_CRASHED if failure.code == ErrorCode.CRASHED else EXIT_REFUSED
    return EXIT_DONE


@contextmanager
def _stdout_for_json() -> Iterator[Any]:
    """Point file descriptor 1 at standard error; the yielded function writes the real one."""
    sys.stdout.flush()
    real = os.dup(1)
    os.dup2(2, 1)

    def emit(document: object) -> None:
        text = json.dumps(document, ensure_ascii=False, indent=2) + "\n"
        with os.fdopen(os.dup(real), "w", encoding="utf-8") as stream:
            stream.write(text)

    try:
        yield emit
    finally:
        sys.stdout.flush()
        os.dup2(real, 1)
        os.close(real)


def _run(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    prepare_crewai_environment(scratch)
    given = {
        "mappings": options.mappings,
        "cleansingPlan": options.cleansing_plan,
        "targetSchema": options.target_schema,
    }
    local = LocalRun(
        source=options.file,
        scratch=scratch,
        given={name: path for name, path in given.items() if path is not None},
        source_format=options.format,
        llm=LLMSettings(
            provider=options.llm_provider,
            base_url=options.llm_base_url,
            model=options.llm_model,
            timeout_seconds=options.llm_timeout,
        ),
        hint=options.hint,
        progress=_shown_progress,
    )
    outcome = local.run(Phase(options.phase))
    artefacts: dict[str, str] = {}
    if options.output is not None:
        artefacts = _keep(outcome, options.output)
    answer = outcome.result.model_dump(mode="json")
    answer["artefacts"] = artefacts
    answer["usage"] = outcome.usage.model_dump(mode="json")
    return answer


def _keep(outcome: PhaseOutcome, folder: Path) -> dict[str, str]:
    """Move what the phase made to `folder`; file names by artefact."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept: dict[str, str] = {}
        for name, path in outcome.artefacts.items():
            shutil.copyfile(path, folder / path.name)
            kept[name] = path.name
        if outcome.records is not None:
            shutil.copyfile(outcome.records, folder / outcome.records.name)
            kept["inventory_records"] = outcome.records.name
    except OSError as error:
        raise DiscoveryError(
            ErrorCode.UNREADABLE_FILE,
            f"{folder}: the artefacts cannot be written: {error.strerror}. Choose another "
            "--output.",
        ) from error
    return kept


def _shown_progress(phase: str) -> Callable[[int | None, int | None, str], None]:
    """Progress as lines on standard error, when somebody watches."""
    watched = sys.stderr.isatty()

    def show(done: int | None, total: int | None, message: str) -> None:
        if not watched:
            return
        rows = "" if done is None else f" {done}" + ("" if total is None else f" of {total}")
        sys.stderr.write(f"\r\x1b[K{phase}: {message}{rows}")
        sys.stderr.flush()

    return show
