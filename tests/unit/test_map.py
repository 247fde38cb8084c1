"""The map for newcomers names files and folders that are there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLACE = re.compile(r"`([\w./-]+(?:\.(?:py|yaml|html|md|txt)|/))`")


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_every_place_that_is_named_is_there(page: str) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    files = {f"/{name}" for name in listed if (ROOT / name).exists()}
    folders = {f"{parent}/" for name in files for parent in Path(name).parents}
    named = set(PLACE.findall((ROOT / page).read_text()))
    assert len(named) > 10
    missing = [n for n in named if not any(p.endswith(f"/{n}") for p in files | folders)]
    assert missing == []
