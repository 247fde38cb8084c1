"""The crew container's entrypoint: `python -m discovery_crews.runner`.

One process serves one attempt: claim it, fetch what it needs, run the phase, hand in the result.
The claim comes before CrewAI is imported, because from then on the phase's clock runs and a
start that hangs is seen. The process exits 0 once the attempt's end is committed, whichever end
it is; another code only means that it could not be told.
"""

from __future__ import annotations

import errno
import gc
import importlib
import os
import shutil
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_core.logging import bind_process, configure_logging, get_logger
from discovery_core.phases import FIRST_PHASE
from discovery_core.wire.model import ENGAGEMENT_INVENTORY, ArtefactReference
from discovery_core.wire.protocol import Claim, Complete, Fail, Heartbeat, PinInputs, Usage
from pydantic import ValidationError

from discovery_crews.execution_client import (
    ExecutionClient,
    ExecutionError,
    NotMineError,
    ReplacedError,
)
from discovery_crews.mounted import OutsideError, copy_at_most, open_within
from discovery_crews.phase import OTHER_DEPENDENCIES, PhaseContext, PhaseOutcome, RunPhase
from discovery_crews.settings import RunnerSettings, prepare_crewai_environment, reader_limits

log = get_logger(__name__)

EXIT_TOLD = 0
EXIT_NOT_TOLD = 1
_DEADLINE_GRACE = 5.0
_MESSAGE_LIMIT = 4000


class Pulse:
    """The heartbeat thread: tells progress, and ends the process when it has no more business.

    It ends the process rather than asking the crew to stop, because a crew in the middle of a
    model's answer cannot be interrupted (see the research notes on cancellation).
    """

    def __init__(self, client: ExecutionClient, claim: Claim) -> None:
        self._client = client
        self._interval = claim.heartbeat_seconds
        self._deadline = claim.deadline
        self._beat = Heartbeat(fence=claim.fence, message="starting")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Pulse:
        """Begin to beat."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Beat no more; waits for a beat on its way, which is given up after an interval."""
        self._stop.set()
        self._thread.join(timeout=self._interval + 1)

    def progress(self, done: int | None, total: int | None, message: str) -> None:
        """Remember what the next beat tells."""
        self._beat = Heartbeat(
            fence=self._beat.fence, done=done, total=total, message=message[:500]
        )

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            if (datetime.now(UTC) - self._deadline).total_seconds() > _DEADLINE_GRACE:
                self._expire()
            try:
                self._deadline = self._client.heartbeat(self._beat, self._interval).deadline
            except ReplacedError as error:
                log.info("replaced by another attempt; stopping", reason=str(error))
                _leave(EXIT_TOLD)
            except (ExecutionError, DiscoveryError) as error:
                log.warning("heartbeat not delivered", reason=str(error))
            except RuntimeError:
                # the connection was closed under a beat that took longer than it was waited for
                if not self._stop.is_set():
                    raise

    def _expire(self) -> None:
        log.error("the phase's deadline has passed; stopping", deadline=str(self._deadline))
        message = Fail(
            fence=self._beat.fence,
            code=ErrorCode.DEADLINE_EXCEEDED,
            message=f"The phase did not end before {self._deadline:%Y-%m-%d %H:%M:%S} UTC "
            f"(last: {self._beat.message}). Raise spec.phaseTimeout or split the source.",
        )
        try:
            self._client.fail(message, patience=_DEADLINE_GRACE)
        except (ExecutionError, DiscoveryError) as error:
            log.warning("the failure could not be told", reason=str(error))
            _leave(EXIT_NOT_TOLD)
        _leave(EXIT_TOLD)


def _leave(code: int) -> NoReturn:
    sys.stderr.flush()
    os._exit(code)


def stop_on_signals() -> None:
    """SIGTERM and SIGINT end the process at once, whatever it is doing.

    A thread waits for them: as process 1 of a container there is no default action, and a
    Python handler would wait for the main thread to come back from the model or the engine.
    """
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)

    def wait() -> None:
        received = signal.sigwait(signals)
        log.info("stopping", signal=signal.Signals(received).name)
        _leave(128 + received)

    threading.Thread(target=wait, name="signals", daemon=True).start()


