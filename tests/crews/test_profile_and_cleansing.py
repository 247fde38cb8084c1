"""Profiles count all rows; rules change what they say and keep the original."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from discovery_core.wire.results import ColumnProfile
from discovery_crews.phases.data_cleansing.apply import Step, apply_plan, candidate_effects
from discovery_crews.phases.data_cleansing.judgement import check, recommend, steps_of
from discovery_crews.profile import profile_records, read_profile, write_profile
from discovery_crews.readers import ReadTable

from tests.crews.files import read, rows_of

DIRTY = (
    "name,env,mac,built,seen,flag,Memory (MB),ip\n"
    "  a1 ,Prod,00-50-56-AA-BB-01,10/29/2019 18:23,01/02/2020,Yes,2048,10.0.0.1\n"
    "b2,prod,0050.56aa.bb02,01/02/2020 08:00,02/03/2020,no,4096,10.0.0.2\n"
    '"c  3",PROD,N/A,12/31/2021 00:01,03/04/2020,YES,N/A,10.0.0.3\n'
    "d\u00a04,prod,,,04/05/2020,-,8192,unknown\n"
)


def table(folder: Path, content: str = DIRTY) -> tuple[ReadTable, list[ColumnProfile]]:
    path = folder / "dirty.csv"
    path.write_text(content, encoding="utf-8")
    result = read(path)
    return result, profile_records(folder, result.parquet, result.rows)


def test_profile(tmp_path: Path) -> None:
    _, columns = table(tmp_path)
    profile = {column.name: column for column in columns}
    assert {name: column.type for name, column in profile.items()} == {
        "name": "string", "env": "string", "mac": "mac", "built": "datetime", "seen": "date",
        "flag": "boolean", "Memory (MB)": "integer", "ip": "ip",
    }  # fmt: skip
    memory = profile["Memory (MB)"]
    assert (memory.filled, memory.missing, memory.distinct) == (4, 0, 4)
    assert (memory.unit, memory.minimum, memory.maximum) == ("MB", "2048", "8192")
    assert memory.patterns["placeholder"] == 1
    assert profile["mac"].missing == 1
    assert profile["env"].samples == ["Prod", "prod", "PROD"]
    path = tmp_path / "profile.json"
    write_profile(path, columns)
    assert read_profile(path) == columns


@pytest.mark.parametrize(
    ("values", "kind", "unit"),
    [
        (["16 GB", "32 GB", "8 GB"], "size", "GB"),
        (["16 GB", "32 GB", "N/A"], "size", "GB"),
        # the bare number may be in another unit
        (["16 GB", "32 GB", "4096"], "size", None),
        (["1,5", "2,25"], "number", None),
        (["80 %", "7%"], "number", "%"),
        (["fe80::1", "2001:db8::2"], "ip", None),
        (["aa:bb:cc:dd:ee:ff", "11:22:33:44:55:66"], "mac", None),
        (["web01.example.com", "db.example.org"], "fqdn", None),
        (["0001", "0002"], "integer", None),
        (["a;b", "c;d"], "list", None),
        (["2024-01-02T03:04:05Z", "2024-01-02"], "datetime", None),
        (["true", "0", "x", "yes"], "string", None),
        (["N/A", "-"], "string", None),
    ],
)
def test_types(tmp_path: Path, values: list[str], kind: str, unit: str | None) -> None:
    content = "v,n\n" + "".join(f'"{value}",{n}\n' for n, value in enumerate(values))
    column = table(tmp_path, content)[1][0]
    assert (column.type, column.unit) == (kind, unit)


def test_candidates_count_every_row_and_show_the_first(tmp_path: Path) -> None:
    source, profile = table(tmp_path)
    found = candidate_effects(tmp_path, source.parquet, profile)
    effects = {
        (effect.column, effect.rule): (effect.rows_changed, effect.before, effect.after)
        for column in found.values()
        for effect in column
    }
    assert effects == {
        ("name", "trim"): (1, "  a1 ", "a1"),
        ("name", "collapse_whitespace"): (2, "c  3", "c 3"),
        ("env", "unify_spelling"): (2, "Prod", "prod"),
        ("mac", "missing_tokens"): (1, "N/A", None),
        ("mac", "normalise_mac"): (2, "00-50-56-AA-BB-01", "00:50:56:aa:bb:01"),
        ("built", "normalise_date_dmy"): (1, "01/02/2020 08:00", "2020-02-01T08:00:00"),
        ("built", "normalise_date_mdy"): (3, "10/29/2019 18:23", "2019-10-29T18:23:00"),
        ("seen", "normalise_date_dmy"): (4, "01/02/2020", "2020-02-01"),
        ("seen", "normalise_date_mdy"): (4, "01/02/2020", "2020-01-02"),
        ("flag", "missing_tokens"): (1, "-", None),
        ("flag", "normalise_boolean"): (3, "Yes", "true"),
        ("Memory (MB)", "missing_tokens"): (1, "N/A", None),
        ("ip", "missing_tokens"): (1, "unknown", None),
    }


@pytest.mark.parametrize(
    ("header", "values", "rule", "after"),
    [
        ("ips", ["10.0.0.1|10.0.0.2", "10.0.0.3"], "normalise_list", ["10.0.0.1; 10.0.0.2", None]),
        ("apps", ['["a", "b"]', "c"], "normalise_list", ["a; b", None]),
        ("apps", ["a\nb", "c;c;d"], "normalise_list", ["a; b", "c; d"]),
        ("ram", ["16gb", "32 Gbytes", "8 GB"], "normalise_unit", ["16 GB", "32 GB", None]),
        ("ram", ["1.024 mib", "2 TB", "?"], "normalise_unit", ["1.024 MiB", None, None]),
        ("os", ["Win2k12r2", "RHEL 7.9", "appliance"], "normalise_os",
         ["Windows Server 2012 R2", "Red Hat Enterprise Linux 7", None]),
        ("os", ["CentOS 4/5/6/7 (64-bit)", "Windows Server 2019"], "normalise_os", [None, None]),
        ("aktiv", ["Ja", "nein", "JA"], "normalise_boolean", ["true", "false", "true"]),
        ("actif", ["oui", "non", "maybe"], "normalise_boolean", ["true", "false", None]),
        ("ativo", ["sim", "n\u00e3o", "sim"], "normalise_boolean", ["true", "false", "true"]),
    ],
)  # fmt: skip
def test_what_a_rule_writes(
    tmp_path: Path, header: str, values: list[str], rule: str, after: list[str | None]
) -> None:
    """`None` in `after`: the rule leaves the value as it is."""
    records = tmp_path / "records.parquet"
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t (v VARCHAR, __row BIGINT)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", list(zip(values, range(2, 9))))  # noqa: B905
        connection.execute(f"COPY (SELECT v AS {header}, __row FROM t) TO '{records}'")
    clean = tmp_path / "clean.parquet"
    (done,) = apply_plan(tmp_path, records, [Step(header, rule)], clean)
    with duckdb.connect() as connection:
        found = connection.execute(f"SELECT {header} FROM '{clean}' ORDER BY __row").fetchall()
    assert [row[0] for row in found] == [new or old for old, new in zip(values, after, strict=True)]
    assert done.rows_changed == sum(new is not None for new in after)


def test_systems_are_written_anew_only_on_request(tmp_path: Path) -> None:
    _, profile = table(tmp_path, "name,os\na,Win2k12r2\nb,Windows Server 2012 R2 Standard\n")
    records = tmp_path / "dirty.csv.work/records.parquet"
    effects = candidate_effects(tmp_path, records, profile)
    assert [effect.rule for effect in effects["os"]] == ["normalise_os"]
    assert recommend(effects, profile)["steps"] == []


def test_outliers_and_cells_of_several_values_are_counted(tmp_path: Path) -> None:
    rows = [f"s{n},{n + 10},10.0.0.{n}" for n in range(20)]
    _, profile = table(
        tmp_path, "name,cpus,ip\n" + "\n".join([*rows, "x,9000,10.0.0.1;10.0.0.2"]) + "\n"
    )
    by_name = {column.name: column for column in profile}
    assert by_name["cpus"].outliers == 1
    assert "1 numbers lie far outside the usual." in by_name["cpus"].findings
    assert (by_name["ip"].multi_values, by_name["name"].outliers) == (1, 0)


def test_few_numbers_have_no_outliers(tmp_path: Path) -> None:
    _, profile = table(tmp_path, "name,cpus\na,1\nb,2\nc,9000\n")
    assert {column.outliers for column in profile} == {0}


def test_a_comma_is_no_clear_separator(tmp_path: Path) -> None:
    _, profile = table(tmp_path, 'name,owner\na,"Lee, Ann"\nb,"Fry, Bo"\n')
    effects = candidate_effects(tmp_path, tmp_path / "dirty.csv.work/records.parquet", profile)
    assert "owner" not in effects


def test_recommended_plan_leaves_open_dates_alone(tmp_path: Path) -> None:
    source, profile = table(tmp_path)
    candidates = candidate_effects(tmp_path, source.parquet, profile)
    plan = check(candidates, profile, recommend(candidates, profile))
    chosen = {(step.column, step.rule) for step in plan.steps or ()}
    assert ("built", "normalise_date_mdy") in chosen
    assert not {rule for column, rule in chosen if column == "seen"}
    assert "seen" in plan.summary
    done = apply_plan(tmp_path, source.parquet, steps_of(plan), tmp_path / "clean.parquet")
    first, *_, last = clean_rows(tmp_path / "clean.parquet")
    assert (first["name"], first["env"], first["built"]) == ("a1", "prod", "2019-10-29T18:23:00")
    assert (first["__original.name"], first["__original.env"]) == ("  a1 ", "Prod")
    assert (first["seen"], "__original.seen" in first) == ("01/02/2020", False)
    assert (last["name"], last["flag"], last["ip"], last["__row"]) == ("d 4", None, None, 5)
    assert all(entry.rows_changed > 0 for entry in done)
    assert {(entry.column, entry.rule) for entry in done} == chosen


@pytest.mark.parametrize(
    ("dates", "rule", "expected"),
    [
        (["31/01/2024", "01/02/2024"], "normalise_date_dmy", ["2024-01-31", "2024-02-01"]),
        (["01/31/2024", "01/02/2024"], "normalise_date_mdy", ["2024-01-31", "2024-01-02"]),
        # both orders are proven, so the open ones stay
        (["31/01/2024", "01/31/2024"], None, ["31/01/2024", "01/31/2024"]),
        (["01/02/2024", "31.01.2024"], "normalise_date", ["01/02/2024", "2024-01-31"]),
        (
            ["2-Jan-2024", "2024/01/03 04:05"],
            "normalise_date",
            ["2024-01-02", "2024-01-03T04:05:00"],
        ),
        (["01/02/2024", "2024-01-03"], None, ["01/02/2024", "2024-01-03"]),
    ],
)
def test_dates_are_read_only_as_proven(
    tmp_path: Path, dates: list[str], rule: str | None, expected: list[str]
) -> None:
    source, profile = table(tmp_path, "name,when\n" + "".join(f"a{d[-1]},{d}\n" for d in dates))
    candidates = candidate_effects(tmp_path, source.parquet, profile)
    plan = check(candidates, profile, {})
    chosen = [step.rule for step in plan.steps or () if step.column == "when"]
    assert chosen == ([rule] if rule else [])
    apply_plan(tmp_path, source.parquet, steps_of(plan), tmp_path / "clean.parquet")
    assert [row["when"] for row in clean_rows(tmp_path / "clean.parquet")] == expected


def test_names_of_assets_keep_their_spelling(tmp_path: Path) -> None:
    rows = "".join(f"{'SRV' if n % 2 else 'srv'}-{n // 2},prod\n" for n in range(60))
    source, profile = table(tmp_path, "name,env\n" + rows)
    found = candidate_effects(tmp_path, source.parquet, profile)
    assert "name" not in found


def clean_rows(path: Path) -> list[dict[str, object]]:
    with duckdb.connect() as connection:
        cursor = connection.execute(f"SELECT * FROM '{path}' ORDER BY __row")
        names = [entry[0] for entry in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def test_only_the_plan_is_applied(tmp_path: Path) -> None:
    source, _ = table(tmp_path)
    plan = [Step("env", "unify_spelling", "because")]
    (done,) = apply_plan(tmp_path, source.parquet, plan, tmp_path / "clean.parquet")
    assert (done.rows_changed, done.reason) == (2, "because")
    cleaned, raw = clean_rows(tmp_path / "clean.parquet"), rows_of(source)
    for after, before in zip(cleaned, raw, strict=True):
        assert after.pop("env") == "prod"
        assert after.pop("__original.env") == before.pop("env")
        assert after == before


def test_column_names_are_data(tmp_path: Path) -> None:
    content = '"a""; DROP",raw,n,first,\'x\'\n 1 , 2 , 3 , 4 , 5 \n'
    source, profile = table(tmp_path, content)
    plan = [Step(column.name, "trim") for column in profile]
    apply_plan(tmp_path, source.parquet, plan, tmp_path / "clean.parquet")
    (row,) = clean_rows(tmp_path / "clean.parquet")
    assert [row[column.name] for column in profile] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"steps": [{"column": "nope", "rule": "trim"}], "summary": ""}, "no candidate"),
        ({"steps": [{"column": "name", "rule": "drop_table"}], "summary": ""}, "is not one of"),
        ({"steps": [{"column": "name", "rule": "trim"}] * 2, "summary": ""}, "twice"),
        (
            {
                "steps": [
                    {"column": "seen", "rule": "normalise_date_dmy"},
                    {"column": "seen", "rule": "normalise_date_mdy"},
                ],
                "summary": "",
            },
            "one way to read dates",
        ),
        ({"steps": [{"column": "name", "rule": "trim", "sql": "1"}], "summary": ""}, "Extra"),
        ("not a plan", "valid dictionary"),
    ],
)
def test_plans_outside_the_list_are_refused(tmp_path: Path, answer: object, says: str) -> None:
    source, profile = table(tmp_path)
    candidates = candidate_effects(tmp_path, source.parquet, profile)
    with pytest.raises(ValueError, match=says):
        check(candidates, profile, answer)
