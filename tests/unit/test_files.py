"""What downloads are called: a name that says what they are, whatever a flow is called."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from discovery_core.files import MEDIA_TYPES, UNKNOWN, file_name, media_type

CREWS = Path(__file__).resolve().parents[2] / "crews" / "discovery_crews"
# a file in the folder that a phase may write to
WRITTEN = re.compile(r"\b(?:workdir|folder|target) / f?\"[^\"]*(\.\w+)\"")


@pytest.mark.parametrize(
    ("name", "suffix", "expected"),
    [
        ("assets_csv", ".csv", "cmdb-assets.csv"),
        ("assets_json", ".ndjson", "cmdb-assets.ndjson"),
        ("assets_parquet", ".parquet", "cmdb-assets.parquet"),
        ("assets_xlsx", ".xlsx", "cmdb-assets.xlsx"),
        ("dependencies_csv", ".csv", "cmdb-dependencies.csv"),
        ("google-import", ".zip", "cmdb-google-import.zip"),
        ("azure-migrate-2", ".csv", "cmdb-azure-migrate-2.csv"),
        ("crewMappings", ".json", "cmdb-crewMappings.json"),
        # stored before its kind was known
        ("assets_xlsx", ".other", "cmdb-assets.xlsx"),
        ("notes", ".other", "cmdb-notes.bin"),
    ],
)
def test_a_download_is_called_what_it_is(name: str, suffix: str, expected: str) -> None:
    assert file_name(["cmdb", "", name], media_type(f"made{suffix}")) == expected


@pytest.mark.parametrize(
    ("flow", "expected"),
    [
        ("dc-east.2024", "dc-east.2024-assets.csv"),
        ('a"; filename="evil.exe', "a_filename_evil.exe-assets.csv"),
        ("../../etc/passwd", "etc_passwd-assets.csv"),
        ("a\r\nSet-Cookie: b", "a_Set-Cookie_b-assets.csv"),
        ("Łódź", "d_-assets.csv"),
        ("", "assets.csv"),
        ("x" * 253, "x" * 100 + "-assets.csv"),
    ],
)
def test_a_flow_may_be_called_anything(flow: str, expected: str) -> None:
    assert file_name([flow, "", "assets_csv"], "text/csv") == expected


def test_every_kind_of_file_that_crews_write_is_known() -> None:
    written = {
        suffix for path in CREWS.rglob("*.py") for suffix in WRITTEN.findall(path.read_text())
    }
    assert written > {".json", ".parquet", ".xlsx"}
    # a folder of DuckDB's
    assert written - {".work"} <= set(MEDIA_TYPES)
    assert media_type("a.exe") == media_type("a") == media_type("a.html") == UNKNOWN
    assert media_type("A.JSONL") == MEDIA_TYPES[".ndjson"]
