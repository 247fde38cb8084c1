"""What a component imports is declared by its own extra, not by luck of what else is installed."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMPONENTS = ("operator", "api", "crews", "cli")
_NAME = re.compile(r"([A-Za-z0-9._-]+)(?:\[([a-z,]+)\])?")


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(extra: str) -> set[str]:
    """Distributions that the extra names itself, with those that every installation has."""
    names: set[str] = set()
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"].get(extra, [])]:
        found = _NAME.match(text)
        assert found, text
        if found[1] == PROJECT["name"]:
            for other in found[2].split(","):
                names |= declared(other)
        else:
            names.add(plain(found[1]))
    return names


def module_file(name: str) -> Path | None:
    """The file of one of our own modules."""
    component = name.split(".", maxsplit=1)[0].removeprefix("discovery_")
    path = ROOT / component / Path(*name.split("."))
    return next((p for p in (path / "__init__.py", path.with_suffix(".py")) if p.is_file()), None)


@cache
def imports(path: Path) -> frozenset[str]:
    """Dotted names that a file imports; `from a import b` counts as `a` and `a.b`."""
    folder = path.relative_to(ROOT).parts[1:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def reached(component: str) -> Iterator[tuple[Path, str]]:
    """Files of a component and of what it uses of the others, each with what it imports."""
    waiting = set((ROOT / component / f"discovery_{component}").rglob("*.py"))
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        for name in imports(path):
            yield path, name
            parts = name.split(".")
            for end in range(1, len(parts) + 1):
                own = module_file(".".join(parts[:end]))
                if own is not None and own not in seen:
                    waiting.add(own)


@pytest.mark.parametrize("component", COMPONENTS)
def test_imports_are_declared(component: str) -> None:
    known = packages_distributions()
    allowed = declared(component)
    missing: set[str] = set()
    checked: set[str] = set()
    for path, name in reached(component):
        top = name.split(".")[0]
        if top in sys.stdlib_module_names or top.startswith("discovery_"):
            continue
        checked.add(top)
        if not allowed & {plain(distribution) for distribution in known.get(top, [])}:
            missing.add(f"{path.relative_to(ROOT)} imports {top}")
    assert "pydantic" in checked or component == "cli"
    assert len(checked) > 1
    assert missing == set()
