"""Files made after public reports end as the table beside this test says.

The table was written from what a person who reads each file expects, before the product saw it.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from discovery_core.errors import DiscoveryError
from discovery_core.phases import Phase
from discovery_core.wire.results import ImportResult
from discovery_crews.local_run import LocalRun

from tests.crews.files import REAL, real_file

pytestmark = pytest.mark.slow

EXPECTED: dict[str, dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parent / "reported_files.yaml").read_text(encoding="utf-8")
)
_STRATEGY_ONLY = {"exports", "strategies", "migrate_not", "no_support_date", "edges"}


@dataclass
class Outcome:
    """A file's way through the phases."""

    local: LocalRun

    def table(self, phase: Phase, name: str) -> list[dict[str, Any]]:
        """The rows of a Parquet artefact."""
        path = self.local.outcomes[phase].artefacts[name]
        found = duckdb.execute(f"SELECT * FROM '{path}'")
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def assets(self) -> list[dict[str, Any]]:
        """The inventory."""
        return self.table(Phase.ASSET_INVENTORY, "inventory")

    def asset(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """The one asset of that name (`where` the other fields are those)."""
        chosen = {"name": wanted["name"], **wanted.get("where", {})}
        found = [a for a in self.assets() if all(a[f] == value for f, value in chosen.items())]
        assert len(found) == 1, (chosen, [a["name"] for a in self.assets()])
        return found[0]

    def findings(self) -> str:
        """Everything that people are told by any phase."""
        results = [outcome.result for outcome in self.local.outcomes.values()]
        return "\n".join(text for result in results for text in getattr(result, "findings", []))

    def export(self, name: str) -> list[dict[str, str]]:
        """The rows of a vendor's file."""
        name, _, member = name.partition("/")
        data = self.local.outcomes[Phase.MIGRATION_STRATEGY].artefacts[name].read_bytes()
        if member:
            data = zipfile.ZipFile(io.BytesIO(data)).read(member)
        return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))


def test_no_reported_file_is_left_out() -> None:
    real_file("reported/expected.md")
    found = {path.name for path in (REAL / "reported").iterdir()} - {"expected.md"}
    assert found == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_reported_file(name: str, tmp_path: Path) -> None:
    expected = dict(EXPECTED[name])
    local = LocalRun(real_file(f"reported/{name}"), tmp_path)
    if (code := expected.pop("refused", None)) is not None:
        with pytest.raises(DiscoveryError, match=expected.pop("message", None)) as refused:
            local.run(Phase.DATA_IMPORT)
        assert (refused.value.code, expected) == (code, {})
        return
    local.run(_last(expected))
    outcome = Outcome(local)
    for what, wanted in expected.items():
        _CHECKS[what](outcome, wanted)


def _last(expected: dict[str, Any]) -> Phase:
    if _STRATEGY_ONLY & set(expected):
        return Phase.MIGRATION_STRATEGY
    return Phase.ASSET_INVENTORY if "assets" in expected else Phase.DATA_IMPORT


def _imported(outcome: Outcome) -> ImportResult:
    result = outcome.local.outcomes[Phase.DATA_IMPORT].result
    assert isinstance(result, ImportResult)
    return result


def _rows(outcome: Outcome, wanted: int) -> None:
    assert _imported(outcome).rows_imported == wanted


def _rejected(outcome: Outcome, wanted: int) -> None:
    assert _imported(outcome).rows_rejected == wanted


def _columns(outcome: Outcome, wanted: list[str]) -> None:
    names = list(outcome.table(Phase.DATA_IMPORT, "records")[0])
    assert [name for name in names if not name.startswith("__")] == wanted


def _assets(outcome: Outcome, wanted: int) -> None:
    assert len(outcome.assets()) == wanted


def _values(outcome: Outcome, wanted: list[dict[str, Any]]) -> None:
    for entry in wanted:
        asset = outcome.asset(entry)
        for field, value in entry.items():
            if field == "os":
                shown = " ".join(filter(None, (asset.get("os_name"), asset.get("os_version"))))
                assert shown.removeprefix("Microsoft ").startswith(value), (asset["name"], shown)
            elif field != "where":
                meant = pytest.approx(value) if isinstance(value, float | int) else value
                assert asset.get(field) == meant, (asset["name"], field)


