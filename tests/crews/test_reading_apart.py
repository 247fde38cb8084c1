"""A file that takes too much memory is refused by name, whatever ends the process that reads it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from discovery_core.errors import DiscoveryError, ErrorCode, is_retryable
from discovery_crews.crew_base import prepare_environment
from discovery_crews.phase import PhaseContext
from discovery_crews.readers import ReadRequest, apart, read_apart, read_source
from discovery_crews.readers.apart import ReaderCrashedError, memory_limit
from discovery_crews.settings import MIB, ReaderLimits

from tests.crews.odd_readers import LIMIT, Working

prepare_environment()

from discovery_crews.runner import load_phase  # noqa: E402 - it imports crewai


def request(tmp_path: Path, text: str = "name,os\nweb01,Debian\n") -> ReadRequest:
    source = tmp_path / "servers.csv"
    source.write_text(text)
    workdir = tmp_path / "work"
    workdir.mkdir()
    return ReadRequest(source, workdir, source.name, ReaderLimits(max_reader_memory_bytes=LIMIT))


def test_s09_what_is_read_apart_is_what_is_read(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
    one = read_apart(request(tmp_path / "one"))
    other = read_source(request(tmp_path / "other"))
    assert one.parquet.read_bytes() == other.parquet.read_bytes()
    assert (one.columns, one.rows, one.findings) == (other.columns, other.rows, other.findings)


def test_s09_refusals_and_progress_come_across(tmp_path: Path) -> None:
    with pytest.raises(DiscoveryError, match=r"servers.csv.*no row below it") as refused:
        read_apart(request(tmp_path, "name,os\n"))
    assert refused.value.code is ErrorCode.NO_ROWS


@pytest.mark.parametrize("way", ["takes_all", "aborts", "is_killed", "asks_for_terabytes"])
def test_s09_too_much_memory_is_a_refusal_that_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(apart, "_work", Working(way))
    with pytest.raises(DiscoveryError) as refused:
        read_apart(request(tmp_path))
    assert refused.value.code is ErrorCode.LIMIT_EXCEEDED
    assert not is_retryable(refused.value.code)
    assert refused.value.message.startswith("servers.csv: ")
    assert f"{LIMIT // MIB} MiB" in refused.value.message
    assert "DISCOVERY_MAX_READER_MEMORY_BYTES" in refused.value.message


def test_s09_the_process_has_the_limit_before_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "_work", Working("has_a_limit"))
    with pytest.raises(DiscoveryError, match="it has"):
        read_apart(request(tmp_path))


def test_s09_a_fault_of_our_own_is_no_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "_work", Working("is_wrong"))
    with pytest.raises(ReaderCrashedError) as told:
        read_apart(request(tmp_path))
    assert str(told.value) == "ZeroDivisionError: a fault of our own"
    assert "odd_readers.py" in told.value.__notes__[0]


def test_s09_the_import_reads_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "_work", Working("aborts"))
    given = request(tmp_path)
    context = PhaseContext(
        workdir=given.workdir, inputs={"source": given.path}, source_name=given.name
    )
    with pytest.raises(DiscoveryError, match="takes more than"):
        load_phase("data_import")(context)


def test_s09_the_pod_has_room_for_the_rest(tmp_path: Path) -> None:
    pod = tmp_path / "memory.max"
    assert memory_limit(1000, pod) == 1000
    pod.write_text("max\n")
    assert memory_limit(1000, pod) == 1000
    pod.write_text("1200\n")
    assert memory_limit(1000, pod) == 900
    pod.write_text("4000\n")
    assert memory_limit(1000, pod) == 1000


def test_s09_a_real_parser_that_runs_out_is_told(tmp_path: Path) -> None:
    """Not a stand-in: the CSV is read with all that reading needs, in too little memory for it."""
    code = (
        "import sys; from pathlib import Path\n"
        "from discovery_crews.readers import ReadRequest, read_apart, apart\n"
        "from discovery_crews.settings import ReaderLimits\n"
        "from discovery_core.errors import DiscoveryError\n"
        "apart.memory_limit = lambda wanted: 20 << 20\n"
        "source, workdir = map(Path, sys.argv[1:])\n"
        "try: read_apart(ReadRequest(source, workdir, source.name, ReaderLimits()))\n"
        "except DiscoveryError as error: print(error.code, error.message)\n"
    )
    given = request(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", code, str(given.path), str(given.workdir)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("LimitExceeded servers.csv: reading it takes more than 20 MiB")


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (MemoryError(), True),
        (RuntimeError("can't start new thread"), True),
        (BaseException("The global thread pool has not been initialized: spawn thread"), True),
        (RuntimeError("dictionary changed size during iteration"), False),
    ],
)
def test_s09_what_engines_say_of_the_limit_is_understood(
    error: BaseException, *, short: bool
) -> None:
    assert apart.out_of_memory(error) is short
