"""Fixtures that all tests share, and the rule that a skip has to be expected.

A test that skips quietly is a check that cannot fail. With DISCOVERY_STRICT_SKIPS set, a skip
whose test is not listed in `allowed-skips.txt` fails the run.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults import seeds

pytest_plugins = ["tests.postgres"]

ALLOWED = Path(__file__).with_name("allowed-skips.txt")
_skipped: dict[str, str] = {}


def _allowed() -> list[str]:
    lines = [line.split("#")[0].strip() for line in ALLOWED.read_text().splitlines()]
    return [line for line in lines if line]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        _skipped[report.nodeid] = str(reason)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workerinput") or "DISCOVERY_STRICT_SKIPS" not in os.environ:
        return
    allowed = _allowed()
    if any(not node.startswith(tuple(allowed)) if allowed else True for node in _skipped):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_configure() -> None:
    # before worker processes are started, so that all draw with one seed
    seeds.seed()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"what was drawn: FAULTS_SEED={seeds.seed()}")
    allowed = tuple(_allowed())
    for node, reason in sorted(_skipped.items()):
        expected = node.startswith(allowed) if allowed else False
        word = "expected skip" if expected else "UNEXPECTED skip"
        terminalreporter.write_line(f"{word}: {node}: {reason}")
