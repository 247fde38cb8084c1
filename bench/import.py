"""Measures the import: rows per second of reading and profiling, beside Polars reading the file.

Writes a synthetic inventory of 20 columns, imports it in a process of its own and prints that
process's peak memory. Polars is no dependency of this project: `pip install polars` beside it.
What Polars does is less (one read into memory, no artefact, no profile), so it is a yardstick for
the machine, not a competitor.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OURS = """
import json, re, sys, time
from pathlib import Path
from discovery_crews.profile import profile_records
from discovery_crews.readers import ReadRequest, read_source
from discovery_crews.settings import reader_limits

source, workdir = Path(sys.argv[1]), Path(sys.argv[2])
started = time.perf_counter()
table = read_source(ReadRequest(source, workdir, source.name, reader_limits()))
read = time.perf_counter()
profile_records(workdir, table.parquet, table.rows)
done = time.perf_counter()
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(json.dumps({"rows": table.rows, "read": read - started, "profile": done - read,
                  "mib": int(peak[1]) // 1024}))
"""
POLARS = """
import json, re, sys, time
from pathlib import Path
import polars

started = time.perf_counter()
frame = polars.read_csv(sys.argv[1], infer_schema=False)
done = time.perf_counter()
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(json.dumps({"rows": frame.height, "read": done - started, "profile": 0.0,
                  "mib": int(peak[1]) // 1024}))
"""
HEADER = (
    "hostname", "ip", "mac", "serial", "os", "os version", "cpus", "memory mb", "disk gb",
    "environment", "owner", "location", "application", "status", "purchase date", "uuid",
    "cluster", "notes", "cpu usage %", "cost center",
)  # fmt: skip


def write_inventory(path: Path, rows: int, *, irregular: bool) -> None:
    """A plausible inventory; an irregular one ends with a short row, so it is read row by row."""
    chance = random.Random(1)
    systems = ("Windows Server 2019", "Red Hat Enterprise Linux 8", "Ubuntu 22.04", "SUSE 15")
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(HEADER)
        for n in range(rows):
            r = chance.getrandbits(48)
            writer.writerow(
                (
                    f"srv{n:07d}.example.com",
                    f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}",
                    ":".join(f"{r >> shift & 255:02x}" for shift in range(0, 48, 8)),
                    f"SN{r:X}",
                    systems[r % 4],
                    f"{r % 9}.{r % 7}",
                    r % 64 + 1,
                    (r % 128 + 1) * 1024,
                    r % 5000,
                    ("prod", "test", "dev")[r % 3],
                    f"user{r % 500}@example.com",
                    ("Bonn", "Paris, FR", "Rome", "Oslo")[r % 4],
                    f"app-{r % 300}",
                    "active" if r % 9 else "retired",
                    f"20{r % 24:02d}-{r % 12 + 1:02d}-{r % 28 + 1:02d}",
                    f"500b85c1-ef0d-37fb-6897-{r:012x}",
                    f"cl{r % 40}",
                    "" if r % 5 else f"note, {r % 1000}",
                    f"{r % 10_000 / 100}",
                    f"CC{r % 900}",
                )
            )
        if irregular:
            stream.write("\r\nlast\r\n")


def measure(name: str, code: str, *arguments: str) -> float:
    """Print one line; rows per second of all the work."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True
    )
    found = json.loads(done.stdout)
    rate = found["rows"] / (found["read"] + found["profile"])
    print(
        f"{name:<24}{rate:>12,.0f} rows/s   read {found['read']:6.2f} s   "
        f"profile {found['profile']:6.2f} s   peak {found['mib']:5d} MiB"
    )
    return float(rate)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        sources = {"regular": Path(folder, "a.csv"), "irregular": Path(folder, "b.csv")}
        for kind, path in sources.items():
            write_inventory(path, rows, irregular=kind == "irregular")
        size = sources["regular"].stat().st_size // 1024 // 1024
        print(
            f"{rows:,} rows of {len(HEADER)} columns, {size} MiB, {os.cpu_count()} CPUs "
            f"(written in {time.perf_counter() - started:.0f} s)"
        )
        rates = {}
        for kind, path in sources.items():
            workdir = Path(folder, kind)
            workdir.mkdir()
            rates[kind] = measure(f"import, {kind} file", OURS, str(path), str(workdir))
        if importlib.util.find_spec("polars") is None:
            print("Polars is not installed; `pip install polars` adds a comparison.")
            return
        yardstick = measure("Polars, read only", POLARS, str(sources["regular"]))
        print(f"import of a regular file: {rates['regular'] / yardstick:.0%} of Polars' rate")


if __name__ == "__main__":
    main()
