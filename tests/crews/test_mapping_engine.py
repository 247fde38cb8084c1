"""What the mapping engine proposes, and what it must never propose."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from discovery_core.wire.protocol import ApprovedMapping
from discovery_core.wire.results import ColumnProfile, FieldMapping
from discovery_crews.mapping.engine import lesson_key, propose
from discovery_crews.target_schema import TargetField, TargetSchema, builtin_schema

OS = ["Windows Server 2019 Standard", "Red Hat Enterprise Linux 7", "Ubuntu 20.04"]
HOSTS = ["web01", "web02", "db01", "app-03"]
ADDRESSES = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]


def column(name: str, values: list[str] | None = None, **facts: object) -> ColumnProfile:
    """A profile as the engine gets it; patterns only where a test gives them."""
    values = values or []
    given: dict[str, object] = {
        "name": name, "type": "string", "filled": len(values), "missing": 0,
        "distinct": len(set(values)), "samples": list(dict.fromkeys(values))[:5],
    }  # fmt: skip
    return ColumnProfile.model_validate(given | facts)


def addresses(name: str) -> ColumnProfile:
    return column(name, ADDRESSES, type="ip", patterns={"ipv4": 4})


def one(*columns: ColumnProfile) -> FieldMapping:
    """The proposal for the first column."""
    return propose(columns, builtin_schema())[0]


def test_values_veto_the_header() -> None:
    found = one(column("Name", OS))
    assert found.target == "os_name"
    assert one(column("Hostname", OS)).target != "hostname"
    hostname = [c.score for c in one(column("Hostname", OS)).candidates if c.target == "hostname"]
    assert not hostname or hostname[0] < 0.3
    assert one(column("Hostname", HOSTS)).target == "hostname"
    assert one(addresses("Server")).target == "ip_address"


@pytest.mark.parametrize("header", ["Column1", "F3", "X", "Unnamed: 2", "7"])
def test_useless_headers_are_mapped_by_values(header: str) -> None:
    assert one(column(header, OS)).target == "os_name"
    assert one(addresses(header)).target == "ip_address"
    assert one(column(header, ["prod", "test", "prod", "dev"])).target == "environment"
    assert one(column(header, ["Rehost", "Retire", "Rehost"])).target == "migration_strategy"


@pytest.mark.parametrize("header", [
    "Printer colour", "Kabelfarbe", "Lizenznummer", "Purchase Price", "Row Hash", "Uptime (days)",
])  # fmt: skip
@pytest.mark.parametrize("values", [["a", "b", "c"], ["120", "77", "3"], []])
def test_what_no_field_is_for_is_left_alone(header: str, values: list[str]) -> None:
    found = one(column(header, values))
    assert found.target is None
    assert found.confidence > 0.5
    assert "No field" in found.reason


def test_unit_variants_name_one_field_as_primary_and_alternate() -> None:
    found = propose(
        [
            column("Memory MB", ["16384", "32768"], patterns={"integer": 2}),
            column("Memory GB", ["16", "32"], patterns={"integer": 2}),
        ],
        builtin_schema(),
    )
    assert [entry.target for entry in found] == ["memory_gb", "memory_gb"]
    assert sorted(entry.role for entry in found) == ["alternate", "primary"]
    assert [entry.transform for entry in found] == ["unit:MB", "unit:GB"]


def test_two_columns_that_compete_get_a_field_each() -> None:
    found = propose(
        [column("Name", ["vm-1", "vm-2"]), column("Server name", HOSTS)], builtin_schema()
    )
    assert [entry.target for entry in found] == ["asset_name", "hostname"]
    assert {entry.role for entry in found} == {"primary"}


def test_every_field_has_one_primary_at_most() -> None:
    headers = ["Host", "Hostname", "Server", "Server Name", "Name", "VM", "Computer name", "Node"]
    found = propose([column(header, HOSTS) for header in headers], builtin_schema())
    primary = [entry.target for entry in found if entry.target and entry.role == "primary"]
    assert len(primary) == len(set(primary))


@pytest.mark.parametrize(("header", "target", "unit"), [
    ("RAM (Go)", "memory_gb", "GB"), ("Arbeitsspeicher in MB", "memory_gb", "MB"),
    ("Taille disque (Go)", "storage_gb", "GB"), ("Takt (GHz)", "cpu_speed_mhz", "GHz"),
    ("CPU %", "cpu_utilization_avg", "%"), ("CPU (MHz)", "cpu_speed_mhz", "MHz"),
])  # fmt: skip
def test_units_decide_and_are_handed_on(header: str, target: str, unit: str) -> None:
    found = one(column(header, ["16", "32", "64"], patterns={"integer": 3}))
    assert (found.target, found.transform) == (target, f"unit:{unit}")


def test_candidates_are_few_and_in_order() -> None:
    for header in ("Name", "Status", "Memory", "Column 1", "Printer"):
        found = one(column(header, HOSTS))
        scores = [candidate.score for candidate in found.candidates]
        assert len(scores) <= 5
        assert scores == sorted(scores, reverse=True)
        targets = [candidate.target for candidate in found.candidates]
        assert len(targets) == len(set(targets))
        assert found.target is None or found.target in targets
        assert found.samples == HOSTS
        assert found.decided_by == "engine"


def test_the_same_columns_give_the_same_proposals() -> None:
    columns = [column("Name", HOSTS), addresses("IP"), column("OS", OS), column("x", ["1", "2"])]
    assert propose(columns, builtin_schema()) == propose(columns, builtin_schema())


def test_columns_of_one_name_are_told_apart() -> None:
    found = propose([column("A", OS), addresses("A")], builtin_schema())
    assert [entry.target for entry in found] == ["os_name", "ip_address"]


def lesson(header: str, target: str | None) -> dict[str, ApprovedMapping]:
    approved = ApprovedMapping(
        header=header,
        target=target,
        approved_by="ann",
        approved_at=datetime(2025, 3, 1, tzinfo=UTC),
    )
    return {lesson_key(header): approved}


def test_what_people_approved_before_wins() -> None:
    (found,) = propose([column("  Host ", HOSTS)], builtin_schema(), lesson("host", "cluster"))
    assert (found.target, found.confidence) == ("cluster", 0.97)
    assert found.reason == "Approved before as cluster by ann on 2025-03-01."
    assert found.candidates[0].target == "cluster"
    assert len(found.candidates) <= 5
    (declined,) = propose([column("Host", HOSTS)], builtin_schema(), lesson("HOST", None))
    assert declined.target is None
    assert "not to be mapped by ann" in declined.reason


def test_a_lesson_says_how_values_are_read() -> None:
    taught = lesson("mem", "memory_gb")
    taught["mem"].transform = "unit:MiB,decimal:comma"
    (found,) = propose([column("Mem", ["16.384", "8.192"])], builtin_schema(), taught)
    assert found.transform == "unit:MiB,decimal:comma"


def test_a_lesson_takes_its_field_from_others_and_dies_with_it() -> None:
    columns = [column("Hostname", HOSTS), column("Kennung", HOSTS)]
    taught = propose(columns, builtin_schema(), lesson("Kennung", "hostname"))
    assert (taught[1].target, taught[1].role) == ("hostname", "primary")
    assert taught[0].role == "alternate" or taught[0].target != "hostname"
    gone = propose(columns, builtin_schema(), lesson("Kennung", "removed_field"))
    assert gone == propose(columns, builtin_schema())


def test_fields_of_another_domain_are_found_by_name_and_description() -> None:
    schema = TargetSchema(
        fields=(
            TargetField(
                name="ajcc_pathologic_stage", description="extent of a cancer after surgery"
            ),
            TargetField(name="age_at_diagnosis", description="age in days when first diagnosed"),
            TargetField(name="vital_status", description="alive or dead at last follow up"),
            TargetField(name="visit_date", type="date", description="day of the visit"),
            TargetField(name="sex", allowed_values=("male", "female")),
            TargetField(name="code", pattern=r"C\d\d\.\d"),
        )
    )
    columns = [
        column("Path_Stage", ["I", "II"]), column("Age (diagnosis)", ["61", "47"]),
        column("alive?", ["yes", "no"]), column("X", ["male", "female", "male"]),
        column("Y", ["C18.2", "C34.1"]), column("visit date", ["tall", "small", "wide"]),
    ]  # fmt: skip
    assert [entry.target for entry in propose(columns, schema)] == [
        "ajcc_pathologic_stage", "age_at_diagnosis", "vital_status", "sex", "code", None,
    ]  # fmt: skip


def test_no_columns_and_empty_columns() -> None:
    assert propose([], builtin_schema()) == []
    assert one(column("", [])).target is None
    assert one(column("Memory", [])).target == "memory_gb"


def _calls(work: Callable[[], object]) -> int:
    """Calls of functions that the work takes, which a busy machine does not change."""
    counted = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return counted


@pytest.mark.parametrize("fields", [64, 700])
def test_ten_times_the_columns_take_ten_times_the_work(fields: int) -> None:
    schema = builtin_schema()
    if fields > 64:
        schema = TargetSchema(
            fields=tuple(
                TargetField(name=f"field {number} size", description=f"size of the thing {number}")
                for number in range(fields)
            )
        )
    columns = [column(f"Server size {number} name", HOSTS) for number in range(100)]
    # what is made once and kept is not counted
    assert len(propose(columns, schema)) == 100
    few = _calls(lambda: propose(columns[:10], schema))
    assert _calls(lambda: propose(columns, schema)) < 12 * few


def test_the_engine_never_imports_crewai() -> None:
    code = (
        "import sys, discovery_crews.mapping.command, discovery_crews.mapping.engine;"
        "sys.exit(any(m.split('.')[0] in ('crewai', 'litellm', 'scipy', 'sklearn')"
        " for m in sys.modules))"
    )
    path = ":".join(entry for entry in sys.path if entry)
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": path}, check=False)
    assert done.returncode == 0
