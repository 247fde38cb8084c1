"""Spoils files of every kind and reads them: a table or a refusal of the product's own comes out.

`python -m tests.crews.fuzz --minutes 60` tries as many as it can and keeps what fails. Files are
read and profiled in a process of its own, since a parser may end it. What is drawn follows
FAULTS_SEED and the number of the file, so that `--first N --cases 1` makes it again.
"""

from __future__ import annotations

import argparse
import datetime as dt
import io
import multiprocessing
import os
import random
import resource
import shutil
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_crews.phases.data_import.anomalies import find_anomalies
from discovery_crews.phases.data_import.observations import observe
from discovery_crews.phases.data_import.quality import assess
from discovery_crews.profile import profile_records
from discovery_crews.readers.apart import out_of_memory
from discovery_crews.tables.preview import write_preview

from tests.crews.files import REAL, read, rows_of, zip_of
from tests.crews.samples import SAMPLES

MEMORY = 1536 << 20
PATIENCE = 300
# the import answers both with LimitExceeded
ENDED = "memory or the process ended"
SLOW = "took too long\n"
_FILES_PER_PROCESS = 100
_LARGEST = 200_000
_ROWS_LOOKED_AT = 2000
_PIECES = [
    b'"', b"'", b"{", b"}", b"[", b"]", b",", b";", b"\t", b"|", b"\n", b"\r", b"\x00", b"<", b">",
    b"&", b"\xff\xfe", b"\xef\xbb\xbf", b"8.9E+400", b"-1e999", b"9" * 400, b"NaN", b"Infinity",
    b"//", b"/*", b"#", b"PK\x03\x04", b"\\ud800", b"\xed\xa0\x80", b"sep=;\n", b"[" * 200,
    b"XFD1048576", b"A0", b"ZZZZ1", b"0000-00-00", b"99999-12-31", b"2024-02-31T25:61:61Z", b"-0",
    b"&#xD800;", b"&#0;", b"<c ", b"</row>", b"]]>", b"\xe2\x80\xa8", b"\x1a", b"\x0b", b"\x85",
    b"," * 2000, b"999999999", b"4294967295", b"-1", b" " * 300, b"''", b"1e308", b"=1+1", b"\xc3",
]  # fmt: skip


def corpus() -> dict[str, bytes]:
    """Sound files by name: made ones of each kind, and the small real ones where they are."""
    found = dict(SAMPLES)
    for path in sorted(REAL.rglob("*")):
        if path.is_file() and path.stat().st_size <= _LARGEST and path.suffix != ".md":
            found[path.name] = path.read_bytes()
    return found


def spoil(draw: random.Random, content: bytes) -> bytes:
    """The file with some bytes changed; of an archive mostly inside of its members."""
    if content[:2] == b"PK" and draw.random() < 0.8:
        return _spoil_member(draw, content)
    spoilt = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4, 8))):
        start = draw.randint(0, len(spoilt))
        end = min(len(spoilt), start + draw.choice((0, 0, 1, 1, 4, 40)))
        kind = draw.random()
        if kind < 0.6:
            spoilt[start:end] = draw.choice(_PIECES)
        elif kind < 0.7:
            spoilt[start:end] = draw.randbytes(end - start)
        elif kind < 0.8:
            spoilt[start:start] = spoilt[start : start + draw.randint(1, 200)] * draw.randint(1, 50)
        elif kind < 0.9:
            del spoilt[start:end]
        else:
            at = draw.randint(0, len(spoilt))
            spoilt[start:start] = spoilt[at : at + draw.randint(1, 400)]
    if draw.random() < 0.1:
        del spoilt[draw.randint(0, len(spoilt)) :]
    return bytes(spoilt)


def _spoil_member(draw: random.Random, content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = draw.choice(sorted(members))
    kind = draw.random()
    if kind < 0.05:
        del members[name]
    elif kind < 0.1:
        members[draw.choice(("a\\b", "../x", name.upper(), "", "x" * 300))] = members.pop(name)
    else:
        members[name] = spoil(draw, members[name])
    return zip_of(members)


def look_at(path: Path) -> str:
    """Read and measure one file as the import does; what became of it in a word."""
    try:
        table = read(path)
    except DiscoveryError as error:
        if error.code == ErrorCode.CRASHED or not error.message.startswith(path.name):
            raise AssertionError(error.message) from error
        return str(error.code)
    folder = table.parquet.parent
    profile = profile_records(folder, table.parquet, table.rows)
    anomalies = find_anomalies(folder, table.parquet, profile, dt.date(2026, 1, 1))
    observe(table, profile, anomalies.found)
    assess(table, profile, anomalies)
    write_preview(folder, table.parquet)
    if table.rows <= _ROWS_LOOKED_AT:
        rows = rows_of(table)
        numbers = [row["__row"] for row in rows]
        assert len(rows) == table.rows > 0
        assert numbers == sorted(set(numbers))
    return "read"


def _work(connection: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        path = connection.recv()
        try:
            answer = look_at(path)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is what is looked for
            answer = ENDED if out_of_memory(error) else traceback.format_exc()
        connection.send(answer)


class Reader:
    """The process that reads, and another one after it has ended."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._files = 0

    def outcome(self, path: Path) -> str:
        """What became of a file: a word, or the trace of what must not happen."""
        self._ours.send(path)
        said = SLOW
        try:
            if self._ours.poll(PATIENCE):
                said = str(self._ours.recv())
        except EOFError:
            said = ENDED
        self._files += 1
        if said in (SLOW, ENDED) or self._files == _FILES_PER_PROCESS:
            self.stop()
            self._start()
        return said

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._ours.close()


def attempt(seed: int, number: int, files: dict[str, bytes]) -> tuple[str, bytes]:
    """The spoilt file of this number, and its name."""
    draw = random.Random(f"{seed}/{number}")
    name = draw.choice(sorted(files))
    return draw.choice((name, name, "x")), spoil(draw, files[name])


def run(
    seed: int, files: dict[str, bytes], *, first: int, cases: int, minutes: float | None, keep: Path
) -> tuple[Counter[str], int]:
    """What became of spoilt files, and how many failed; those lie in `keep` with their traces."""
    outcomes: Counter[str] = Counter()
    failed = 0
    end = time.monotonic() + minutes * 60 if minutes is not None else None
    reader = Reader()
    try:
        for number in range(first, first + cases):
            if end is not None and time.monotonic() > end:
                break
            name, content = attempt(seed, number, files)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / name
                path.write_bytes(content)
                said = reader.outcome(path)
            if "\n" in said:
                failed += 1
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{number}-{name}").write_bytes(content)
                (keep / f"{number}.txt").write_text(said, errors="backslashreplace")
                said = said.strip().splitlines()[-1][:100]
            outcomes[said] += 1
    finally:
        reader.stop()
    return outcomes, failed


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--cases", type=int, default=10_000_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "fuzz")
    given = parser.parse_args()
    seed = int(os.environ.get("FAULTS_SEED", "1"))
    shutil.rmtree(given.keep, ignore_errors=True)
    outcomes, failed = run(
        seed, corpus(), first=given.first, cases=given.cases, minutes=given.minutes, keep=given.keep
    )
    print(
        f"FAULTS_SEED={seed}: {outcomes.total()} files, {failed} failed; those are in {given.keep}"
    )
    for said, count in outcomes.most_common():
        print(f"{count:8} {said}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
