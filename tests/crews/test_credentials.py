"""Passwords and keys are neither imported nor shown, and nothing else is taken for them."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from pathlib import Path

import duckdb
import pytest
from discovery_core.credentials import MARKS, is_credential_header
from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_core.phases import Phase
from discovery_crews.local_run import LocalRun
from discovery_crews.readers import ReadTable
from discovery_crews.readers.credentials import MASK, mask_keys

from tests.crews.files import read, rows_of, workbook, zip_of

# built here so that no scanner of repositories takes the test for a leak
ACCESS_KEY = "AKIA" + "IOSFODNN7EXAMPLE"
PEM = "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END RSA " + "PRIVATE KEY-----"


def everything(table: ReadTable) -> str:
    """All that comes out of an import, as one text."""
    rows = json.dumps([{**row} for row in rows_of(table)])
    return rows + table.rejected.read_text(encoding="utf-8") + " ".join(table.findings)


@pytest.mark.parametrize(
    "name",
    [
        "Password", "root_pwd", "adminPassword", "DBPassword", "userpasswd", "API Key", "apiKey",
        "x-api-key", "client_secret", "Secret Access Key", "auth.token", "Kennwort",
        "Mot de passe", "Contraseña", "senha", "SSH private key", "Passphrase", "Password_2",
        "SNMP community", "Credentials", "ILO Passwort", "access-token",
    ],
)  # fmt: skip
def test_headers_of_credentials(name: str) -> None:
    assert is_credential_header(name)


@pytest.mark.parametrize(
    "name",
    [
        "Password Expiry Date", "Token Ring", "tokenring", "Last password change", "Password set",
        "Password policy", "PasswordNeverExpires", "Secretary", "Key", "Primary key", "License key",
        "Secret name", "vault path of secret", "Public key", "Passing score", "Name", "token id",
        "Password protected", "Keyboard", "Tokenizer", "Credential vault", "Passwort Ablauf",
    ],
)  # fmt: skip
def test_headers_that_only_sound_like_it(name: str) -> None:
    assert not is_credential_header(name)


CSV = (
    "Name,Root Password,IP\n"
    "web,hunter2,1.1.1.1\n"
    "short,hunter3\n"
    "long,hunter4,1.1.1.2,hunter5\n"
    'open,"hunter6,1.1.1.3\n'
    f"cell,hunter7,{'x' * 300}\n"
    "Total,,12\n"
    "db,,1.1.1.4\n"
)


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "servers.csv"
    path.write_text(CSV)
    table = read(path, limits={"max_cell_characters": 200})
    assert table.columns == ["Name", "IP"]
    assert [row["Name"] for row in rows_of(table)] == ["web", "db"]
    assert table.rows_rejected == 5
    assert "hunter" not in everything(table)
    assert any("'Root Password' looks like credentials" in text for text in table.findings)
    assert f"cell,{MASK},xxx" in table.rejected.read_text()
    assert "Total,,12" in table.rejected.read_text()


def test_workbook_json_and_archive(tmp_path: Path) -> None:
    rows = [("Name", "pwd", "IP"), ("web", "hunter2", "1"), ("x" * 300, "hunter3", "2")]
    book = workbook(
        tmp_path / "a.xlsx", {"S": rows, "Detail": [("Name", "token"), ("web", "hunter9")]}
    )
    objects = [
        {"name": "web", "auth": {"password": "hunter2"}},
        {"name": "x" * 300, "pwd": "hunter3"},
    ]
    document = tmp_path / "a.json"
    document.write_text(json.dumps([*objects, {"name": "db"}]))
    lines = tmp_path / "a.ndjson"
    lines.write_text('{"a": "1"}\n{"a": "2"}\n{"pwd": "hunter2", "a"\n')
    archive = tmp_path / "a.zip"
    archive.write_bytes(zip_of({"s.csv": CSV.encode(), "t.csv": b"Name,pin,pwd\nweb,5,hunter8\n"}))
    for path in (book, document, lines, archive):
        table = read(path, limits={"max_cell_characters": 200})
        assert "hunter" not in everything(table), path
        assert path.suffix == ".ndjson" or any("left out" in text for text in table.findings)


def test_a_setting_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISCOVERY_KEEP_CREDENTIAL_COLUMNS", "true")
    path = tmp_path / "servers.csv"
    path.write_text(CSV + f"key,{ACCESS_KEY},x,y\n")
    table = read(path)
    assert rows_of(table)[0]["Root Password"] == "hunter2"
    assert "hunter4" in table.rejected.read_text()
    assert ACCESS_KEY in table.rejected.read_text()


def test_a_column_of_yes_and_no_or_dates_is_no_credential(tmp_path: Path) -> None:
    path = tmp_path / "servers.csv"
    path.write_text("Name,BIOS password,Secret,Token\nweb,yes,2024-01-01,\ndb,no,n/a,\n")
    assert len(read(path).columns) == 4


# what is secret of each, among what is not
HIDDEN = "Zq9hunter2"
VALUES = {
    "sql": f"Server=db1;Database=erp;User Id=app;Password={HIDDEN};Encrypt=yes",
    "quoted": f"Server=db1;Pwd='{HIDDEN};{HIDDEN}';Encrypt=yes",
    "odbc": f"DRIVER={{ODBC}};SERVER=db1;UID=app;PWD={HIDDEN}",
    "jdbc": f"jdbc:postgresql://db1/erp?user=app&password={HIDDEN}&ssl=true",
    "address": f"postgresql://app:{HIDDEN}@db1.example.com/erp",
    "no-user": f"redis://:{HIDDEN}@cache1:6379/0",
    "web": f"see https://admin:{HIDDEN}@ilo1.example.com/ for it",
    "remark": f"root password: {HIDDEN} (old)",
    "german": f"Kennwort = {HIDDEN}",
    "azure": f"AccountName=files;AccountKey={HIDDEN}==;EndpointSuffix=core",
    "variable": f"DB_PASSWORD={HIDDEN}",
    "setting": f"client_secret={HIDDEN} region=eu",
    "github": "ghp_" + HIDDEN + "A" * 26,
    "slack": f"xoxb-1234567890-{HIDDEN}",
    "google": "AIza" + HIDDEN + "B" * 25,
    "jwt": f"eyJhbGciOiJI.eyJzdWIiOiIx.{HIDDEN}",
    "pem": PEM.replace("MIIEow", HIDDEN),
    "torn": f"-----BEGIN {'PRIVATE'} KEY----- {HIDDEN}",
}
OTHERS = (
    "10.0.0.1:443", "https://intranet.example.com/a:b?x=y", "user@example.com", "ssh://git@host/x",
    "2024-01-01 10:00:00", "env=prod;owner=ann", "password policy: strict", "fe80::1", "a=b",
    "Tokenizer=1", "PasswordNeverExpires=true", "c:\\temp", "pass: yes", "key=value",
)  # fmt: skip


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_s22_the_page_s_rules_know_each_form_that_the_import_finds(value: str) -> None:
    """A form that is taught to the import alone would be shown on the page before the upload."""
    assert mask_keys(value) != value
    cells = re.split(r"[;,]", value)
    assert any(MARKS.search(cell) or is_credential_header(cell) for cell in cells)


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("form", ["csv", "quoted", "json", "ndjson", "xlsx", "zip"])
def test_s22_a_secret_among_other_values_is_left_out(tmp_path: Path, form: str, value: str) -> None:
    """In every kind of file, in rows that are taken and in those that are refused."""
    rows = [{"Name": f"web{n}", "Note": "plain", "IP": f"10.0.0.{n}"} for n in range(4)]
    rows += [{"Name": "db", "Note": value, "IP": "1"}]
    rows += [{"Name": "x" * 300, "Note": value, "IP": "2"}]
    lines = io.StringIO()
    writer = csv.DictWriter(lines, ["Name", "Note", "IP"], lineterminator="\n")
    writer.writeheader()
    # a quote over several lines and a row that is too short end the quick way of reading
    writer.writerows(rows if form == "csv" else [*rows, {"Name": "a\nb"}])
    path = tmp_path / f"servers.{form.replace('quoted', 'csv')}"
    if form == "xlsx":
        workbook(path, {"S": [("Name", "Note", "IP"), *(tuple(row.values()) for row in rows)]})
    elif form == "zip":
        path.write_bytes(zip_of({"a.csv": lines.getvalue().encode()}))
    elif form in ("json", "ndjson"):
        texts = [json.dumps(row) for row in rows]
        path.write_text("\n".join(texts) if form == "ndjson" else f"[{','.join(texts)}]")
    else:
        path.write_text(lines.getvalue())
    table = read(path, limits={"max_cell_characters": 200})
    assert table.rows_rejected == 1
    assert HIDDEN not in everything(table)
    (note,) = [row["Note"] for row in rows_of(table) if row["Name"] == "db"]
    assert MASK in str(note)
    assert any("'Note': 1 values held" in finding for finding in table.findings)


def test_s22_other_values_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "servers.json"
    path.write_text(
        json.dumps([{"Name": f"web{n}", "Note": text} for n, text in enumerate(OTHERS)])
    )
    assert [row["Note"] for row in rows_of(read(path))] == list(OTHERS)


@pytest.mark.parametrize("key", [ACCESS_KEY, PEM])
def test_keys_by_their_form(tmp_path: Path, key: str) -> None:
    path = tmp_path / "servers.csv"
    cell = f'"{key}"'
    path.write_text(
        f"Name,Deploy,Note,IP\nweb,{cell},{cell},1\ndb,{cell},plain,2\nx,,see mail,3\n"
        f"bad,{cell},{cell}\nworse,\"{key}\nlast,,ok,4\n"
    )  # fmt: skip
    table = read(path)
    assert table.columns == ["Name", "Note", "IP"]
    assert [row["Note"] for row in rows_of(table)][:3] == [MASK, "plain", "see mail"]
    text = everything(table)
    assert not any(part in text for part in ("IOSFODNN7", "MIIEow", "IBAAKC", "BEGIN RSA"))
    assert any("'Note': 1 values held a password or a key" in finding for finding in table.findings)


def test_titles_about_passwords_are_not_quoted(tmp_path: Path) -> None:
    path = tmp_path / "servers.csv"
    path.write_text(f"Admin password: hunter2,,\nKey {ACCESS_KEY},,\nName,IP,OS\nweb,1,x\n")
    table = read(path)
    assert table.columns == ["Name", "IP", "OS"]
    assert "hunter2" not in everything(table)
    assert ACCESS_KEY not in everything(table)


def test_only_credentials_are_no_inventory(tmp_path: Path) -> None:
    path = tmp_path / "servers.csv"
    path.write_text("password,token\na,b\n")
    with pytest.raises(DiscoveryError) as caught:
        read(path)
    assert caught.value.code == ErrorCode.NO_COLUMNS


SECRET = "hunter2-Zq9"
SECRETS = {
    "servers.csv": "Name,Root Password,IP,Memory GB,Note\n"
    + "".join(f"web{n},{SECRET}{n},10.0.0.{n},8,n {n}\n" for n in range(9))
    + f'short,{SECRET}\nlong,{SECRET},1,2,3,{SECRET}\nopen,"{SECRET},1,2,3\n',
    "servers.json": json.dumps(
        [
            {
                "name": f"web{n}",
                "api": {"key": f"{SECRET}{n}"},
                "ram_gb": 8,
                "logins": [{"user": "a", "pwd": f"{SECRET}{n}"}],
            }
            for n in range(9)
        ]
        + [{"name": "x" * 100_001, "pwd": SECRET}]
    ),
}


def everything_in(path: Path) -> str:
    """A file as text, whatever packs it."""
    if path.suffix == ".parquet":
        with duckdb.connect() as connection:
            return str(connection.execute(f"SELECT * FROM '{path}'").fetchall())
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return " ".join(
                archive.read(name).decode("utf-8", "replace") for name in archive.namelist()
            )
    return path.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", SECRETS)
def test_no_phase_hands_a_credential_on(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither a file nor a result nor a log line of any phase holds what was left out."""
    source = tmp_path / name
    source.write_text(SECRETS[name])
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    told: list[str] = []
    run = LocalRun(source, scratch, progress=lambda _: lambda *facts: told.append(str(facts)))
    run.run(Phase.MIGRATION_STRATEGY)
    assert set(run.outcomes) == set(Phase)
    for phase, outcome in run.outcomes.items():
        assert outcome.artefacts, phase
        for artefact, path in outcome.artefacts.items():
            assert SECRET not in everything_in(path), (phase, artefact)
        told.append(outcome.result.model_dump_json())
    assert SECRET not in " ".join(told)
    assert SECRET not in "".join(capfd.readouterr())
    assert any("web3" in everything_in(path) for path in run.outcomes[phase].artefacts.values())


@pytest.mark.parametrize(
    "text",
    [
        f"Name,pwd\nweb,{SECRET},x\n",
        f'[{{"pwd": "{SECRET}"',
        f'{{"a": 1}}\n{{"pwd": "{SECRET}"\n',
    ],
)
def test_refusals_quote_no_credential(tmp_path: Path, text: str) -> None:
    path = tmp_path / "export"
    path.write_text(text)
    try:
        table = read(path)
    except DiscoveryError as error:
        assert SECRET not in error.message
    else:
        assert SECRET not in everything(table)
