"""Numbers are read as they were meant: by column, file, neighbour and field, and it is told."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from discovery_core.mapping_edits import steps
from discovery_core.phases import Phase
from discovery_core.wire.results import (
    FieldMapping,
    ImportResult,
    InventoryResult,
    MappingResult,
    Separators,
)
from discovery_crews.local_run import LocalRun
from discovery_crews.tables.numbers import Decimal, Written, decide, measure, number_of
from discovery_crews.tables.units import UNIT_SPELLINGS, UNITS, canonical_unit, unit_of_header
from discovery_crews.tables.values import number, plain_number


class Inventory:
    """A file's way to the inventory, with the proposals approved as they are."""

    def __init__(self, folder: Path, content: str, name: str = "servers.csv") -> None:
        path = folder / name
        path.write_text(content, encoding="utf-8")
        scratch = folder / "scratch"
        scratch.mkdir()
        local = LocalRun(path, scratch)
        made = local.run(Phase.ASSET_INVENTORY)
        assert isinstance(made.result, InventoryResult)
        self.findings = made.result.findings
        self.local = local
        mapped = local.outcomes[Phase.FIELD_MAPPING].result
        assert isinstance(mapped, MappingResult)
        self.mapping = mapped
        with duckdb.connect() as connection:
            found = connection.execute(f"SELECT * FROM '{made.artefacts['inventory']}'")
            names = [column[0] for column in found.description or ()]
            rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
        self.assets = sorted(rows, key=lambda asset: str(asset["name"]))

    def column(self, field: str) -> list[object]:
        """The field's values, by the assets' names."""
        return [asset.get(field) for asset in self.assets]

    def of(self, column: str) -> FieldMapping:
        """The proposal of a column."""
        return next(mapping for mapping in self.mapping.mappings if mapping.column == column)

    def told(self, *words: str) -> str:
        """The first finding at the gate that has all the words."""
        found = [text for text in self.mapping.findings if all(word in text for word in words)]
        assert found, (words, self.mapping.findings)
        return found[0]


def table(header: str, values: list[str], separator: str = ";", system: str = "Debian 12") -> str:
    """Servers with one more column, or several that are written with the separator."""
    lines = [separator.join(("Server", "OS", header))]
    lines += [separator.join((f"srv{n:02d}", system, v)) for n, v in enumerate(values)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("own", "others", "delimiter", "decimal", "sure"),
    [
        (Written(comma=3), [], ",", "comma", True),
        (Written(point=3), [], ";", "point", True),
        (Written(comma=3, open_point=2), [Written(point=9)], ",", "comma", True),
        (Written(open_point=2), [Written(comma=4)], ",", "comma", False),
        (Written(open_point=2), [Written(point=4)], ";", "point", False),
        (Written(open_point=2, ungrouped=1), [Written(point=4)], ",", "comma", False),
        (Written(open_comma=2, ungrouped=1), [Written(comma=4)], ";", "point", False),
        (Written(open_point=2), [], ";", "comma", False),
        (Written(open_point=2), [], ",", "point", False),
        (Written(comma=5, point=1, open_point=1), [], ",", "comma", False),
    ],
)
def test_separators_are_decided_by_the_column_then_by_the_file(
    own: Written, others: list[Written], delimiter: str, decimal: str, sure: bool
) -> None:
    found = decide(own, others, delimiter)
    assert found is not None
    assert (found.decimal, found.sure) == (decimal, sure)
    assert found.why


def test_numbers_without_separators_leave_nothing_to_decide() -> None:
    assert decide(Written(ungrouped=9), [Written(comma=9)], ";") is None


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("15,9", Written(comma=1)), ("1.024,5", Written(comma=1)), ("0,512", Written(comma=1)),
        ("1.234.567", Written(comma=1)), ("1234,567", Written(comma=1)),
        ("15.9 GB", Written(point=1)), ("1,024.5", Written(point=1)), ("0.512", Written(point=1)),
        ("1,234,567", Written(point=1)), ("16,384.0", Written(point=1)),
        ("16.384 MB", Written(open_point=1, example="16.384 MB")),
        ("131,072", Written(open_comma=1, example="131,072")),
        ("65536", Written(ungrouped=1)), ("512", Written()), ("10.0.0.1", Written()),
        ("srv.01", Written()), ("2024-01-02", Written()),
    ],
)  # fmt: skip
def test_what_a_value_says_of_its_separators(tmp_path: Path, text: str, written: Written) -> None:
    path = tmp_path / "one.parquet"
    with duckdb.connect() as connection:
        connection.execute(f"COPY (SELECT '{text}' AS x) TO '{path}' (FORMAT parquet)")
        assert measure(connection, path, "x") == written


