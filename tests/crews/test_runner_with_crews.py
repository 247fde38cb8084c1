"""Every phase as its pod runs it: runner, real crew and built-in planner, over HTTPS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from discovery_core.files import UNKNOWN
from discovery_core.phases import PHASES, Phase, phase_spec
from discovery_core.wire.model import ArtefactReference
from discovery_core.wire.protocol import Complete
from discovery_core.wire.results import MappingResult

from tests.crews.fake_execution import FakeExecution

SOURCE = (
    "Server Name;IP Address;Memory size;Env;Serial No.\n"
    " web01 ;10.0.0.1;4096;prod;S1\nweb01;10.0.0.1;4096;PROD;S1\ndb01;10.0.0.2;8 GB;prod;S2\n"
)


def run_pod(tmp_path: Path, fake: FakeExecution) -> tuple[Complete, str]:
    """One pod's life; its result and its log."""
    (tmp_path / "token").write_text(fake.token)
    environment = os.environ | {
        "DISCOVERY_EXECUTION_URL": fake.url,
        "DISCOVERY_EXECUTION_CA": fake.ca_pem,
        "DISCOVERY_EXECUTION_TOKEN_FILE": str(tmp_path / "token"),
        "DISCOVERY_WORKDIR": str(tmp_path / "work"),
        "DISCOVERY_SOURCE_ROOT": str(tmp_path / "mount"),
        "HOME": str(tmp_path / "home"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-m", "discovery_crews.runner"],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not fake.failed, fake.failed
    (message,) = fake.completed
    return message, done.stderr


@pytest.mark.slow
def test_all_phases_one_pod_each(tmp_path: Path) -> None:
    (tmp_path / "mount").mkdir()
    (tmp_path / "home").mkdir()
    source = tmp_path / "mount" / "servers.csv"
    source.write_text(SOURCE)
    stored: dict[tuple[Phase, str], bytes] = {}
    records: list[dict[str, Any]] = []
    for spec in PHASES:
        claim: dict[str, Any] = {"phase": spec.name, "source_path": str(source)}
        with FakeExecution(**claim) as fake:
            inputs: dict[str, ArtefactReference] = {
                needed.name: fake.store(stored[needed.phase, needed.artefact])
                for needed in phase_spec(spec.name).inputs
                if not needed.optional or (needed.phase, needed.artefact) in stored
            }
            fake._claim["inputs"] = inputs
            message, log = run_pod(tmp_path, fake)
        assert message.result.kind == spec.name
        assert message.usage.seconds_import > 0
        assert message.usage.seconds_crew > 0
        assert any(call.startswith("submit_") for call in message.usage.tool_calls)
        for line in log.splitlines():
            assert json.loads(line)["component"] == "crews", "the log is JSON lines only"
        for name, digest in message.artefacts.items():
            stored[spec.name, name] = fake.artefacts[digest]
            assert fake.media_types[digest] != UNKNOWN, name
        if fake.pinned is not None:
            assert fake.media_types[fake.pinned.source] == "text/csv"
        if spec.name is Phase.ASSET_INVENTORY:
            records = fake.records
        if isinstance(message.result, MappingResult):
            # the approval stores the proposals as they are
            entries = [
                entry.model_dump(mode="json", by_alias=True) for entry in message.result.mappings
            ]
            stored[spec.name, "mappings"] = json.dumps(entries).encode()
    assert [record["row"] for record in records] == [2, 3, 4]
    assert len({record["identity"] for record in records}) == 2
    assert {record["assetType"] for record in records} == {"server"}
    assert [record["values"]["memory_gb"] for record in records] == [4.0, 4.0, 8.0]
    assert records[0]["originals"]["memory_gb"] == "4096"
    assert not list((tmp_path / "home").rglob("*.db")), "crews keep nothing outside the work folder"
