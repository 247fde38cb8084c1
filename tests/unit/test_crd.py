"""The CRD follows from the models, and every part of it is described and bounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from discovery_core import crd
from discovery_core.resource import DiscoveryFlowStatus
from discovery_core.states import FlowState
from pydantic import BaseModel, Field

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def version() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(crd.rendered())["spec"]["versions"][0]
    return found


def walk(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from walk(field, f"{path}.{name}")
    for part in ("items", "additionalProperties"):
        if isinstance(schema.get(part), dict):
            yield from walk(schema[part], f"{path}[]")


def own_parts(version: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    schema = version["schema"]["openAPIV3Schema"]["properties"]
    for part in ("spec", "status"):
        yield from walk(schema[part], part)


def unbounded(parts: Iterator[tuple[str, dict[str, Any]]]) -> list[str]:
    """Paths of what has no upper limit."""
    found = []
    for path, schema in parts:
        kind = schema.get("type")
        bounded = {
            "string": "maxLength" in schema or "enum" in schema,
            "array": "maxItems" in schema,
            "object": "properties" in schema or "maxProperties" in schema,
            "integer": True,
            "number": True,
            "boolean": True,
        }
        if not bounded.get(str(kind), False):
            found.append(path)
    return found


def test_the_committed_files_follow_from_the_models() -> None:
    for path, text in crd.generated_files(ROOT).items():
        assert path.read_text(encoding="utf-8") == text, f"{path} drifted: run `make generate`"


def test_check_fails_on_drift_and_writing_repairs_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert crd.main(["--check", "--root", str(tmp_path)]) == 1
    assert "make generate" in capsys.readouterr().err
    assert crd.main(["--root", str(tmp_path)]) == 0
    assert crd.main(["--check", "--root", str(tmp_path)]) == 0
    target = tmp_path / crd.CRD_FILE
    target.write_text(target.read_text(encoding="utf-8").replace("maxLength: 512", ""))
    assert crd.main(["--check", "--root", str(tmp_path)]) == 1


def test_the_chart_keeps_the_definition_when_it_is_uninstalled() -> None:
    chart = yaml.safe_load((ROOT / crd.CHART_FILE).read_text(encoding="utf-8"))
    assert chart["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    plain = yaml.safe_load((ROOT / crd.CRD_FILE).read_text(encoding="utf-8"))
    assert chart["spec"] == plain["spec"]


def test_every_string_list_and_map_is_bounded(version: dict[str, Any]) -> None:
    parts = list(own_parts(version))
    assert len(parts) > 50
    assert unbounded(iter(parts)) == []


def test_the_bound_check_finds_what_is_unbounded() -> None:
    class Loose(BaseModel):
        text: str
        rows: list[int]
        fine: str = Field(max_length=3)

    schema = crd.structural(Loose.model_json_schema(), {})
    assert unbounded(walk(schema, "loose")) == ["loose.text", "loose.rows"]


def test_every_field_is_described(version: dict[str, Any]) -> None:
    parts = [(path, schema) for path, schema in own_parts(version) if not path.endswith("[]")]
    assert [path for path, schema in parts if not schema.get("description", "").strip()] == []


def test_no_schema_part_is_foreign_to_structural_schemas(version: dict[str, Any]) -> None:
    forbidden = {"$ref", "anyOf", "oneOf", "allOf", "title", "const", "definitions", "$defs"}
    for path, schema in own_parts(version):
        assert not forbidden & set(schema), path


def test_rules_can_rely_on_defaults(version: dict[str, Any]) -> None:
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    for name in ("llm", "approvalPolicy", "retries"):
        inner = spec[name]["properties"]
        assert spec[name]["default"] == {
            field: schema["default"] for field, schema in inner.items() if "default" in schema
        }
    assert spec["retries"]["default"] == {"maxAttempts": 3, "initialDelay": "5s", "maxDelay": "5m"}
    assert spec["state"]["default"] == "Run"
    assert spec["llm"]["properties"]["provider"]["default"] == "builtin"
    assert "default" not in spec["approval"]
    assert "default" not in spec["source"]


def test_what_a_person_mistypes_is_explained_not_quoted_as_a_pattern(
    version: dict[str, Any],
) -> None:
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert [path for path, schema in walk(spec) if "pattern" in schema] == []
    rules = [
        rule for _, schema in walk(spec) for rule in schema.get("x-kubernetes-validations", [])
    ]
    assert len(rules) > 20
    assert all(rule["message"] for rule in rules)


def test_names_columns_and_selectors(version: dict[str, Any]) -> None:
    whole = crd.custom_resource_definition()
    names = whole["spec"]["names"]
    assert names["shortNames"] == ["dflow"]
    assert names["categories"] == ["discovery"]
    assert version["subresources"] == {"status": {}}
    assert [field["jsonPath"] for field in version["selectableFields"]] == [
        ".status.state",
        ".spec.engagement",
    ]
    columns = version["additionalPrinterColumns"]
    assert [c["name"] for c in columns if c["priority"] == 0] == [
        "State",
        "Phase",
        "Progress",
        "Age",
    ]
    assert [c["name"] for c in columns if c["priority"] == 1] == ["Attempt", "Assets", "Message"]


def test_status_state_lists_the_states_of_the_state_table(version: dict[str, Any]) -> None:
    status = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    assert status["state"]["enum"] == [state.value for state in FlowState]
    assert status["conditions"]["x-kubernetes-list-map-keys"] == ["type"]
    assert set(status) == {
        field.alias or name for name, field in DiscoveryFlowStatus.model_fields.items()
    }


class _Unsupported(BaseModel):
    either: int | str


def test_a_construct_that_a_crd_cannot_express_is_refused() -> None:
    with pytest.raises(ValueError, match="one type"):
        crd.structural(_Unsupported.model_json_schema(), {})
    with pytest.raises(ValueError, match="multipleOf"):
        crd.structural({"type": "integer", "multipleOf": 2}, {})


def test_the_field_reference_replaces_what_stands_between_its_markers() -> None:
    document = f"before\n{crd.REFERENCE_START}\nstale text\n{crd.REFERENCE_END}\nafter\n"
    text = crd.with_reference(document)
    assert "stale text" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "`source.configMap.name`" in text
    with pytest.raises(ValueError, match="markers"):
        crd.with_reference("nothing here")