@pytest.mark.parametrize("decimal", ["comma", "point"])
@pytest.mark.parametrize(
    "text",
    ["16.384", "16,384", "1.024,5", "1,024.5", "1 234,5", "1'234", "0,512", "1234.567", "12,5 GB",
     "1,23,456", "1,234,567", "-3.5", "~ 8 GB", "four", "1.2.3", "", "5%"],
)  # fmt: skip
def test_code_and_engine_read_a_number_alike(text: str, decimal: Decimal) -> None:
    expression = plain_number("x", decimal_comma=decimal == "comma")
    with duckdb.connect() as connection:
        row = connection.execute(f"SELECT {expression} FROM (SELECT ? AS x)", [text]).fetchone()
    assert row == (number_of(text, decimal),)


@pytest.mark.parametrize("spelling", sorted(UNIT_SPELLINGS))
def test_units_that_headers_have_are_converted_too(spelling: str) -> None:
    unit = UNIT_SPELLINGS[spelling]
    assert unit_of_header(f"Value ({spelling})") == canonical_unit(spelling)
    with duckdb.connect() as connection:
        sql = number("x", unit, None, decimal_comma=False)
        row = connection.execute(f"SELECT {sql} FROM (SELECT '2 {spelling}' AS x)").fetchone()
    assert row == (2,)
    assert unit in UNITS


@pytest.mark.parametrize(
    ("header", "unit"),
    [("capacité (Go)", "GB"), ("Mémoire [Mo]", "MB"), ("RAM_Go", "GB"), ("taille (To)", "TB"),
     ("Migrate To", None), ("Go live", None), ("Festplatte in GByte", "GB"), ("disk %", "%"),
     ("Netz kbit/s", "Kbps"), ("lido", None)],
)  # fmt: skip
def test_octets_are_units_where_they_cannot_be_words(header: str, unit: str | None) -> None:
    assert unit_of_header(header) == unit


def test_a_column_that_groups_some_thousands_groups_all(tmp_path: Path) -> None:
    made = Inventory(tmp_path, table("RAM (MB)", ["131.072", "65536", "32768", "16.384"], ","))
    assert made.column("memory_gb") == [128, 64, 32, 16]
    assert "decimal:point" in made.told("RAM (MB)", "131.072", "because")
    assert steps(made.of("RAM (MB)").transform) == {"unit": "MB", "decimal": "comma"}


def test_the_field_decides_between_two_readings(tmp_path: Path) -> None:
    made = Inventory(tmp_path, table("Arbeitsspeicher (MB)", ["16.384", "8.192", "4.096"], ","))
    assert made.column("memory_gb") == [16, 8, 4]
    made.told("Arbeitsspeicher (MB)", "not between 0.1 and")


def test_a_neighbour_decides_between_two_readings(tmp_path: Path) -> None:
    rows = ["131.072,128 GB", "65.536,64 GB", "16.384,16 GB"]
    made = Inventory(tmp_path, table("Memory MB,RAM", rows, ","))
    assert made.column("memory_gb") == [128, 64, 16]
    made.told("Memory MB", "'RAM' then says the same")


def test_other_columns_of_the_file_decide(tmp_path: Path) -> None:
    rows = ["1.024;15,9", "2.048;31,9", "1.536;7,5"]
    made = Inventory(tmp_path, table("Disk (GB);RAM (GB)", rows))
    assert made.column("storage_gb") == [1024, 2048, 1536]
    assert made.column("memory_gb") == [15.9, 31.9, 7.5]
    made.told("Disk (GB)", "other columns of the file have a decimal comma")


def test_real_decimals_of_three_digits_stay(tmp_path: Path) -> None:
    made = Inventory(tmp_path, table("RAM (GB)", ["15.625", "31.25", "7.812", "3.875"], ","))
    assert made.column("memory_gb") == [15.625, 31.25, 7.812, 3.875]
    assert made.mapping.findings == []


def test_versions_say_nothing_of_decimals(tmp_path: Path) -> None:
    rows = ["22.04;16.384", "20.04;8.192", "18.04;4.096"]
    made = Inventory(tmp_path, table("OS Version;Festplatte (GB)", rows, system="Ubuntu"))
    assert made.column("storage_gb") == [16384, 8192, 4096]


