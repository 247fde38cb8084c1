"""Real files end as the table beside this test says, which was written by reading them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from discovery_core.errors import DiscoveryError
from discovery_core.phases import Phase
from discovery_core.wire import ImportResult, InventoryResult
from discovery_crews.local_run import LocalRun

from tests.crews.files import REAL, real_file

EXPECTED: dict[str, dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parent / "real_files.yaml").read_text(encoding="utf-8")
)


def test_no_real_file_is_left_out() -> None:
    real_file("SOURCES.md")
    found = {str(path.relative_to(REAL)) for path in REAL.rglob("*") if path.is_file()}
    assert found - {"SOURCES.md"} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_real_file(name: str, tmp_path: Path) -> None:
    expected = EXPECTED[name]
    local = LocalRun(real_file(name), tmp_path)
    if "code" in expected:
        with pytest.raises(DiscoveryError) as refused:
            local.run(Phase.DATA_IMPORT)
        assert refused.value.code == expected["code"]
        assert Path(name).name in str(refused.value)
        return
    last = Phase.ASSET_INVENTORY if "assets" in expected else Phase.DATA_IMPORT
    local.run(last)
    imported = local.outcomes[Phase.DATA_IMPORT].result
    assert isinstance(imported, ImportResult)
    assert (imported.rows_imported, imported.rows_rejected) == (
        expected["rows"],
        expected["rejected"],
    )
    if "error" in expected:
        errors = " ".join(text for text in imported.findings if text.startswith("[error]"))
        assert expected["error"] in errors.lower()
    if last is Phase.ASSET_INVENTORY:
        inventory = local.outcomes[last].result
        assert isinstance(inventory, InventoryResult)
        assert inventory.assets == expected["assets"]
        assert inventory.by_type == expected.get("types", inventory.by_type)
