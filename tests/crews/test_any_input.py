"""Whatever bytes come in: a table or a refusal of the product's own, and no other exception."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_core.phases import Phase
from discovery_crews.local_run import LocalRun
from discovery_crews.readers.read import FORMATS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.crews.files import read, rows_of, zip_of
from tests.crews.fuzz import look_at
from tests.crews.samples import SAMPLES

PIECES = st.one_of(
    st.binary(max_size=6),
    st.sampled_from(
        [b'"', b"'", b"{", b"}", b"[", b"]", b",", b"\n", b"\r", b"\x00", b"<", b"&", b"\xff\xfe",
         b"1e999", b"9" * 400, b"NaN", b"//", b"PK\x03\x04", b"\\ud800", b"\xed\xa0\x80", b"sep=;"]
    ),
)  # fmt: skip


def outcome(content: bytes, name: str, source_format: str) -> None:
    """Read it. Raises whatever is neither a table nor a refusal."""
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / name).write_bytes(content)
        try:
            table = read(folder / name, source_format)
        except DiscoveryError as error:
            assert error.code != ErrorCode.CRASHED
            assert error.message.startswith(name)
        else:
            assert len(rows_of(table)) == table.rows > 0
    finally:
        shutil.rmtree(folder)


MANY = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.slow
@MANY
@given(
    content=st.one_of(st.binary(max_size=300), st.text(max_size=200).map(str.encode)),
    name=st.sampled_from(["x", *SAMPLES]),
    source_format=st.sampled_from(FORMATS),
)
def test_any_bytes(content: bytes, name: str, source_format: str) -> None:
    outcome(content, name, source_format)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLES)
@settings(MANY, max_examples=60)
@given(data=st.data())
def test_any_mutated_sample(name: str, data: st.DataObject) -> None:
    content = bytearray(SAMPLES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, min(len(content), start + 40)))
        content[start:end] = data.draw(PIECES)
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    outcome(bytes(content), data.draw(st.sampled_from([name, "x"])), "auto")


@pytest.mark.slow
@MANY
@given(data=st.data())
def test_broken_json_is_never_a_table_of_cells(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["e.json", "f.json", "g.ndjson"]))
    text = SAMPLES[name].decode()
    at = data.draw(st.integers(1, len(text)))
    broken = text[:at] + data.draw(st.sampled_from(["", ",", "'", "// x\n", text[at + 1 :]]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / data.draw(st.sampled_from([name, "x"]))
        path.write_text(broken)
        try:
            assert read(path).format in {"json", "ndjson"}
        except DiscoveryError as error:
            assert error.code in {ErrorCode.UNREADABLE_FILE, ErrorCode.NO_ROWS}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('// of May\n[{"name": "a"}]', "line 1, column 1: .*remove them"),
        ('/* of\nMay */ {"a": [{"name": "a"}]}', "line 1, column 1: .*remove them"),
        ('[{"name": "a"},\n {"name": "b"},]', "line 2, column 16: .*Remove the comma"),
        ('[\n{"name": "a"}\n{"name": "b"}\n]', "line 3, column 1: .*missing comma"),
        ('{"a": 1,\n "b" 2}', "line 2, column 6: .*export it again"),
        ('[{"name": "a"}, {"name": "b', "line 1, column 26: .*ends too early"),
        ('[{"name": "a"}, {"name": "b"', "line 1, column 29: .*ends too early"),
        ("[{'name': 'a'}]", "line 1, column 3: .*double quotes"),
        ('{VM name": "a",\n "b": 1}', "line 1, column 2: .*"),
        ('[{"no": "NaN",\n "n": NaN}]', "line 2, column 7: .*Write null"),
        ('[{"name": "a"}] [{"name": "b"}]', "line 1, column 17: .*one list"),
        ('callback([{"name": "a"}])', "line 1, column 1: .*JSON"),
        (')]}\',\n[{"name": "a"}]', "line 1, column 1: .*JSON"),
    ],
)
def test_broken_json_says_where_and_what_to_do(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "export"
    path.write_text(text)
    with pytest.raises(DiscoveryError, match=rf"^export: {says}") as caught:
        read(path)
    assert caught.value.code == ErrorCode.UNREADABLE_FILE


def test_what_is_called_json_is_read_as_json(tmp_path: Path) -> None:
    path = tmp_path / "part.json"
    path.write_text('"name": "a", "n": 1},\n{"name": "b", "n": 2}]')
    with pytest.raises(DiscoveryError, match=r"line 1, column 7: .*valid JSON"):
        read(path)


def test_a_broken_line_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "export"
    path.write_text('{"name": "a"}\n  {"name": "b" "n": 2}\n{"name": "c"}\n{"name": "d", "n')
    table = read(path)
    assert (table.format, [row["name"] for row in rows_of(table)]) == ("ndjson", ["a", "c"])
    rejected = table.rejected.read_text()
    assert (
        """2,,,"not JSON: column 16: Expecting ',' delimiter","Put the missing comma""" in rejected
    )
    assert "4,,,not JSON: column 15: Unterminated string starting at,The file ends" in rejected


