"""The steps of `make test`, with the seconds that each may take on two cores with warm caches.

`tests/README.md` says which kind of test belongs where. A step that has outgrown its budget is
told at the end of a run. Steps that go aside run beside the others, so that a suite takes less than
the sum of its steps: `BUDGETS` is what people wait for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

_PYTHON = ".venv/bin/python"
# REPORT is where the run reads durations and failures
_PYTEST = f'{_PYTHON} -m pytest -q --junitxml="$REPORT"'
_CLUSTER = "python3 -m tests.cluster.provision"
# what needs more than this checkout and its virtual environment
_MORE = "cluster or netns or browser or faults"


@dataclass(frozen=True)
class Step:
    """Command lines for bash; the first that fails ends the step, and those that need it.

    Steps run in their order, those `aside` in theirs beside the others. One waits for those that it
    comes `after`, and for those that it `needs`, without which it makes no sense.
    """

    name: str
    what: str
    budget: int
    commands: tuple[str, ...]
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    aside: bool = False

    def __str__(self) -> str:
        return f"{self.what}, aside" if self.aside else self.what


_UP = Step(
    "cluster",
    "a cluster of one node",
    30,
    (
        f"{_CLUSTER} up",
        f"{_CLUSTER} build prometheus kube-router",
        f"{_PYTHON} -m tests.cluster.leftovers",
    ),
    aside=True,
)
_INSTALLED = (
    Step(
        "images",
        "the product's images, and their sizes",
        60,
        (f"{_CLUSTER} images", f"{_CLUSTER} sizes"),
        needs=("cluster",),
        aside=True,
    ),
    Step(
        "install",
        "the charts",
        40,
        ("bash tests/cluster/install",),
        needs=("images",),
        aside=True,
    ),
)
_CHECK = (
    Step(
        "lint",
        "format, types, layers, generated files",
        60,
        (
            ".venv/bin/ruff check .",
            ".venv/bin/ruff format --check .",
            ".venv/bin/mypy",
            ".venv/bin/lint-imports",
            f"{_PYTHON} -m discovery_core.crd --check",
        ),
    ),
    Step(
        "quick",
        "unit, store, API and crew tests",
        360,
        (f'{_PYTEST} -n 2 -m "not slow and not ({_MORE})" tests',),
    ),
)
_TEST = (
    *_CHECK,
    Step(
        "slow",
        "the same kinds, where one takes more than some seconds",
        480,
        (f'{_PYTEST} -n 2 -m "slow and not ({_MORE})" tests',),
    ),
    Step(
        "browser",
        "pages in Chromium, on data of real runs",
        120,
        ("bash tests/get-chromium", f"{_PYTEST} -n 2 -m browser tests/ui"),
    ),
    Step("netns", "crews in a network namespace", 20, (f"{_PYTEST} -m netns tests/crews",)),
    _UP,
    *_INSTALLED,
    Step(
        "alone",
        "tests on the cluster that change what is installed, one by one",
        600,
        (f'{_PYTEST} -m "alone and not exhaustive" tests/cluster',),
        needs=("install",),
        aside=True,
    ),
    Step(
        "faults",
        "operators killed at a sample of their writes, late writers, clocks, faults on the wire",
        300,
        (
            f'{_PYTHON} -m tests.faults.crash_points --sample 16 --seed "$FAULTS_SEED"',
            f'{_PYTEST} -n 2 --dist loadfile -m "faults and not exhaustive" tests/faults',
        ),
        needs=("cluster",),
        aside=True,
    ),
    Step(
        "beside",
        "tests on the cluster that go side by side",
        480,
        (f'{_PYTEST} -n 4 --dist loadgroup -m "not alone and not exhaustive" tests/cluster',),
        needs=("install",),
        after=("alone",),
    ),
)
_FAULTS = (
    Step(
        "crashes",
        "operators killed at every write",
        7200,
        (f"{_PYTHON} -m tests.faults.crash_points",),
    ),
    Step(
        "wire",
        "every fault on the wire",
        7200,
        (f"{_PYTHON} -m tests.faults.faults_on_the_wire",),
    ),
    Step(
        "guards",
        "every guard removed, one by one",
        7200,
        (f"{_PYTHON} -m tests.faults.mutate_guards",),
    ),
    Step(
        "machine",
        "the long state machine",
        3600,
        (f"FAULTS=full {_PYTEST} tests/faults/test_state_machine.py",),
    ),
    Step(
        "faults",
        "late writers, clocks, the short soak",
        3600,
        (f"FAULTS=full {_PYTEST} -m faults tests/faults",),
    ),
    Step(
        "spoilt",
        "files of every kind, spoilt",
        3900,
        (f"{_PYTHON} -m tests.crews.fuzz --minutes 60",),
    ),
    # nothing runs beside those that take hours
    *(replace(step, aside=False) for step in (_UP, *_INSTALLED)),
    Step(
        "exhaustive",
        "what make test takes a sample of, on the cluster",
        1800,
        (f"FAULTS=full {_PYTEST} -m exhaustive tests/cluster",),
        needs=("install",),
    ),
)
SUITES = {"check": _CHECK, "test": _TEST, "faults": _FAULTS}
BUDGETS = {"check": 300, "test": 1500, "faults": 6 * 3600}