def main() -> int:
    """Run one attempt; see the module's text for the exit code."""
    configure_logging("crews")
    stop_on_signals()
    try:
        settings = RunnerSettings()
        client = ExecutionClient(settings)
    except (ValidationError, ExecutionError, OSError) as error:
        return _not_told("the runner's settings are not usable", error)
    try:
        return _attempt(settings, client)
    except ReplacedError as error:
        log.info("replaced by another attempt; stopping", reason=str(error))
        return EXIT_TOLD
    except NotMineError as error:
        return _not_told("this pod has no attempt to run", error)
    except ExecutionError as error:
        return _not_told("the execution API cannot be told", error)
    finally:
        client.close()


def _not_told(event: str, error: Exception) -> int:
    log.error(event, reason=str(error))
    return EXIT_NOT_TOLD


def _attempt(settings: RunnerSettings, client: ExecutionClient) -> int:
    claim = client.claim()
    bind_process(
        flow=str(claim.flow_id),
        flow_name=claim.flow_name,
        tenant=None if claim.tenant_id is None else str(claim.tenant_id),
        namespace=claim.namespace,
        round=claim.round,
        phase=str(claim.phase),
        attempt=claim.attempt,
    )
    log.info("claimed", fence=claim.fence, deadline=str(claim.deadline))
    usage = Usage(planner=claim.llm.model or claim.llm.provider)
    try:
        with Pulse(client, claim) as pulse:
            message = _work(settings, client, claim, pulse, usage)
        client.complete(message)
        log.info("completed", artefacts=sorted(message.artefacts))
    except ExecutionError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever failed, it must be told
        client.fail(_failure(claim, usage, error))
    return EXIT_TOLD


def _failure(claim: Claim, usage: Usage, error: Exception) -> Fail:
    failure = classify(error)
    spent = getattr(error, "usage", None)
    if isinstance(spent, Usage):
        usage = spent.model_copy(update={"seconds_import": usage.seconds_import})
    trace = None if error is failure else error
    log.error("failed", code=str(failure.code), reason=failure.message, exc_info=trace)
    return Fail(
        fence=claim.fence,
        code=failure.code,
        message=failure.message[:_MESSAGE_LIMIT],
        usage=usage,
        retry_after_seconds=failure.retry_after,
    )


