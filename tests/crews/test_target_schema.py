"""The target schema: the built-in one agrees with the domain's list, bad ones are refused."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_crews.mapping.kinds import CONTRADICTS, TELLING
from discovery_crews.tables.units import canonical_unit
from discovery_crews.target_schema import builtin_schema, load_schema

CANONICAL = Path(__file__).parents[3] / "shared/data/target-fields/canonical.csv"


def write(folder: Path, text: str, name: str = "schema.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.skipif(not CANONICAL.exists(), reason="the list of canonical fields is not here")
def test_the_builtin_fields_are_the_canonical_ones() -> None:
    with CANONICAL.open(encoding="utf-8") as stream:
        assert builtin_schema().names == [row["field"] for row in csv.DictReader(stream)]


def test_the_builtin_fields_are_complete() -> None:
    schema = builtin_schema()
    assert len(schema.fields) == 64
    known = set(TELLING) | set(CONTRADICTS) | {"anything", "list", "duration"}
    for field in schema.fields:
        assert field.description
        assert len(field.synonyms) >= 5, field.name
        assert set(field.kinds) <= known, field.name
        assert field.unit is None or canonical_unit(field.unit) == field.unit
    # nothing that the inventory finds by itself: a policy could approve hardly any file
    assert [field.name for field in schema.fields if field.required] == ["asset_name"]
    assert schema.get("memory_gb") is not None
    assert schema.get("nothing") is None


def test_without_a_path_the_builtin_schema_is_loaded() -> None:
    assert load_schema(None) is builtin_schema()


def test_csv_with_two_columns(tmp_path: Path) -> None:
    schema = load_schema(write(tmp_path, 'field,description\nage,"years, at diagnosis"\nsex,\n'))
    assert schema.names == ["age", "sex"]
    assert schema.fields[0].description == "years, at diagnosis"
    assert schema.fields[0].type == "string"


def test_csv_with_everything_and_another_delimiter(tmp_path: Path) -> None:
    text = (
        "\ufefffield;description;type;unit;synonyms;allowedValues;pattern;required\n"
        "ram;main memory;number;GB;memory|RAM size;;;yes\n"
        "state;on or off;string;;;on|off;[a-z]+;\n"
    )
    ram, state = load_schema(write(tmp_path, text, "schema")).fields
    assert (ram.type, ram.unit, ram.required) == ("number", "GB", True)
    assert ram.synonyms == ("memory", "RAM size")
    assert state.allowed_values == ("on", "off")
    assert state.pattern == "[a-z]+"


@pytest.mark.parametrize("text", [
    "fields:\n- name: ram\n  type: number\n  unit: GB\n  synonyms: [memory]\n",
    "- field: ram\n  type: number\n  unit: GB\n  synonyms: [memory]\n",
])  # fmt: skip
def test_yaml(tmp_path: Path, text: str) -> None:
    (ram,) = load_schema(write(tmp_path, text, "schema.yaml")).fields
    assert (ram.name, ram.type, ram.unit, ram.synonyms) == ("ram", "number", "GB", ("memory",))


def test_yaml_of_names_alone(tmp_path: Path) -> None:
    assert load_schema(write(tmp_path, "- ram\n- disk\n", "targetSchema")).names == ["ram", "disk"]


@pytest.mark.parametrize(("name", "text", "place"), [
    ("s.csv", "name of it,description\nx,y\n", "line 1"),
    ("s.csv", "field,description\na,b\n,c\n", "line 3: the field has no name"),
    ("s.csv", "field,description\na,b,c\n", "line 2: there are more cells"),
    ("s.csv", "field,description\na,b\na,c\n", "line 3: field 'a' is defined twice"),
    ("s.csv", "field,type\na,text\n", "line 2: type"),
    ("s.csv", "field,pattern\na,[\n", "line 2: pattern: '[' cannot be used: missing ]"),
    ("s.csv", "field,description\n", "there are no fields"),
    ("s.csv", "", "line 1"),
    ("s.yaml", "fields: {a: 1}\n", "a list of fields"),
    ("s.yaml", "- name: a\n  colour: red\n", "field 1: colour"),
    ("s.yaml", "- description: a\n", "field 1: name: the field has no name"),
    ("s.yaml", "- [a]\n", "field 1"),
    ("s.yaml", "a: [\n", "line 2"),
    ("s.yaml", "just words", "a list of fields"),
])  # fmt: skip
def test_a_bad_schema_is_refused_with_its_place(
    tmp_path: Path, name: str, text: str, place: str
) -> None:
    with pytest.raises(DiscoveryError) as caught:
        load_schema(write(tmp_path, text, name))
    assert caught.value.code == ErrorCode.INVALID_TARGET_SCHEMA
    assert place in caught.value.message
    assert name in caught.value.message
    assert "columns field,description" in caught.value.message


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"field\n\xff\xfe")
    for path, said in ((binary, "not UTF-8"), (tmp_path / "none.csv", "cannot be read")):
        with pytest.raises(DiscoveryError, match=said) as caught:
            load_schema(path)
        assert caught.value.code == ErrorCode.INVALID_TARGET_SCHEMA


def test_a_huge_schema_is_refused(tmp_path: Path) -> None:
    lines = "".join(f"f{number},\n" for number in range(5001))
    with pytest.raises(DiscoveryError, match="more than 5000"):
        load_schema(write(tmp_path, "field,description\n" + lines))
