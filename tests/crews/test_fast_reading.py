"""The engine's way through a regular file gives exactly what the careful way gives."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path
from typing import Any

import pytest
from discovery_core.errors import DiscoveryError
from discovery_crews.readers import delimited
from discovery_crews.readers.fast import Loaded, load_regular
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.crews.files import read, rows_of

pytestmark = pytest.mark.slow

LIMITS = {"max_cell_characters": 60}


def outcome(folder: Path, content: bytes, *, fast: bool) -> tuple[Any, bool]:
    """All that an import gives, or its refusal; and whether the engine loaded the rows."""
    path = folder / "servers.csv"
    path.write_bytes(content)
    used = False

    def load(*arguments: Any) -> Any:
        nonlocal used
        loaded = load_regular(*arguments) if fast else Loaded()
        used = loaded.rows is not None
        return loaded

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "load_regular", load)
        try:
            table = read(path, limits=LIMITS)
        except DiscoveryError as error:
            return (error.code, error.message), used
        rows = rows_of(table)
    shutil.rmtree(folder / "servers.csv.work" / "spill")
    left = {entry.name for entry in (folder / "servers.csv.work").iterdir()}
    assert left == {"records.parquet", "rejected.csv"}
    table_facts = (table.columns, table.rows, table.rows_rejected, table.encoding, table.findings)
    return (table_facts, rows, (folder / "servers.csv.work" / "rejected.csv").read_bytes()), used


def both(folder: Path, content: bytes) -> bool:
    """Compare both ways; whether the engine's way was taken."""
    careful, _ = outcome(folder, content, fast=False)
    fast, used = outcome(folder, content, fast=True)
    assert fast == careful
    return used


@pytest.mark.parametrize(
    ("content", "regular"),
    [
        (b"a,b\n1,2\n3,4\n", True),
        (b"a,b\n1,2\n3,4", True),
        (b"a;b\r\n1;2\r\n3;4\r\n", True),
        (b"a\tb\r\n1\t2\r\n3\t4", True),
        (b"\xef\xbb\xbfa,b\n1,2\n", True),
        (b"sep=;\na;b\n1;2\n", True),
        (b"Report of May,\na,b\nx,y\nz,w\n", True),
        (b'a,b\n"x, y",""\n"say:""no""",2\n', True),
        (b"a,b\n1,\n,2\n", True),
        (b'a,b\n5"disk,x\n', True),
        ("a,b\nZürich,2\n\u00d6l,3\n".encode(), True),
        ("a,b\nZürich,2\n".encode("cp1252"), True),
        ("a,b\nZürich,2\n".encode("utf-16"), True),
        (b"a\nx\ny\n", True),
        (b"a,b\n\n1,2\n", False),
        (b"a,b\n1,2\n\n", True),
        (b"a,b\r\n1,2\r\n\r\n\r\n", True),
        (b"a,b\n1,2\n" + b"\n" * 40, False),
        (b"a,b\n1,2\n\n ", False),
        (b"a,b\n,\n1,2\n", False),
        (b"a,b\n \t, \n1,2\n", False),
        ("a,b\n\u2003,\u00a0\n1,2\n".encode(), False),
        (b"a\nx\n\ny\n", False),
        (b"a,b\n1,2,\n3,4\n", False),
        (b'a,b\n"1,1","2"\n3,4,\n', False),
        (b"a,b\n1\n3,4\n", False),
        (b"a,b\n1,2,3\n3,4\n", False),
        (b'a,b\n "x",2\n', False),
        (b'a,b\n"x" ,2\n3,4\n', False),
        (b'a,b\n"x"y,2\n3,4\n', False),
        (b'a,b\n"open,2\n3,4\n', False),
        (b'a,b\n"two\nlines",2\n3,4\n', False),
        (b"a,b\r\n1,2\n3,4\r\n", False),
        (b"a,b\r1,2\r3,4\r", False),
        (b"name,b\n1,2\nname,b\n", False),
        (b"a,b\n1,2\nTotal,5\n", False),
        (b"a,b\n1,2\n,Summe:\n", False),
        (b"a,b\n1," + b"x" * 61 + b"\n3,4\n", False),
        (b"a,b\n1," + "é".encode() * 40 + b"\n3,4\n", False),
        (b"a,b\nGen\xe8ve,2\n" + "Zürich,1\n".encode() * 9, False),
        (b'"a\nb",c\n1,2\n', False),
        (b"a, b\n1, 2\n", True),
    ],
)
def test_ways_agree(tmp_path: Path, content: bytes, regular: bool) -> None:
    assert both(tmp_path, content) is regular


def test_numbers_of_rows_in_a_large_file(tmp_path: Path) -> None:
    """Several row groups and buffers keep the file's order."""
    body = "".join(f"srv{n},{n % 7},{n}\n" for n in range(250_000))
    (tmp_path / "servers.csv").write_text("name,cpus,row\n" + body)
    table = read(tmp_path / "servers.csv")
    assert all(int(row["row"]) + 2 == row["__row"] for row in rows_of(table))
    assert not table.may_hold_keys


CELLS = st.one_of(
    st.sampled_from(["", "", "web01", "10.0.0.1", " ", "Total", "Name", "a,b", 'say "hi"', "5"]),
    st.text(alphabet="ab1,;\"' \t\n\ré\u00a0\u2003#-", max_size=8),
)


@pytest.mark.slow
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=6),
    delimiter=st.sampled_from([",", ";", "\t"]),
    ending=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    damage=st.lists(
        st.tuples(
            st.integers(0, 200), st.sampled_from(['"', ",", ";", "\n", " ", "\r\n", "x", ""])
        ),
        max_size=2,
    ),
    header=st.sampled_from([["Name", "IP", "Note"], ["Name", "", "name"], ["1", "2", "3"]]),
)
def test_ways_agree_on_any_file(
    tmp_path: Path,
    rows: list[list[str]],
    delimiter: str,
    ending: str,
    quoting: Any,
    damage: list[tuple[int, str]],
    header: list[str],
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=ending, quoting=quoting)
    writer.writerows([header, *rows])
    content = text.getvalue()
    for at, what in damage:
        content = content[:at] + what + content[at + (not what) :]
    both(tmp_path, content.encode())


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv.zst", "a[1].csv", "a?.csv"])
def test_the_name_of_a_file_is_only_a_name(tmp_path: Path, name: str) -> None:
    """The engine would unpack by a suffix, and look for others by signs."""
    (tmp_path / "ab.csv").write_text("Name,IP\ndb,2\n")
    (tmp_path / name).write_text("Name,IP\nweb,1\n")
    table = read(tmp_path / name)
    assert [row["Name"] for row in rows_of(table)] == ["web"]
