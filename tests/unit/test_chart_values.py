"""The chart's settings are closed, documented, and the same in values, schema and manual."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "discoveryflow"
SCENARIOS = sorted((CHART / "ci").glob("*-values.yaml"))
# free-form by nature: maps of Kubernetes' own
FREE = {"affinity", "global", "podSelector", "namespaceSelector", "ipBlock", "tolerations"}

Tree = dict[str, Any]


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def schema() -> Tree:
    found: Tree = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(found)
    return found


@pytest.fixture(scope="module")
def values() -> Tree:
    found: Tree = load(CHART / "values.yaml")
    return found


def merged(base: Tree, extra: Tree) -> Tree:
    """`extra` over `base`, as Helm does it."""
    result = dict(base)
    for key, value in extra.items():
        nested = isinstance(value, dict) and isinstance(base.get(key), dict)
        result[key] = merged(base[key], value) if nested else value
    return result


def problems(schema: Tree, values: Tree) -> list[str]:
    return [error.message for error in Draft202012Validator(schema).iter_errors(values)]


def leaves(tree: Tree, prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and value and key != "resources":
            yield from leaves(value, f"{path}.")
        else:
            yield path


def test_the_default_values_fit_the_schema(schema: Tree, values: Tree) -> None:
    assert problems(schema, values) == []


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.name)
def test_the_scenarios_fit_the_schema(path: Path, schema: Tree, values: Tree) -> None:
    assert problems(schema, merged(values, load(path))) == []


def test_there_are_scenarios_for_both_databases() -> None:
    loaded = [load(path) for path in SCENARIOS]
    assert any(values.get("database", {}).get("url") for values in loaded)
    assert any("postgresql" in values for values in loaded)


def test_nothing_but_the_listed_settings_is_taken(schema: Tree) -> None:
    def open_objects(part: Tree, path: str) -> Iterator[str]:
        if part.get("type") == "object" and path.rsplit(".", 1)[-1] not in FREE:
            closed = part.get("additionalProperties")
            if closed is None or closed is True:
                yield path
        for name, inner in part.get("properties", {}).items():
            yield from open_objects(inner, f"{path}.{name}")
        if isinstance(part.get("items"), dict):
            yield from open_objects(part["items"], path)

    assert list(open_objects(schema, "values")) == []


def test_every_setting_of_the_schema_has_a_default(schema: Tree, values: Tree) -> None:
    def settings(part: Tree, path: str) -> Iterator[str]:
        for name, inner in part.get("properties", {}).items():
            if inner.get("properties") and name not in FREE | {"resources"}:
                yield from settings(inner, f"{path}{name}.")
            elif name != "global":
                yield f"{path}{name}"

    def given(path: str) -> bool:
        node: Any = values
        for part in path.split("."):
            if not isinstance(node, dict) or part not in node:
                return False
            node = node[part]
        return True

    assert [path for path in settings(schema, "") if not given(path)] == []


BAD: dict[str, tuple[Tree, str]] = {
    "misspelt": ({"databse": {}}, "databse"),
    "misspelt deep down": ({"database": {"uri": "x"}}, "uri"),
    "password in the address": (
        {"database": {"url": "postgresql://me:pw@db/x"}},
        "does not match",
    ),
    "another database": ({"database": {"url": "mysql://db/x"}}, "does not match"),
    "no operator": ({"operator": {"replicas": 0}}, "less than the minimum"),
    "half a digest": ({"image": {"digest": "sha256:abc"}}, "does not match"),
    "yes as text": ({"approval": {"allowAutomatic": "yes"}}, "is not of type 'boolean'"),
    "every endpoint": ({"llm": {"allowedEndpoints": ["*"]}}, "does not match"),
    "endpoint with a quotation mark": (
        {"llm": {"allowedEndpoints": ["https://a/'] || true || '' in ['"]}},
        "does not match",
    ),
    "a retention without a unit": (
        {"retention": {"finishedFlows": "90"}},
        "does not match",
    ),
    "a retention of minutes": ({"retention": {"deletedNamespaces": "30m"}}, "does not match"),
    "accounts as text": (
        {"approval": {"allowServiceAccounts": "no"}},
        "is not of type 'boolean'",
    ),
    "a schedule of four fields": ({"migration": {"schedule": "* * * *"}}, "does not match"),
    "no replica": ({"api": {"replicas": 0}}, "less than the minimum"),
    "loud": ({"logLevel": "LOUD"}, "is not one of"),
}


@pytest.mark.parametrize(("extra", "says"), BAD.values(), ids=BAD.keys())
def test_bad_settings_are_refused(extra: Tree, says: str, schema: Tree, values: Tree) -> None:
    found = problems(schema, merged(values, extra))
    assert len(found) == 1
    assert says in found[0]


def test_s20_a_crew_pod_may_not_take_a_whole_node(values: Tree) -> None:
    limits = values["crews"]["resources"]["limits"]
    assert limits["memory"] == "2Gi"
    # a crew's own work and DuckDB's: with less than two it takes longer on the smallest machine
    assert limits["cpu"] == 2


def test_the_manual_lists_every_setting(values: Tree) -> None:
    manual = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
    missing = [path for path in leaves(values) if f"`{path}`" not in manual]
    assert missing == []


def test_both_charts_have_the_versions_of_the_product() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name in ("discoveryflow", "discoveryflow-crds"):
        chart = load(ROOT / "charts" / name / "Chart.yaml")
        assert f'version = "{chart["appVersion"]}"' in text
        assert chart["kubeVersion"] == ">=1.32.0-0"