@pytest.mark.parametrize(
    "content", ["[Name],[IP]\nweb,10.0.0.1\n", "[1] Name;IP\nweb;10.0.0.1\n", "{id},IP\nweb,1\n",
                "PK,IP\nweb,10.0.0.1\n", "PK\nweb\n", "# of May\nName,IP\nweb,1\n"],
)  # fmt: skip
def test_a_header_that_looks_like_another_format(tmp_path: Path, content: str) -> None:
    path = tmp_path / "export.csv"
    path.write_text(content)
    table = read(path)
    assert (table.format, next(iter(rows_of(table)[0].values()))) == ("csv", "web")


LARGE = ["8.9E+400", "-1e999", "1e308 GB", "9" * 400, "9" * 30 + " TB", "1e-400", "NaN",
         "inf", "9223372036854775808", "1" + "0" * 38, "2147483648-01-01",
         "1." + "000." * 99 + "000"]  # fmt: skip
COLUMNS = ["CPU Cores", "Memory GB", "Disk (TB)", "RAM MB", "Port", "Created", "End of support",
           "Cost", "CPU usage %", "Serial Number"]  # fmt: skip


def all_phases(folder: Path, source: Path) -> int:
    scratch = folder / "scratch"
    scratch.mkdir()
    run = LocalRun(source, scratch)
    run.run(Phase.MIGRATION_STRATEGY)
    return len(run.outcomes)


@pytest.mark.slow
@pytest.mark.parametrize("value", LARGE)
def test_numbers_of_any_size_go_through_all_phases(tmp_path: Path, value: str) -> None:
    source = tmp_path / "servers.csv"
    names = [f"srv{n};" + ";".join([value] * len(COLUMNS)) for n in range(4)]
    plain = [f"web{n};" + ";".join(["4"] * len(COLUMNS)) for n in range(9)]
    source.write_text("\n".join(["Name;" + ";".join(COLUMNS), *names, *plain]))
    assert all_phases(tmp_path, source) == len(Phase)


@pytest.mark.slow
@pytest.mark.parametrize("value", ["8.9E+400", "1e308", "9" * 30, "NaN"])
def test_large_numbers_are_joined(tmp_path: Path, value: str) -> None:
    servers = "VM,VM UUID,Memory\n" + "".join(f"v{n},id-{n},{value}\n" for n in range(5))
    disks = "VM,VM UUID,Capacity MiB\n" + "".join(f"v{n},id-{n},{value}\n" * 2 for n in range(5))
    source = tmp_path / "export.zip"
    members = {"vInfo.csv": servers.encode(), "vDisk.csv": disks.encode()}
    source.write_bytes(zip_of(members))
    assert all_phases(tmp_path, source) == len(Phase)