def test_columns_of_one_field_that_disagree_are_told(tmp_path: Path) -> None:
    made = Inventory(tmp_path, table("RAM (MB);RAM GB", ["16384;16", "8192;64", "4096;4"]))
    assert "row 3: 8 and 64 GB" in made.told("memory_gb", "disagree in 1 rows")
    assert made.of("RAM GB").confidence <= 0.6 < made.of("RAM (MB)").confidence


def test_rounding_is_no_disagreement(tmp_path: Path) -> None:
    made = Inventory(tmp_path, table("RAM (MB);RAM GB", ["16278;16", "8076;8", "500;0.5"]))
    assert made.mapping.findings == []


def test_what_no_machine_has_and_what_is_no_number_is_told(tmp_path: Path) -> None:
    values = ["16 GB;4", "20 MB;3000", "900 TB;8", "lots;2", "8 GB;2"]
    made = Inventory(tmp_path, table("RAM (GB);CPU Cores", values))
    assert "'20 MB' is 0.01953 GB (row 3), '900 TB' is 921600 GB (row 4)" in made.told(
        "RAM (GB): 2 values would be outside"
    )
    made.told("CPU Cores: 1 values would be outside", "'3000' is 3000 (row 3)")
    made.told("RAM (GB): 1 values are no number in GB", "'lots' (row 5)")
    assert "outside" in made.mapping.findings[0]


@pytest.mark.parametrize("header", ["disk used %", "Disque utilisé (%)", "Festplatte belegt %"])
def test_a_percentage_is_no_amount(tmp_path: Path, header: str) -> None:
    made = Inventory(tmp_path, table(header, ["97", "45", "30.5"], ","))
    assert made.of(header).target is None
    assert "storage_used_gb" not in [c.target for c in made.of(header).candidates]


def test_a_column_of_percentages_gives_no_gigabytes_even_when_it_is_said_to() -> None:
    with duckdb.connect() as connection:
        sql = number("x", "GB", "%", decimal_comma=False)
        found = connection.execute(
            f"SELECT {sql} FROM (VALUES ('97'), ('97 %'), ('8 GB')) AS v(x)"
        ).fetchall()
    assert found == [(None,), (None,), (8,)]


@pytest.mark.parametrize(
    ("sockets", "each"),
    [("Sockets", "Cores per Socket"), ("num_sockets", "num_vcpus_per_socket"),
     ("Sockel", "Kerne pro Socket"), ("Sockets", "cœurs par socket")],
)  # fmt: skip
def test_cores_of_each_socket_are_multiplied(tmp_path: Path, sockets: str, each: str) -> None:
    made = Inventory(tmp_path, table(f"{sockets};{each}", ["2;4", "4;1", "1;1"]))
    assert made.column("cpu_cores") == [8, 4, 1]
    assert made.column("cpu_sockets") == [2, 4, 1]
    assert made.of(each).transform == "times:cpu_sockets"
    assert f"product with {sockets!r}" in made.of(each).reason
    assert f"cpu_cores: {each!r} was multiplied with {sockets!r}." in made.findings


def test_cores_of_each_socket_are_nothing_without_sockets_or_beside_a_total(tmp_path: Path) -> None:
    for name, header, rows in (
        ("alone", "Cores per Socket", ["4", "2"]),
        ("total", "Sockets;Cores per Socket;CPU Cores", ["2;4;8", "1;2;2"]),
    ):
        folder = tmp_path / name
        folder.mkdir()
        made = Inventory(folder, table(header, rows))
        assert made.of("Cores per Socket").target is None


def test_the_profile_reads_what_the_inventory_does(tmp_path: Path) -> None:
    made = Inventory(tmp_path, table("Platte (GB)", ["1.024,5", "15,9", "238,0"]))
    profile = made.local.outcomes[Phase.DATA_IMPORT].artefacts["profile"].read_text()
    assert '"maximum": "1024.5"' in profile
    assert made.column("storage_gb") == [1024.5, 15.9, 238]


def test_an_import_reads_numbers_as_the_mapping_will(tmp_path: Path) -> None:
    rows = ["16.384;102.400", "8.192;204.800", "65.536;51.200"]
    content = table("RAM (MB);Disk (MB)", rows, system="Windows Server 2019")
    made = Inventory(tmp_path, content.replace(";51.200", ";900.000.000.000"))
    imported = made.local.outcomes[Phase.DATA_IMPORT].result
    assert isinstance(imported, ImportResult)
    assert [text for text in imported.findings if "1 values are not between 0 and" in text]
    assert made.column("memory_gb") == [16, 8, 64]


def test_old_profiles_are_still_read() -> None:
    assert Separators.model_validate({"decimal": "comma"}).open == 0
