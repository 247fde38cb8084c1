"""The sample inventory is what its generator writes, big enough and dirty enough to be worth it."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import yaml

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_sample", EXAMPLES / "make_sample.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_sample_is_the_generated_one(generator: ModuleType) -> None:
    text = (EXAMPLES / "servers.csv").read_text(encoding="utf-8")
    assert text == "\ufeff" + generator.table()
    assert (EXAMPLES / "sample.yaml").read_text(encoding="utf-8") == generator.manifest()
    assert generator.table() == generator.table()
    assert (EXAMPLES / "servers.csv").stat().st_size < 100_000


def test_the_manifest_holds_the_same_rows() -> None:
    config_map, flow = yaml.safe_load_all((EXAMPLES / "sample.yaml").read_text(encoding="utf-8"))
    (name,) = config_map["data"]
    assert flow["spec"]["source"]["configMap"] == {
        "name": config_map["metadata"]["name"],
        "key": name,
    }
    in_file = (EXAMPLES / "servers.csv").read_text(encoding="utf-8-sig").split()
    assert config_map["data"][name].split() == in_file


def test_the_sample_has_enough_assets_and_the_usual_dirt() -> None:
    with (EXAMPLES / "servers.csv").open(encoding="utf-8-sig", newline="") as stream:
        header, *rows = list(csv.reader(stream, delimiter=";"))
    whole = [row for row in rows if len(row) == len(header) and row[1]]
    names = [row[1].lower() for row in whole]
    assert len(set(names)) >= 200
    assert len(names) > len(set(names)), "the same machine from two lists"
    assert any(not row for row in rows), "a blank line"
    assert any(len(row) > len(header) for row in rows), "a row with cells too many"
    assert any(row[:1] == ["Total"] for row in rows), "a total"
    assert any("MB" in row[5] for row in whole), "units mixed"
    assert any("GB" in row[5] for row in whole), "units mixed"
    assert any(row[0] != row[0].strip() for row in whole), "blanks around a name"
    assert {"N/A", "-", "unknown"} <= {cell for row in whole for cell in row}
    assert any("ü" in cell for row in whole for cell in row), "letters beyond ASCII"
    assert any(row[2] == "10.20.300.1" for row in whole), "an impossible address"
