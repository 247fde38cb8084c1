"""What decides may look at nothing but its argument: no clock, no chance, no input or output.

import-linter forbids the libraries; this finds what slips through them.
"""

from __future__ import annotations

import ast
from pathlib import Path

import discovery_operator
import pytest
from discovery_core import actions

ROOT = Path(discovery_operator.__file__).parent
PURE = [
    *(
        ROOT / f"{name}.py"
        for name in (
            "decide", "decide_gate", "decide_run", "failures", "observed", "retries",
            "status", "views",
        )
    ),
    *sorted((ROOT / "manifests").glob("*.py")),
    Path(actions.__file__),
]  # fmt: skip
IMPURE_CALLS = {"now", "utcnow", "today", "uuid1", "uuid4", "open", "getenv", "print", "read_text"}


@pytest.mark.parametrize("path", PURE, ids=[path.name for path in PURE])
def test_nothing_impure_is_called(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            assert name not in IMPURE_CALLS, f"{path.name}:{node.lineno} calls {name}"
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.Global)


def test_handlers_are_short() -> None:
    for path in (ROOT / "handlers").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 20