def test_a_refused_row_of_bytes_that_are_no_text(tmp_path: Path) -> None:
    """Also where it holds a key, and where it can neither be split nor decoded."""
    key = "AKIA" + "IOSFODNN7EXAMPLE"
    path = tmp_path / "export.csv"
    rows = ["Name,Note", *["é,x"] * 4, "w\xe9b: 1,ok", f'"a" \xff: {key},x', f"\xff {key},x"]
    path.write_bytes(b"\n".join(row.encode("utf-8" if "é," in row else "latin-1") for row in rows))
    table = read(path)
    rejected = table.rejected.read_text()
    assert (table.rows, table.rows_rejected) == (4, 3)
    assert "w\\udce9b: 1,ok" in rejected
    assert key not in rejected


def test_a_member_without_a_name(tmp_path: Path) -> None:
    path = tmp_path / "export.zip"
    path.write_bytes(zip_of({"": b"x", "a.csv": b"Name,IP\nweb,1\n"}))
    assert read(path).rows == 1


def test_as_many_columns_as_there_may_be(tmp_path: Path) -> None:
    """Keys are looked for in each, in as many queries as it takes."""
    key = "AKIA" + "IOSFODNN7EXAMPLE"
    path = tmp_path / "wide.csv"
    names = ",".join(f"c{n}" for n in range(1000))
    path.write_text(f"{names}\n{'x,' * 998}{key},y\n{'z,' * 999}y\n")
    table = read(path)
    assert len(table.columns) == 1000
    assert "Column 'c998': 1 values held a password or a key, which was removed." in table.findings
    path.write_text(f"{names},more\n{'x,' * 1000}y\n")
    with pytest.raises(DiscoveryError, match="1001 columns, the limit is 1000"):
        read(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("deep.json", b'{"a":' * 100_000),
        ("deep-list.json", b"[" * 100_000),
        ("deep.ndjson", b'{"a": 1}\n' + b'{"a":' * 50_000 + b"\n"),
        ("open-quote.csv", b'Name,IP\n"web' + b",1\n" * 50_000),
        ("wide.csv", b"," * 1_000_000 + b"\na\n"),
        ("nul.csv", "Name,IP\nweb,\x001\n".encode("utf-16")),
        ("half.json", b'[{"name": "\\ud800"}, {"name": "\\ud83d\\ude00"}]'),
        ("dates.csv", b"Name,Created\nweb,0000-00-00\ndb,99999-12-31\nx,2024-02-31T25:61:61Z\n"),
        ("digits.xls", b"<table><tr><td>a<td>b<tr><td>&#" + b"9" * 5000 + b";<td>1</table>"),
        ("tables.xls", b"<table><tr><td>" * 20_000),
        ("tags.xls", b"<table>" + b"<" * 200_000 + b"<!--" * 50_000),
        ("cells.xls", b'<?xml version="1.0"?>'
         b'<Workbook xmlns="urn:schemas-microsoft-com:office:spreadsheet">' + b"<a>" * 100_000),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_shapes_that_are_hard_on_readers(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert look_at(tmp_path / name) in {
        "read", "UnreadableFile", "LimitExceeded", "NoRows", "NoColumns", "UnsupportedFormat"
    }  # fmt: skip


def test_a_byte_that_the_code_page_does_not_have_costs_its_row(tmp_path: Path) -> None:
    path = tmp_path / "export.csv"
    rows = ["Name,Ort", *[f"srv{n},Köln Süd §" for n in range(6000)]]
    path.write_bytes("\n".join(rows).encode("cp1252") + b"\nold,K\x81ln\nnew,Ulm\n")
    table = read(path)
    assert (table.rows, table.rows_rejected) == (6001, 1)
    assert rows_of(table)[0]["Ort"] == "Köln Süd §"
    assert "old,K\\udc81ln" in table.rejected.read_text()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"\xef\xbb\xbfName,Ort\xe7\nweb,x\n"),
        ("a.json", b'[{"Name": "web", "Ort\\ud800": "x"}]'),
    ],
    ids=["csv", "json"],
)
def test_a_header_of_bytes_that_are_no_text(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    table = read(tmp_path / name)
    assert table.columns == ["Name", "Ort\ufffd"]
    assert any("no text" in finding for finding in table.findings)
