"""Texts become typed values only where they can be read in one way."""

from __future__ import annotations

import duckdb
import pytest
from discovery_crews.tables import units, values


def evaluate(expression: str, text: str | None) -> object:
    with duckdb.connect() as connection:
        query = f"SELECT {expression} FROM (SELECT ?::VARCHAR AS x)"
        row = connection.execute(query, [text]).fetchone()
    assert row is not None
    return row[0]


@pytest.mark.parametrize(
    ("text", "source", "expected"),
    [
        ("16", "GB", 16), ("16", None, 16), ("16384", "MB", 16), ("16384", "MiB", 16),
        ("16 GB", "MB", 16), ("16GiB", None, 16), ("0.5 TB", None, 512), ("2TB", None, 2048),
        ("512m", None, 0.5), ("1048576 KB", None, 1), ("~8 GB", None, 8), ("-1", None, -1),
        ("1,234.5", None, 1234.5), ("1.234,5", None, 1234.5), ("1 234,5", None, 1234.5),
        ("1'234", None, 1234), ("1,234,567", None, 1234567), ("12,5", None, 12.5),
        ("N/A", None, None), ("four", None, None), ("3 parsecs", None, None),
        ("2.4 GHz", None, None), ("10.0.0.1", None, None), ("", None, None), (None, None, None),
        ("16 GB + 8 GB", None, None), ("0x10", None, None), ("1e3", None, None),
    ],
)  # fmt: skip
def test_gigabytes(text: str | None, source: str | None, expected: float | None) -> None:
    assert evaluate(values.number("x", "GB", source, decimal_comma=False), text) == expected


@pytest.mark.parametrize(
    ("text", "point", "comma"),
    [("1,234", 1234, 1.234), ("1.234", 1.234, 1234), ("1,23", 1.23, 1.23), ("1.23", 1.23, 1.23)],
)
def test_the_open_case_follows_the_column(text: str, point: float, comma: float) -> None:
    for decimal_comma, expected in ((False, point), (True, comma)):
        value = values.plain_number("x", decimal_comma=decimal_comma)
        assert evaluate(value, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4", 4), ("4 cores", 4), ("4.0", 4), ("4.5", None), ("4 GB", None), ("four", None)],
)
def test_whole_numbers(text: str, expected: int | None) -> None:
    assert evaluate(values.whole_number("x", decimal_comma=False), text) == expected


@pytest.mark.parametrize(
    ("target", "source", "text", "expected"),
    [
        ("MHz", None, "2400", 2400), ("MHz", None, "2.4 GHz", 2400), ("MHz", "GHz", "2.4", 2400),
        ("%", None, "85 %", 85), ("%", "fraction", "0.85", 85), ("%", "fraction", "85%", 85),
    ],
)  # fmt: skip
def test_other_units(target: str, source: str | None, text: str, expected: float) -> None:
    assert evaluate(values.number("x", target, source, decimal_comma=False), text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Yes", True), (" TRUE ", True), ("1", True), ("virtual", True), ("physical", False),
     ("off", False), ("0", False), ("maybe", None), ("", None), ("2", None)],
)  # fmt: skip
def test_booleans(text: str, expected: bool | None) -> None:
    assert evaluate(values.boolean("x"), text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-02", "2024-01-02"), ("2024-01-02 03:04", "2024-01-02T03:04:00"),
        ("2024-01-02T03:04:05Z", "2024-01-02T03:04:05"), ("31.12.2024", "2024-12-31"),
        ("2-Jan-2024", "2024-01-02"), ("01/02/2024", None), ("2024-13-01", None), ("soon", None),
    ],
)  # fmt: skip
def test_dates(text: str, expected: str | None) -> None:
    assert evaluate(values.date("x"), text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a; b|c,d;a", ["a", "b", "c", "d"]), ('["16", "32"]', ["16", "32"]), ("one", ["one"]),
        ('[{"a": "x, y"}, {"b": 1}]', ['{"a":"x, y"}', '{"b":1}']),
        ('{"a": "x, y"}; {"b": [1, 2]}', ['{"a":"x, y"}', '{"b":[1,2]}']),
        ("{a, b}", ["{a, b}"]),
        ("[broken; x", ["[broken", "x"]), ("k=v;l=w;", ["k=v", "l=w"]), (" ; ", None), (None, None),
    ],
)  # fmt: skip
def test_lists(text: str | None, expected: list[str] | None) -> None:
    assert evaluate(values.text_list("x"), text) == expected


@pytest.mark.parametrize(
    ("header", "unit"),
    [
        ("Memory (MB)", "MB"), ("disk_gb", "GB"), ("RamGB", "GB"), ("CPU usage %", "%"),
        ("Total disk capacity MiB", "MiB"), ("cpu_speed_mhz", "MHz"), ("Disk read MB/s", "MB/s"),
        ("network Mbps", "Mbps"), ("Memory", None), ("Submit", None), ("Number", None),
        ("CPU percent", "%"), ("bytes used", "B"),
    ],
)  # fmt: skip
def test_units_of_headers(header: str, unit: str | None) -> None:
    assert units.unit_of_header(header) == unit


def test_units_convert_only_within_their_kind() -> None:
    assert units.factor("MiB", "GB") == 1 / 1024
    assert units.factor("GHz", "MHz") == 1000
    assert units.convertible("TB", "GB")
    assert not units.convertible("GHz", "GB")
    assert not units.convertible("Mbps", "GB")
    assert units.canonical_unit("parsec") is None
    assert units.canonical_unit("Mib") == "MiB"