def _each_of(field: str) -> Any:
    def check(outcome: Outcome, wanted: list[float]) -> None:
        assert sorted(a[field] for a in outcome.assets()) == sorted(wanted)

    return check


def _disks(outcome: Outcome, wanted: list[dict[str, Any]]) -> None:
    """The disks of each machine that its detail rows list, in GB, as the exports take them."""
    listed: dict[str, list[float]] = {}
    for row in outcome.export("google-import/diskInfo.csv"):
        listed.setdefault(row["MachineId"], []).append(float(row["SizeInGib"]))
    for entry in wanted:
        identity = outcome.asset(entry)["identity"]
        assert sorted(listed[identity]) == pytest.approx(sorted(entry["sizes"])), entry["name"]


def _says(outcome: Outcome, wanted: list[str]) -> None:
    for words in wanted:
        assert re.search(words, outcome.findings(), re.IGNORECASE), (words, outcome.findings())


def _exports(outcome: Outcome, wanted: dict[str, dict[str, Any]]) -> None:
    for name, rules in wanted.items():
        rows = outcome.export(name)
        assert len(rows) == rules.get("rows", len(rows)) > 0, name
        if (key := rules.get("unique")) is not None:
            assert len({row[key] for row in rows} - {""}) == len(rows), (name, key)
        for column, pattern in rules.get("each", {}).items():
            assert [row[column] for row in rows if not re.fullmatch(pattern, row[column])] == []
        for column, cells in rules.get("cells", {}).items():
            assert sorted(row[column] for row in rows) == sorted(cells), (name, column)


def _edges(outcome: Outcome, wanted: list[list[str]]) -> None:
    rows = outcome.table(Phase.DEPENDENCY_ANALYSIS, "dependencies")
    names = {asset["identity"]: asset["name"] for asset in outcome.assets()}
    found = {
        (names.get(row["from_identity"]), names[row["to_identity"]])
        for row in rows
        if row["to_identity"] in names
    }
    assert sorted(map(list, found)) == wanted


def _unresolved(outcome: Outcome, wanted: int) -> None:
    result: Any = outcome.local.outcomes[Phase.DEPENDENCY_ANALYSIS].result
    assert result.unresolved == wanted


def _groups(outcome: Outcome, wanted: int) -> None:
    result: Any = outcome.local.outcomes[Phase.DEPENDENCY_ANALYSIS].result
    assert result.groups == wanted


def _strategy_of(outcome: Outcome) -> dict[str, tuple[str, str]]:
    names = {asset["identity"]: asset["name"] for asset in outcome.assets()}
    rows = outcome.table(Phase.MIGRATION_STRATEGY, "strategies")
    return {names[row["identity"]]: (row["strategy"], row["reason"]) for row in rows}


def _strategies(outcome: Outcome, wanted: dict[str, str]) -> None:
    found = _strategy_of(outcome)
    assert {name: found[name][0] for name in wanted} == wanted


def _migrate_not(outcome: Outcome, names: list[str]) -> None:
    found = _strategy_of(outcome)
    for name in names:
        assert name not in found or found[name][0] in ("retain", "retire"), (name, found[name])


def _no_support_date(outcome: Outcome, names: list[str]) -> None:
    found = _strategy_of(outcome)
    for name in names:
        assert not re.search("support", found[name][1], re.IGNORECASE), found[name]


_CHECKS = {
    "rows": _rows, "rejected": _rejected, "columns": _columns, "assets": _assets,
    "values": _values, "cores": _each_of("cpu_cores"), "memory": _each_of("memory_gb"),
    "disks": _disks, "says": _says, "exports": _exports, "edges": _edges,
    "unresolved": _unresolved, "groups": _groups, "strategies": _strategies,
    "migrate_not": _migrate_not, "no_support_date": _no_support_date,
}  # fmt: skip
