"""What the benches read off: processes, PostgreSQL, the API server and the operator."""

from __future__ import annotations

import contextlib
import os
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg

from tests.faults.control_plane import ControlPlane

TICKS = os.sysconf("SC_CLK_TCK")
WRITES = ("POST", "PUT", "PATCH", "DELETE")
# what only the operator writes; everything else is the bench's, the crews' or the controllers'
OPERATORS = {
    ("POST", "jobs"),
    ("DELETE", "jobs"),
    ("POST", "serviceaccounts"),
    ("PATCH", "discoveryflows/status"),
}
# from the commit that made a phase ready until its intent is committed, and its Job's uid recorded
TRANSITIONS = """
SELECT extract(epoch FROM started.at - ready.at) * 1000,
       extract(epoch FROM run.launched_at - ready.at) * 1000,
       extract(epoch FROM ready.at)
FROM flow_events ready
JOIN flow_events started ON started.flow_id = ready.flow_id
    AND started.sequence = ready.sequence + 1 AND started.trigger = 'AttemptStarted'
JOIN phase_runs run ON run.flow_id = started.flow_id AND run.phase = started.phase
    AND run.attempt = started.attempt AND run.round = started.round
WHERE ready.trigger IN ('PhaseSucceeded', 'Approved') AND run.launched_at IS NOT NULL
    AND extract(epoch FROM ready.at) >= %s
"""
CONNECTIONS = """
SELECT application_name, count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'discoveryflow%%' GROUP BY 1 ORDER BY 1
"""


@dataclass(frozen=True)
class Usage:
    """One process: CPU seconds so far, resident memory now and at its peak in MB, open files."""

    cpu: float
    resident: float
    peak: float
    files: int


def cpu(pid: int) -> float:
    """CPU seconds of a process so far. Raises FileNotFoundError where it is gone."""
    fields = (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def usage(pid: int) -> Usage:
    """Reads /proc. Raises FileNotFoundError where the process is gone."""
    folder = Path("/proc") / str(pid)
    status = (folder / "status").read_text()
    resident, peak = (
        int(found[1]) / 1024
        for name in ("VmRSS", "VmHWM")
        if (found := re.search(rf"{name}:\s+(\d+) kB", status))
    )
    return Usage(
        cpu=cpu(pid),
        resident=resident,
        peak=peak,
        files=len(list((folder / "fd").iterdir())),
    )


def cpu_of_children(pid: int) -> float:
    """CPU seconds of a process's children, those that have ended included."""
    fields = (Path("/proc") / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()
    ended = (int(fields[13]) + int(fields[14])) / TICKS
    listed = (Path("/proc") / str(pid) / "task" / str(pid) / "children").read_text().split()
    used = 0.0
    for child in listed:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            used += cpu(int(child))
    return ended + used


def postmaster(url: str) -> int:
    """The pid of the database server at `url` (superuser), which runs on this machine."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SHOW data_directory").fetchone()
    assert row is not None
    return int((Path(row[0]) / "postmaster.pid").read_text().splitlines()[0])


def busy_seconds() -> float:
    """CPU seconds that all of the machine's processes have used."""
    with Path("/proc/stat").open() as lines:
        numbers = [int(number) for number in next(lines).split()[1:]]
    return (sum(numbers[:8]) - numbers[3] - numbers[4]) / TICKS


def load_average() -> str:
    """How many processes wanted a core during the last minute, as `uptime` tells."""
    return f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def rows(url: str, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """A query's rows as the superuser."""
    with psycopg.connect(url) as connection:
        return connection.execute(query, parameters).fetchall()


async def api_writes(plane: ControlPlane) -> Counter[tuple[str, str]]:
    """Requests that the API server has answered so far, by verb and kind."""
    answer = await plane.api.text("/metrics")
    found: Counter[tuple[str, str]] = Counter()
    for labels, count in re.findall(
        r"^apiserver_request_total{(.*?)} (\S+)$", answer, re.MULTILINE
    ):
        label = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        verb, kind = label["verb"].replace("APPLY", "PATCH"), label["resource"]
        if verb in WRITES and label["code"] < "300":
            sub = label["subresource"]
            found[verb, f"{kind}/{sub}" if sub else kind] += int(float(count))
    return found


async def operator_metrics(port: int) -> str:
    """What the operator tells Prometheus."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        return (await client.get(f"http://127.0.0.1:{port}/metrics")).text


def histogram(text: str, name: str) -> dict[float, int]:
    """How many events were within so many seconds, by a histogram in Prometheus' text."""
    found = re.findall(rf'^{name}_bucket{{le="([^"]+)"}} (\S+)$', text, re.MULTILINE)
    return {float(limit): int(float(count)) for limit, count in found}


def number(text: str, name: str) -> int:
    """A metric without labels in Prometheus' text, 0 where there is none."""
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    return int(float(found[1])) if found else 0


def percentiles(values: Iterable[float]) -> str:
    """Median, 99th percentile and most, in milliseconds."""
    ordered = sorted(values)
    if not ordered:
        return "none"
    late = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return (
        f"p50 {statistics.median(ordered):8.1f} ms  p99 {late:8.1f} ms  "
        f"most {ordered[-1]:8.1f} ms  of {len(ordered)}"
    )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Growth per hour of (seconds, value), by Theil and Sen: the median of all pairs' slopes."""
    pairs = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for position, earlier in enumerate(points)
        for later in points[position + 1 :]
        if later[0] > earlier[0]
    ]
    return statistics.median(pairs) * 3600 if pairs else 0.0