def classify(error: Exception) -> DiscoveryError:
    """`error` in the shared vocabulary; an unknown one is a crash, which is retried."""
    if isinstance(error, DiscoveryError):
        return error
    out_of_memory = type(error).__name__ == "OutOfMemoryException" or isinstance(error, MemoryError)
    if out_of_memory:
        return DiscoveryError(
            ErrorCode.OUT_OF_MEMORY,
            "The crew ran out of memory. Give crew pods more (Helm: crews.resources) or split "
            "the source.",
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiscoveryError(
            ErrorCode.CRASHED, "The crew's work folder is full. Give crew pods a larger /tmp."
        )
    if "discovery_crews.llm" in sys.modules:
        from discovery_crews.llm import classify_exception  # noqa: PLC0415

        if (known := classify_exception(error)) is not None:
            return known
    text = " ".join(str(error).split())[:500]
    return DiscoveryError(ErrorCode.CRASHED, f"{type(error).__name__}: {text}")


def _work(
    settings: RunnerSettings, client: ExecutionClient, claim: Claim, pulse: Pulse, usage: Usage
) -> Complete:
    workdir = settings.workdir
    shutil.rmtree(workdir, ignore_errors=True)
    inputs_folder, output = workdir / "inputs", workdir / "output"
    inputs_folder.mkdir(parents=True)
    output.mkdir()
    pulse.progress(None, None, "fetching inputs")
    inputs = _inputs(settings, client, claim, inputs_folder)
    prepare_crewai_environment(workdir)
    pulse.progress(None, None, "loading the crew")
    usage.seconds_import = import_crewai()
    run = load_phase(str(claim.phase))
    context = PhaseContext(
        workdir=output,
        inputs=inputs,
        source_name=claim.source_name,
        source_format=claim.source_format,
        llm=claim.llm,
        hint=claim.hint,
        mapping_history=tuple(claim.mapping_history),
        progress=pulse.progress,
    )
    outcome = run(context)
    pulse.progress(None, None, "storing results")
    return _hand_in(client, claim, outcome, usage)


def load_phase(phase: str) -> RunPhase:
    """The phase's `run`."""
    run: RunPhase = importlib.import_module(f"discovery_crews.phases.{phase}.phase").run
    return run


def import_crewai() -> float:
    """Import CrewAI ahead of its use; the seconds it took.

    The garbage collector is off meanwhile: CrewAI's thousands of modules are all kept, and
    looking through them again and again costs a sixth of the start.
    """
    started = time.perf_counter()
    gc.disable()
    try:
        importlib.import_module("crewai")
    finally:
        gc.enable()
    return round(time.perf_counter() - started, 3)


def _inputs(
    settings: RunnerSettings, client: ExecutionClient, claim: Claim, folder: Path
) -> dict[str, Path]:
    references = dict(claim.inputs)
    if claim.phase == FIRST_PHASE and "source" not in references:
        references.update(_pin(settings, client, claim, folder))
    if claim.merged_inventory:
        references.update(_of_engagement(client))
    inputs: dict[str, Path] = {}
    for name, reference in references.items():
        target = folder / name
        if not target.exists():
            client.download(reference, target)
        inputs[name] = target
    return inputs


def _of_engagement(client: ExecutionClient) -> dict[str, ArtefactReference]:
    """The engagement's merged inventory, and what its other flows have found."""
    pinned = client.pin_engagement()
    others = {
        f"{OTHER_DEPENDENCIES}{number}": reference
        for number, reference in enumerate(pinned.dependencies)
    }
    return {ENGAGEMENT_INVENTORY: pinned.inventory} | others


def _pin(
    settings: RunnerSettings, client: ExecutionClient, claim: Claim, folder: Path
) -> dict[str, ArtefactReference]:
    """Fix the source's bytes for good; later attempts read those, not the mount."""
    local: dict[str, ArtefactReference] = {}
    for name, mounted in (
        ("source", claim.source_path),
        ("targetSchema", claim.target_schema_path),
    ):
        if mounted is not None:
            copy = folder / name
            _copy_mounted(settings, Path(mounted), copy, claim.source_name)
            local[name] = client.upload(copy, claim.source_name if name == "source" else mounted)
    if claim.uploaded is not None:
        client.download(claim.uploaded, folder / "source")
        local["source"] = claim.uploaded
    if "source" not in local:
        raise DiscoveryError(
            ErrorCode.UNREADABLE_FILE, f"{claim.source_name}: no source was mounted into the crew."
        )
    schema = local.get("targetSchema")
    pinned = client.pin_inputs(
        PinInputs(
            fence=claim.fence,
            source=local["source"].digest,
            target_schema=schema.digest if schema else None,
        )
    )
    references: dict[str, ArtefactReference] = {}
    for name, digest in (("source", pinned.source), ("targetSchema", pinned.target_schema)):
        if name in local and local[name].digest != digest:
            (folder / name).unlink()
        if digest is not None:
            references[name] = ArtefactReference(digest=digest, size=0)
    return references


def _copy_mounted(settings: RunnerSettings, mounted: Path, copy: Path, name: str) -> None:
    """Copy a mounted file, so that what is read, stored and digested is the same bytes."""
    limit = reader_limits().max_file_bytes
    try:
        with open_within(settings.source_root, mounted) as source, copy.open("xb") as target:
            copied = copy_at_most(source, target, limit)
    except OutsideError as error:
        raise DiscoveryError(ErrorCode.UNREADABLE_FILE, f"{name}: {error}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiscoveryError(
            ErrorCode.UNREADABLE_FILE,
            f"{name}: {mounted} cannot be read: {error.strerror}. Check spec.source, and that "
            "user 65532 may read the file.",
        ) from error
    if copied > limit:
        copy.unlink()
        raise DiscoveryError(
            ErrorCode.LIMIT_EXCEEDED,
            f"{name}: more than {limit} bytes, which is the limit. Split the file, or raise "
            "DISCOVERY_MAX_FILE_BYTES.",
        )


def _hand_in(
    client: ExecutionClient, claim: Claim, outcome: PhaseOutcome, usage: Usage
) -> Complete:
    artefacts = {name: client.upload(path).digest for name, path in outcome.artefacts.items()}
    if outcome.records is not None:
        client.put_records(outcome.records)
    return Complete(
        fence=claim.fence,
        result=outcome.result,
        artefacts=artefacts,
        usage=outcome.usage.model_copy(update={"seconds_import": usage.seconds_import}),
    )


if __name__ == "__main__":
    # nothing is left to tidy up, and CrewAI's threads would only delay the pod's end
    _leave(main())
