"""Inventory records: typed values, originals, classes, identities; nothing is lost."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_core.wire.results import FieldMapping, InventoryRecord
from discovery_crews.phases.asset_inventory.assets import InventoryCounts, build_inventory
from discovery_crews.phases.asset_inventory.evidence import Evidence, gather, with_separators
from discovery_crews.phases.asset_inventory.judgement import check, recommend
from discovery_crews.phases.asset_inventory.plan import field_sources
from discovery_crews.phases.data_cleansing.apply import Step, apply_plan
from discovery_crews.target_schema import TargetSchema, builtin_schema

from tests.crews.files import read


def mapping(column: str, target: str | None, **more: Any) -> FieldMapping:
    return FieldMapping(column=column, target=target, confidence=1, reason="test", **more)


class Built:
    """An inventory made of CSV text and column-to-target pairs."""

    def __init__(
        self,
        folder: Path,
        content: str,
        mappings: list[FieldMapping],
        *,
        answer: dict[str, Any] | None = None,
        cleansing: list[Step] | None = None,
        schema: TargetSchema | None = None,
    ) -> None:
        path = folder / "servers.csv"
        path.write_text(content, encoding="utf-8")
        table = read(path)
        records = folder / "clean.parquet"
        apply_plan(folder, table.parquet, cleansing or [], records)
        sources = field_sources(mappings, schema or builtin_schema(), table.columns)
        sources = with_separators(folder, records, sources)
        self.evidence: Evidence = gather(folder, records, sources, table.rows)
        self.plan = check(self.evidence, answer or {})
        made, counts = build_inventory(folder, records, sources, self.plan, lambda *_: None)
        self.problems = made.problems
        self.counts: InventoryCounts = counts
        with duckdb.connect() as connection:
            found = connection.execute(f"SELECT * FROM read_parquet('{made.assets}')")
            names = [column[0] for column in found.description or ()]
            self.assets = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        lines = made.records.read_text(encoding="utf-8").splitlines()
        parsed = [InventoryRecord.model_validate_json(line) for line in lines]
        self.records = {record.row: record for record in parsed}


INVENTORY = """\
Name,Host,Serial,Mem,Disk,CPU,IP,Type,App,Virtual,Created,Remark
web01,web01.corp.example.com,SN1,"16 GB","1,5 TB",4,10.0.0.1;10.0.0.2,VM,shop,yes,2020-01-02,x
WEB01,web01.corp.example.com,SN1,16384 MB,1536 GB,4,10.0.0.1,VM,shop,true,01/02/2020,
web01,web01.corp.example.com,,16,1536,four,10.0.0.1,,,physical,,y
Customers,,,,,,,,Customers,,,
sw1,,SN9,,,,10.0.0.9,Core Switch,,,,
db7,db7.corp.example.com,N/A,abc,,,,,,maybe,,
,,,,,8,,,,,,
"""
MAPPINGS = [
    mapping("Name", "asset_name"), mapping("Host", "fqdn"), mapping("Serial", "serial_number"),
    mapping("Mem", "memory_gb"), mapping("Disk", "storage_gb"), mapping("CPU", "cpu_cores"),
    mapping("IP", "ip_address"), mapping("Type", "asset_type"),
    mapping("App", "application_name"), mapping("Virtual", "is_virtual"),
    mapping("Created", "created_date"), mapping("Remark", None),
]  # fmt: skip


def test_records(tmp_path: Path) -> None:
    built = Built(tmp_path, INVENTORY, MAPPINGS)
    first = built.records[2]
    assert first.values == {
        "asset_name": "web01", "fqdn": "web01.corp.example.com", "serial_number": "SN1",
        "memory_gb": 16.0, "storage_gb": 1536.0, "cpu_cores": 4,
        "ip_address": ["10.0.0.1", "10.0.0.2"], "asset_type": "VM",
        "application_name": ["shop"], "is_virtual": True, "created_date": "2020-01-02",
    }  # fmt: skip
    assert first.originals["storage_gb"] == "1,5 TB"
    assert first.unmapped == {"Remark": "x"}
    assert first.problems == []
    assert isinstance(first.values["cpu_cores"], int)
    second = built.records[3]
    assert second.values["memory_gb"] == 16.0
    assert second.originals["created_date"] == "01/02/2020"
    assert "created_date" not in second.values
    assert second.problems == ["created_date: not a date that can be read in one way: 01/02/2020"]
    assert built.records[4].values["is_virtual"] is False
    assert built.records[4].originals["cpu_cores"] == "four"
    assert built.records[7].problems == [
        "memory_gb: not a number in GB: abc", "is_virtual: neither yes nor no: maybe",
    ]  # fmt: skip


def test_identities_and_classes(tmp_path: Path) -> None:
    built = Built(tmp_path, INVENTORY, MAPPINGS)
    identities = {row: (r.identity, r.asset_type) for row, r in built.records.items()}
    assert identities == {
        2: ("serial_number:sn1", "server"),
        3: ("serial_number:sn1", "server"),
        # it has no serial number, but its name belongs to one asset only
        4: ("serial_number:sn1", "server"),
        5: ("application:customers", "application"),
        6: ("serial_number:sn9", "network"),
        # N/A identifies nothing
        7: ("fqdn:db7.corp.example.com", "server"),
        8: ("row:8", "server"),
    }
    assert built.records[8].problems[-1].startswith("no value tells this asset apart")
    counts = built.counts
    assert (counts.records, counts.assets, counts.duplicates) == (7, 5, 2)
    assert counts.by_type == {"application": 1, "network": 1, "server": 3}
    assert (counts.conversion_problems, counts.without_identity) == (4, 1)
    with built.problems.open(newline="", encoding="utf-8") as stream:
        listed = [(row["row"], row["field"], row["value"]) for row in csv.DictReader(stream)]
    assert listed == [
        ("3", "created_date", "01/02/2020"), ("4", "cpu_cores", "four"),
        ("7", "is_virtual", "maybe"), ("7", "memory_gb", "abc"),
    ]  # fmt: skip


def test_a_weak_key_that_points_to_two_assets_joins_neither(tmp_path: Path) -> None:
    content = "name,serial\nweb,S1\nweb,S2\nweb,\n"
    built = Built(
        tmp_path, content, [mapping("name", "asset_name"), mapping("serial", "serial_number")]
    )
    assert [r.identity for r in built.records.values()] == [
        "serial_number:s1", "serial_number:s2", "asset_name:web",
    ]  # fmt: skip


def test_a_serial_number_of_the_chassis_is_no_identity(tmp_path: Path) -> None:
    rows = "".join(f"vm{n},CHASSIS{n // 10}\n" for n in range(40))
    mappings = [mapping("name", "asset_name"), mapping("serial", "serial_number")]
    built = Built(tmp_path, "name,serial\n" + rows, mappings)
    assert built.plan.identity_keys == ("asset_name",)
    assert built.counts.assets == 40
    forced = Built(
        tmp_path, "name,serial\n" + rows, mappings, answer={"identity_keys": ["serial_number"]}
    )
    # their names contradict the number, whoever chose it
    assert forced.counts.assets == 40
    assert forced.records[2].identity == "serial_number:chassis0 vm0"


def test_a_running_number_is_no_identity(tmp_path: Path) -> None:
    content = "id,hostname\n1,web\n2,web\n3,db\n"
    built = Built(tmp_path, content, [mapping("id", "asset_id"), mapping("hostname", "hostname")])
    assert built.plan.identity_keys == ("hostname",)
    assert built.counts.assets == 2


@pytest.mark.parametrize(
    ("header", "values", "target", "answer", "expected"),
    [
        ("Memory (MB)", ["2048", "4096"], "memory_gb", {}, [2.0, 4.0]),
        ("Memory", ["2048", "4096"], "memory_gb", {}, [2.0, 4.0]),
        ("Memory", ["8", "16"], "memory_gb", {}, [8.0, 16.0]),
        ("Memory", ["8", "16"], "memory_gb", {"units": [{"column": "Memory", "unit": "TB"}]},
         [8192.0, 16384.0]),
        ("Memory", ["8 GB", "4096 MB"], "memory_gb", {}, [8.0, 4.0]),
        ("Speed", ["2.4", "3.1"], "cpu_speed_mhz", {}, [2400.0, 3100.0]),
        ("Speed", ["2400", "3.1 GHz"], "cpu_speed_mhz", {}, [2400.0, 3100.0]),
        ("CPU usage", ["0.25", "0.5"], "cpu_utilization_avg", {}, [25.0, 50.0]),
        ("CPU usage %", ["25", "50,5"], "cpu_utilization_avg", {}, [25.0, 50.5]),
        ("Disk", ["1.234,5", "2.000"], "storage_gb", {}, [1234.5, 2000.0]),
        ("Disk", ["1,234.5", "2,000"], "storage_gb", {}, [1234.5, 2000.0]),
        ("Read KBps", ["2048", "1024"], "disk_read_throughput", {}, [2.0, 1.0]),
    ],
)  # fmt: skip
def test_units_and_decimals_of_a_column(
    tmp_path: Path, header: str, values: list[str], target: str, answer: dict[str, Any],
    expected: list[float],
) -> None:  # fmt: skip
    content = f"name,{header}\n" + "".join(f'h{n},"{v}"\n' for n, v in enumerate(values))
    built = Built(
        tmp_path, content, [mapping("name", "asset_name"), mapping(header, target)], answer=answer
    )
    assert [record.values[target] for record in built.records.values()] == expected


def test_the_unit_in_a_mapping_counts(tmp_path: Path) -> None:
    mappings = [mapping("name", "asset_name"), mapping("Memory", "memory_gb", transform="unit:MiB")]
    built = Built(tmp_path, "name,Memory\na,8\n", mappings)
    assert built.records[2].values["memory_gb"] == pytest.approx(8 / 1024, abs=1e-6)
    assert not built.evidence.units


def test_variants_of_a_field(tmp_path: Path) -> None:
    content = "name,Memory GB,Memory MB,IP 1,IP 2\na,8,1,10.0.0.1,10.0.0.2\nb,,4096,,10.0.0.1\n"
    mappings = [
        mapping("name", "asset_name"), mapping("Memory MB", "memory_gb", role="alternate"),
        mapping("Memory GB", "memory_gb"), mapping("IP 1", "ip_address"),
        mapping("IP 2", "ip_address", role="alternate"),
    ]  # fmt: skip
    built = Built(tmp_path, content, mappings)
    first, second = built.records[2], built.records[3]
    assert (first.values["memory_gb"], first.originals["memory_gb"]) == (8.0, "8")
    assert (second.values["memory_gb"], second.originals["memory_gb"]) == (4.0, "4096")
    assert first.values["ip_address"] == ["10.0.0.1", "10.0.0.2"]
    assert first.unmapped == {"Memory MB": "1", "IP 2": "10.0.0.2"}


def test_originals_are_those_before_cleansing(tmp_path: Path) -> None:
    built = Built(
        tmp_path, "name,env\n  A1 ,Prod \n", [mapping("name", "asset_name")],
        cleansing=[Step("name", "trim"), Step("env", "trim")],
    )  # fmt: skip
    record = built.records[2]
    assert record.values["asset_name"] == "A1"
    assert record.originals["asset_name"] == "  A1 "
    assert record.unmapped == {"env": "Prod "}


def test_fields_of_an_own_schema_have_roles(tmp_path: Path) -> None:
    schema = TargetSchema.model_validate(
        {"fields": [{"name": "HostName"}, {"name": "SerialNumber"}, {"name": "Colour"}]}
    )
    mappings = [
        mapping("a", "HostName"), mapping("b", "SerialNumber"), mapping("c", "Colour"),
    ]  # fmt: skip
    built = Built(tmp_path, "a,b,c\nweb,S1,red\nWEB,s1,blue\n", mappings, schema=schema)
    assert [r.identity for r in built.records.values()] == ["serial_number:s1"] * 2
    assert built.records[2].values == {"HostName": "web", "SerialNumber": "S1", "Colour": "red"}
    assert built.records[2].asset_type == "server"


@pytest.mark.parametrize(
    ("rules", "expected"),
    [(["by_type_column"], "unknown"), (["by_machine_facts"], "server"), ([], "unknown")],
)
def test_only_chosen_class_rules_count(tmp_path: Path, rules: list[str], expected: str) -> None:
    built = Built(
        tmp_path, "h\nweb\n", [mapping("h", "hostname")], answer={"class_rules": rules}
    )  # fmt: skip
    assert built.records[2].asset_type == expected


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"identity_keys": ["colour"]}, "not offered"),
        ({"identity_keys": []}, "at least one"),
        ({"class_rules": ["by_magic"]}, "do not exist"),
        ({"default_type": "spaceship"}, "default_type"),
        ({"units": [{"column": "Mem", "unit": "GHz"}]}, "not one of"),
        ({"units": [{"column": "Name", "unit": "GB"}]}, "not needed"),
        ({"sql": "DROP TABLE"}, "Extra"),
    ],
)
def test_answers_outside_the_lists_are_refused(
    tmp_path: Path, answer: dict[str, Any], says: str
) -> None:
    built = Built(tmp_path, INVENTORY, MAPPINGS)
    assert recommend(built.evidence)["identity_keys"]
    with pytest.raises(ValueError, match=says):
        check(built.evidence, answer)


@pytest.mark.parametrize(
    ("entry", "says"),
    [(mapping("Gone", "asset_name"), "'Gone' is not in the source"),
     (mapping("Name", "colour"), "'colour' is not in the schema")],
)  # fmt: skip
def test_mappings_that_do_not_fit(tmp_path: Path, entry: FieldMapping, says: str) -> None:
    with pytest.raises(DiscoveryError, match=says) as caught:
        Built(tmp_path, INVENTORY, [entry])
    assert caught.value.code == ErrorCode.INVALID_MAPPING


def test_the_ndjson_has_the_names_of_the_wire(tmp_path: Path) -> None:
    built = Built(tmp_path, INVENTORY, MAPPINGS)
    line = (tmp_path / "inventory.ndjson").read_text(encoding="utf-8").splitlines()[0]
    wire = {field.alias for field in InventoryRecord.model_fields.values()}
    assert set(json.loads(line)) == wire
    assert len(built.records) == 7


def test_one_row_for_each_asset(tmp_path: Path) -> None:
    """What the phases after it plan with: rows merged, lists joined, no source row lost."""
    built = Built(tmp_path, INVENTORY, MAPPINGS)
    assert len(built.assets) == built.counts.assets
    assert sorted(row for asset in built.assets for row in asset["rows"]) == sorted(built.records)
    web = next(asset for asset in built.assets if 2 in asset["rows"])
    assert (web["rows"], web["name"], web["asset_type"]) == ([2, 3, 4], "web01", "server")
    assert web["mapped.asset_type"] == "VM"
    assert web["ip_address"] == ["10.0.0.1", "10.0.0.2"]
    assert (web["memory_gb"], web["storage_gb"], web["cpu_cores"]) == (16.0, 1536.0, 4)
    assert json.loads(web["unmapped"]) == {"Remark": "y"}


def test_classes_have_a_rule_and_identities_a_confidence(tmp_path: Path) -> None:
    built = Built(tmp_path, INVENTORY, MAPPINGS)
    found = {tuple(asset["rows"]): asset for asset in built.assets}
    web, customers, switch = found[2, 3, 4], found[5,], found[6,]
    # the last row of web01 has no type column to go by
    assert (web["class_rule"], customers["class_rule"]) == ("by_machine_facts", "by_application")
    assert (switch["asset_type"], switch["class_rule"]) == ("network", "by_type_column")
    # the third row of web01 has no serial number and was joined by its FQDN
    assert web["identity_confidence"] == pytest.approx(0.9 * 0.8)
    assert (customers["identity_confidence"], switch["identity_confidence"]) == (0.8, 0.95)
    nameless = next(a for a in built.assets if a["identity"].startswith("row:"))
    assert nameless["identity_confidence"] == 0.3
