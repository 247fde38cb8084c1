"""The runner as a process of its own, against an execution API over HTTPS."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from discovery_core.errors import ErrorCode, is_retryable
from discovery_core.wire.protocol import EngagementInputs

from tests.crews.fake_execution import FakeExecution

# a phase that needs no crew: what it does is the body of `work(context)`
PHASE = """
import json, sys, time
from discovery_crews import runner
from discovery_crews.phase import PhaseOutcome
from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_core.wire.protocol import Usage
from discovery_core.wire.results import ImportResult

def outcome(context, **more):
    path = context.workdir / "profile.json"
    path.write_text(context.inputs["source"].read_text())
    result = ImportResult(rows_imported=1, rows_rejected=0, columns=["a"], format="csv")
    return PhaseOutcome(result, {"profile": path}, Usage(seconds_crew=1.5), **more)

def work(context):
BODY

def import_crewai():
    assert "crewai" not in sys.modules
    return 0.25

runner.import_crewai = import_crewai
runner.load_phase = lambda phase: work
sys.exit(runner.main())
"""


def start(
    tmp_path: Path, fake: FakeExecution, body: str = "return outcome(context)", **settings: str
) -> subprocess.Popen[str]:
    token = tmp_path / "token"
    if not token.exists():
        token.write_text(fake.token)
    source = tmp_path / "mount" / "servers.csv"
    source.parent.mkdir(exist_ok=True)
    if not source.exists():
        source.write_text("a\n1\n")
    environment = os.environ | {
        "DISCOVERY_EXECUTION_URL": fake.url,
        "DISCOVERY_EXECUTION_CA": fake.ca_pem,
        "DISCOVERY_EXECUTION_TOKEN_FILE": str(token),
        "DISCOVERY_WORKDIR": str(tmp_path / "work"),
        "DISCOVERY_SOURCE_ROOT": str(tmp_path / "mount"),
        "DISCOVERY_CONNECT_PATIENCE": "5",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    code = PHASE.replace("BODY", textwrap.indent(textwrap.dedent(body), "    "))
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment | settings, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen[str], timeout: float = 30) -> tuple[int, list[dict[str, Any]]]:
    """Exit status and log lines."""
    try:
        _, stderr = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, [json.loads(line) for line in stderr.splitlines()]


def first_import(tmp_path: Path, **more: Any) -> FakeExecution:
    return FakeExecution(source_path=str(tmp_path / "mount" / "servers.csv"), **more)


def test_first_import_pins_its_source_and_completes(tmp_path: Path) -> None:
    with first_import(tmp_path) as fake:
        code, log = finish(start(tmp_path, fake))
    assert code == 0
    assert fake.pinned is not None
    assert fake.artefacts[fake.pinned.source] == b"a\n1\n"
    (message,) = fake.completed
    assert message.result.kind == "data_import"
    assert fake.artefacts[message.artefacts["profile"]] == b"a\n1\n"
    assert fake.media_types[message.artefacts["profile"]] == "application/json"
    assert (message.usage.seconds_import, message.usage.seconds_crew) == (0.25, 1.5)
    assert fake.calls[0] == "POST /claim"
    assert not fake.failed
    claimed = next(line for line in log if line["event"] == "claimed")
    assert (claimed["component"], claimed["flow"], claimed["attempt"]) == (
        "crews",
        str(fake._claim["flow_id"]),
        1,
    )


def test_every_line_after_the_claim_names_the_attempt_in_every_thread(tmp_path: Path) -> None:
    tenant = str(uuid4())
    with first_import(tmp_path, tenant_id=tenant) as fake:
        fake.script["POST /heartbeat"] = [500] * 20
        _, log = finish(start(tmp_path, fake, "time.sleep(1); return outcome(context)"))
    events = [line["event"] for line in log]
    assert "heartbeat not delivered" in events, "a line of the heartbeat's own thread"
    for line in log[events.index("claimed") :]:
        about = {name: line.get(name) for name in ("flow", "tenant", "round", "phase", "attempt")}
        assert about == {
            "flow": str(fake._claim["flow_id"]),
            "tenant": tenant,
            "round": 1,
            "phase": "data_import",
            "attempt": 1,
        }, line


def test_whoever_pinned_first_wins(tmp_path: Path) -> None:
    with first_import(tmp_path) as fake:
        from discovery_core.wire.protocol import PinInputs

        fake.pinned = PinInputs(fence=1, source=fake.store(b"the first attempt's bytes").digest)
        code, _ = finish(start(tmp_path, fake))
    assert code == 0
    assert fake.artefacts[fake.completed[0].artefacts["profile"]] == b"the first attempt's bytes"


def test_later_attempts_read_the_pinned_source_not_the_mount(tmp_path: Path) -> None:
    with first_import(tmp_path) as fake:
        fake._claim["inputs"] = {"source": fake.store(b"pinned")}
        code, _ = finish(start(tmp_path, fake))
    assert code == 0
    assert fake.pinned is None
    assert fake.artefacts[fake.completed[0].artefacts["profile"]] == b"pinned"


@pytest.mark.parametrize("answers", [[], [404, 503]])
def test_what_is_read_of_the_engagement_is_asked_for(tmp_path: Path, answers: list[int]) -> None:
    body = """
    assert (context.inputs["engagementInventory"].read_text(),
            context.inputs["otherDependencies0"].read_text(),
            context.inputs["otherDependencies1"].read_text()) == ("all", "found", "more")
    return outcome(context)
    """
    with first_import(tmp_path, merged_inventory=True) as fake:
        fake.engagement = EngagementInputs(
            inventory=fake.store(b"all"), dependencies=[fake.store(b"found"), fake.store(b"more")]
        )
        # one of an older release does not know the call
        fake.script["POST /engagement"] = answers
        code, _ = finish(start(tmp_path, fake, body))
    assert code == 0
    assert len(fake.completed) == 1


def test_an_older_api_is_not_asked_for_the_engagement(tmp_path: Path) -> None:
    with first_import(tmp_path, engagement="dc-east") as fake:
        code, _ = finish(start(tmp_path, fake))
    assert code == 0
    assert "POST /engagement" not in fake.calls


def test_download_with_wrong_bytes_is_fetched_again(tmp_path: Path) -> None:
    with FakeExecution() as fake:
        fake._claim["inputs"] = {"source": fake.store(b"pinned")}
        fake.corrupt_downloads = 1
        code, _ = finish(start(tmp_path, fake))
    assert code == 0
    assert fake.calls.count("GET /artefacts") == 2
    assert fake.artefacts[fake.completed[0].artefacts["profile"]] == b"pinned"


def test_waits_for_the_launch_and_for_an_api_that_restarts(tmp_path: Path) -> None:
    with first_import(tmp_path) as fake:
        fake.script = {
            "POST /claim": [425, 425, 503], "PUT /artefacts": [503], "POST /complete": [502],
        }  # fmt: skip
        code, _ = finish(start(tmp_path, fake))
    assert code == 0
    assert fake.calls.count("POST /claim") == 4
    assert len(fake.completed) == 1


def test_an_api_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with first_import(tmp_path) as fake:
        url = fake.url
    process = start(tmp_path, fake, DISCOVERY_CONNECT_PATIENCE="1", DISCOVERY_EXECUTION_URL=url)
    code, log = finish(process)
    assert code == 1
    assert log[-1]["event"] == "the execution API cannot be told"


@pytest.mark.parametrize(
    ("script", "code", "event"),
    [
        ({"POST /claim": [403]}, 1, "this pod has no attempt to run"),
        ({"POST /claim": [401]}, 1, "this pod has no attempt to run"),
        ({"POST /claim": [409]}, 0, "replaced by another attempt; stopping"),
        ({"POST /inputs": [409]}, 0, "replaced by another attempt; stopping"),
        ({"PUT /artefacts": [409]}, 0, "replaced by another attempt; stopping"),
        ({"POST /complete": [409]}, 0, "replaced by another attempt; stopping"),
    ],
)
def test_verdicts(tmp_path: Path, script: dict[str, list[int]], code: int, event: str) -> None:
    with first_import(tmp_path) as fake:
        fake.script = script
        status, log = finish(start(tmp_path, fake))
    assert (status, log[-1]["event"]) == (code, event)
    assert not fake.completed
    assert not fake.failed


def test_a_failure_that_is_told_too_late_has_no_effect(tmp_path: Path) -> None:
    with first_import(tmp_path) as fake:
        fake.script = {"POST /fail": [409]}
        status, log = finish(start(tmp_path, fake, "raise ValueError('broken')"))
    assert (status, log[-1]["event"]) == (0, "replaced by another attempt; stopping")
    assert not fake.failed


@pytest.mark.parametrize("late", ["heartbeat", "result"])
def test_a_paused_runner_that_wakes_too_late_has_no_effect(tmp_path: Path, late: str) -> None:
    more = {"heartbeat_seconds": 60.0} if late == "result" else {}
    mark = tmp_path / "woken"
    wait = f"import pathlib\nwhile not pathlib.Path({str(mark)!r}).exists(): time.sleep(0.05)\n"
    body = wait + ("return outcome(context)" if late == "result" else "time.sleep(60)")
    with first_import(tmp_path, **more) as fake:
        process = start(tmp_path, fake, "context.progress(1, 2, 'x')\n" + body)
        while "POST /inputs" not in fake.calls:
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGSTOP)
        fake.fence += 1
        kept = dict(fake.artefacts)
        mark.touch()
        os.kill(process.pid, signal.SIGCONT)
        status, log = finish(process)
    assert (status, log[-1]["event"]) == (0, "replaced by another attempt; stopping")
    assert fake.artefacts == kept
    assert not fake.completed
    assert not fake.failed


def test_replaced_in_the_middle_stops_at_once(tmp_path: Path) -> None:
    with first_import(tmp_path) as fake:
        fake.on_beat = lambda: 409 if len(fake.beats) > 2 else 200
        began = time.monotonic()
        code, log = finish(start(tmp_path, fake, "time.sleep(60); return outcome(context)"))
    assert code == 0
    assert time.monotonic() - began < 20
    assert log[-1]["event"] == "replaced by another attempt; stopping"
    assert not fake.failed


def test_heartbeats_tell_progress_and_survive_a_failing_api(tmp_path: Path) -> None:
    body = "context.progress(5, 10, 'half'); time.sleep(1.5); return outcome(context)"
    with first_import(tmp_path) as fake:
        fake.on_beat = lambda: 503 if len(fake.beats) in (2, 3) else 200
        code, _ = finish(start(tmp_path, fake, body))
    assert code == 0
    assert (5, 10, "half") in {(beat.done, beat.total, beat.message) for beat in fake.beats}
    assert len(fake.beats) > 5


def test_deadline_is_kept_and_told(tmp_path: Path) -> None:
    with first_import(tmp_path) as fake:
        fake.deadline = datetime.now(UTC) - timedelta(seconds=30)
        code, _ = finish(start(tmp_path, fake, "time.sleep(60); return outcome(context)"))
    assert code == 0
    (failure,) = fake.failed
    assert failure.code == ErrorCode.DEADLINE_EXCEEDED
    assert "phaseTimeout" in failure.message


def test_sigterm_stops_at_once(tmp_path: Path) -> None:
    with first_import(tmp_path) as fake:
        process = start(tmp_path, fake, "time.sleep(60); return outcome(context)")
        while not fake.beats:
            time.sleep(0.05)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        code, _ = finish(process)
    assert code == 128 + signal.SIGTERM
    assert time.monotonic() - began < 2
    assert not fake.completed
    assert not fake.failed


@pytest.mark.parametrize(
    ("body", "code", "says", "retryable"),
    [
        (
            "raise DiscoveryError(ErrorCode.EMPTY_FILE, 'servers.csv: empty')",
            ErrorCode.EMPTY_FILE,
            "servers.csv: empty",
            False,
        ),
        ("raise RuntimeError('boom')", ErrorCode.CRASHED, "RuntimeError: boom", True),
        ("raise MemoryError", ErrorCode.OUT_OF_MEMORY, "more", True),
        (
            "import errno; raise OSError(errno.ENOSPC, 'full')",
            ErrorCode.CRASHED,
            "folder is full",
            True,
        ),
    ],
)
def test_failures_are_told(
    tmp_path: Path, body: str, code: ErrorCode, says: str, retryable: bool
) -> None:
    with first_import(tmp_path) as fake:
        status, log = finish(start(tmp_path, fake, body))
    assert status == 0
    (failure,) = fake.failed
    assert (failure.code, is_retryable(failure.code)) == (code, retryable)
    assert says in failure.message
    failed = next(line for line in log if line["event"] == "failed")
    assert ("exception" in failed) == ("DiscoveryError" not in body)


@pytest.mark.parametrize("asked", [None, 90.0])
def test_what_an_endpoint_has_asked_for_is_told(tmp_path: Path, asked: float | None) -> None:
    body = f"raise DiscoveryError(ErrorCode.LLM_RATE_LIMITED, 'slower', retry_after={asked})"
    with first_import(tmp_path) as fake:
        assert finish(start(tmp_path, fake, body))[0] == 0
    (failure,) = fake.failed
    assert (failure.code, failure.retry_after_seconds) == (ErrorCode.LLM_RATE_LIMITED, asked)


@pytest.mark.parametrize("what", ["missing", "folder", "link", "nothing"])
def test_sources_that_cannot_be_taken(tmp_path: Path, what: str) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    (tmp_path / "secret").write_text("outside of the volume")
    paths = {"missing": "nothing.csv", "folder": "", "link": "link.csv"}
    (mount / "link.csv").symlink_to(tmp_path / "secret")
    claim = {} if what == "nothing" else {"source_path": str(mount / paths[what])}
    with FakeExecution(**claim) as fake:
        status, _ = finish(start(tmp_path, fake))
    assert status == 0
    (failure,) = fake.failed
    assert failure.code == ErrorCode.UNREADABLE_FILE
    assert "servers.csv" in failure.message
    assert not fake.artefacts


def test_a_rotated_token_is_read_again(tmp_path: Path) -> None:
    with first_import(tmp_path) as fake:
        process = start(tmp_path, fake, "time.sleep(1); return outcome(context)")
        while not fake.beats:
            time.sleep(0.02)
        fake.token = "second-token"
        # in one step, as the kubelet does it
        (tmp_path / "next-token").write_text("second-token")
        (tmp_path / "next-token").replace(tmp_path / "token")
        code, _ = finish(process)
    assert code == 0
    assert len(fake.completed) == 1


def test_records_are_staged_before_the_result(tmp_path: Path) -> None:
    body = """
    lines = context.workdir / "inventory.ndjson"
    lines.write_text('{"row": 2}\\n{"row": 3}\\n')
    return outcome(context, records=lines)
    """
    with first_import(tmp_path) as fake:
        code, _ = finish(start(tmp_path, fake, body))
    assert code == 0
    assert fake.records == [{"row": 2}, {"row": 3}]
    assert fake.calls.index("PUT /records") < fake.calls.index("POST /complete")


def test_the_authority_is_checked_and_plain_http_refused(tmp_path: Path) -> None:
    with first_import(tmp_path) as fake, FakeExecution() as other:
        wrong = start(
            tmp_path, fake, DISCOVERY_EXECUTION_CA=other.ca_pem, DISCOVERY_CONNECT_PATIENCE="1"
        )
        code, log = finish(wrong)
        assert (code, fake.calls) == (1, [])
        assert "CERTIFICATE_VERIFY_FAILED" in str(log)
        plain = start(tmp_path, fake, DISCOVERY_EXECUTION_URL="http://example.org:8443")
        assert finish(plain)[0] == 1
