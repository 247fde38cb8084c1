"""Rows of connections become edges and never assets, in whatever file and language they come."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest
from discovery_core.phases import Phase
from discovery_core.wire.results import DependencyResult, FieldMapping, ImportResult, MappingResult
from discovery_crews.local_run import LocalRun
from discovery_crews.readers.connections import connection_table, is_connections, relation_of
from pydantic import TypeAdapter

from tests.crews.files import read, rows_of, workbook, zip_of

SERVERS = (
    "VM name,IP address,OS,Cores\n"
    "web01,192.0.2.61,Windows Server 2019,4\n"
    "db01,192.0.2.62,Windows Server 2019,8\n"
    "app01,192.0.2.63,Windows Server 2019,4\n"
    "fs01,192.0.2.64,Windows Server 2019,4\n"
)
AZURE = (
    "Source server name,Source IP,Source process,Destination server name,Destination IP,"
    "Destination process,Destination port\n"
    "web01,192.0.2.61,w3wp.exe,db01,192.0.2.62,sqlservr.exe,1433\n"
    "web01,192.0.2.61,w3wp.exe,,192.0.2.63,,8080\n"
    "app01,192.0.2.63,java.exe,,203.0.113.9,,443\n"
    "web01,192.0.2.61,svchost.exe,web01,192.0.2.61,svchost.exe,135\n"
)


def archive(folder: Path, **members: str) -> Path:
    path = folder / "export.zip"
    path.write_bytes(zip_of({f"{name}.csv": text.encode() for name, text in members.items()}))
    return path


def source(folder: Path, text: str, name: str = "export.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def table(path: Path) -> list[dict[str, Any]]:
    with duckdb.connect() as connection:
        found = connection.execute(f"SELECT * FROM '{path}'")
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def analysed(path: Path, scratch: Path) -> LocalRun:
    scratch.mkdir()
    local = LocalRun(path, scratch)
    local.run(Phase.DEPENDENCY_ANALYSIS)
    return local


def assets_of(local: LocalRun) -> list[str]:
    made = local.outcomes[Phase.ASSET_INVENTORY].artefacts["inventory"]
    return sorted(row["name"] for row in table(made))


def edges_of(local: LocalRun) -> set[tuple[str, str]]:
    made = local.outcomes[Phase.DEPENDENCY_ANALYSIS].artefacts["dependencies"]
    return {
        (row["from_name"], (row["to_identity"] or f"?:{row['to_text']}").split(":", 1)[1])
        for row in table(made)
    }


def result_of(local: LocalRun) -> DependencyResult:
    result = local.outcomes[Phase.DEPENDENCY_ANALYSIS].result
    assert isinstance(result, DependencyResult)
    return result


HEADERS: dict[str, tuple[str, str, str | None]] = {
    "Source server name,Source IP,Destination server name,Destination IP,Destination port": (
        "Source server name", "Destination server name", "Destination port"),
    "sourceServerId,sourceIp,destinationServerId,destinationIp,destinationPort": (
        "sourceIp", "destinationIp", "destinationPort"),
    "version,srcaddr,dstaddr,srcport,dstport,protocol,packets,bytes,start,end,action": (
        "srcaddr", "dstaddr", "dstport"),
    "LocalAddress,LocalPort,RemoteAddress,RemotePort,State,OwningProcess,PSComputerName": (
        "PSComputerName", "RemoteAddress", "RemotePort"),
    "Proto,Local Address,Foreign Address,State": ("Local Address", "Foreign Address", None),
    "Proto,Lokale Adresse,Remoteadresse,Status": ("Lokale Adresse", "Remoteadresse", None),
    "Proto,Adresse locale,Adresse distante,État": ("Adresse locale", "Adresse distante", None),
    "Proto,Dirección local,Dirección remota,Estado": ("Dirección local", "Dirección remota", None),
    "Proto,Indirizzo locale,Indirizzo esterno,Stato": (
        "Indirizzo locale", "Indirizzo esterno", None),
    "Quellserver,Quell-IP,Zielserver,Ziel-IP,Zielport,Protokoll": (
        "Quellserver", "Zielserver", "Zielport"),
    "Herkunftsserver,Zielsystem,Port": ("Herkunftsserver", "Zielsystem", "Port"),
    "Serveur source,IP source,Serveur de destination,IP de destination,Port de destination": (
        "Serveur source", "Serveur de destination", "Port de destination"),
    "Serveur source,Serveur cible,Port": ("Serveur source", "Serveur cible", "Port"),
    "Server di origine,Server di destinazione,Porta di destinazione": (
        "Server di origine", "Server di destinazione", "Porta di destinazione"),
    "Bronserver,Bron-IP,Doelserver,Doel-IP,Doelpoort": ("Bronserver", "Doelserver", "Doelpoort"),
    "Servidor de origen,Servidor de destino,Puerto de destino": (
        "Servidor de origen", "Servidor de destino", "Puerto de destino"),
    "Servidor de origem,IP de origem,Servidor de destino,Porta de destino,Protocolo": (
        "Servidor de origem", "Servidor de destino", "Porta de destino"),
    "Parent,Type,Child,sys_id": ("Parent", "Child", None),
    "Source Name,Target Name,Relationship type": ("Source Name", "Target Name", None),
}  # fmt: skip


@pytest.mark.parametrize("header", HEADERS)
def test_ends_are_found_by_what_headers_mean(header: str) -> None:
    found = connection_table(header.split(","))
    assert found is not None
    assert found.only
    assert (found.sources[0], found.targets[0], found.port) == HEADERS[header]


@pytest.mark.parametrize("header", [
    "VM name,IP address,OS,Cores,Memory (MB)",
    "Name,Parent,Type,OS",
    "Source server,Target server,OS,CPU,RAM,Wave",
    "Name,Environment,Owner,Source,Destination,Status",
    "Data source,Server name,Destination datacenter",
    "Client,Server name,Location",
    "Server,Application,Port",
])  # fmt: skip
def test_inventories_are_no_connections(header: str) -> None:
    assert not is_connections(header.split(","))


@pytest.mark.parametrize(("said", "meant"), [
    ("Runs on::Runs", ("runs_on", False)),
    ("Hosts::Hosted on", ("runs_on", True)),
    ("Depends on::Used by", ("depends_on", False)),
    ("Cluster of::Cluster", ("in_cluster", True)),
    ("Hängt ab von", ("depends_on", False)),
    ("Sings with::Sung with", ("connects_to", False)),
])  # fmt: skip
def test_a_relation_says_which_edge_and_in_which_direction(
    said: str, meant: tuple[str, bool]
) -> None:
    assert relation_of(said) == meant


def test_an_inventory_and_its_connections_in_one_archive(tmp_path: Path) -> None:
    local = analysed(archive(tmp_path, servers=SERVERS, dependencies=AZURE), tmp_path / "run")
    assert assets_of(local) == ["app01", "db01", "fs01", "web01"]
    assert edges_of(local) == {
        ("web01", "db01"), ("web01", "app01"), ("app01", "203.0.113.9"),
    }  # fmt: skip
    result = result_of(local)
    assert (result.dependencies, result.unresolved, result.groups) == (3, 1, 1)
    imported = local.outcomes[Phase.DATA_IMPORT].result
    assert isinstance(imported, ImportResult)
    (told,) = [text for text in imported.findings if "connections" in text]
    assert "dependencies.csv: 4 rows" in told
    files = local.outcomes[Phase.DEPENDENCY_ANALYSIS].artefacts
    said = [json.loads(row["evidence"])[0] for row in table(files["dependencies"])]
    assert {(e["table"], *e["rows"]) for e in said} == {("dependencies.csv", n) for n in (2, 3, 4)}


def test_not_the_size_says_which_table_is_the_inventory(tmp_path: Path) -> None:
    many = AZURE + "".join(
        f"web01,192.0.2.61,p.exe,db01,192.0.2.62,q.exe,{port}\n" for port in range(1500, 1600)
    )
    read_in = read(archive(tmp_path, a=many, b=SERVERS))
    assert read_in.columns == ["VM name", "IP address", "OS", "Cores"]
    assert read_in.rows == 4
    assert read_in.connections is not None
    assert len(table(read_in.connections)) == 104


def test_connections_on_sheets_of_several_headers(tmp_path: Path) -> None:
    sheets: dict[str, Sequence[Sequence[object]]] = {
        "Server": [["Servername", "IP-Adresse", "Betriebssystem"],
                   ["srv1", "10.1.0.1", "Windows"], ["srv2", "10.1.0.2", "Linux"]],
        "Verbindungen": [["Quellserver", "Zielserver", "Zielport"], ["srv1", "srv2", "22"]],
        "CMDB": [["Parent", "Type", "Child"], ["srv1", "Depends on::Used by", "srv2"],
                 ["srv1", "Hosts::Hosted on", "srv2"]],
    }  # fmt: skip
    local = analysed(workbook(tmp_path / "x.xlsx", sheets), tmp_path / "run")
    assert assets_of(local) == ["srv1", "srv2"]
    rows = table(local.outcomes[Phase.DEPENDENCY_ANALYSIS].artefacts["dependencies"])
    assert {(row["from_name"], row["to_text"], row["kind"], row["confidence"]) for row in rows} == {
        ("srv1", "srv2", "connects_to", 0.6), ("srv1", "srv2", "depends_on", 0.9),
        ("srv2", "srv1", "runs_on", 0.9),
    }  # fmt: skip


def test_refused_rows_of_connections_are_kept(tmp_path: Path) -> None:
    broken = "Source,Destination,Port\na,b,1\na,b,1,2,3\n"
    read_in = read(archive(tmp_path, servers=SERVERS, flows=broken))
    assert read_in.rows_rejected == 1
    assert "flows.csv" in read_in.rejected.read_text()


@pytest.mark.parametrize("text", [
    AZURE,
    ("Quellserver;Quell-IP;Zielserver;Ziel-IP;Zielport;Prozess\n"
     "web01;192.0.2.61;db01;192.0.2.62;1433;sqlservr.exe\n"),
    ("Proto,Local Address,Foreign Address,State\nTCP,10.0.0.1:50000,10.0.0.2:443,ESTABLISHED\n"
     "TCP,0.0.0.0:22,0.0.0.0:0,LISTENING\nUDP,0.0.0.0:68,*:*,\n"),
])  # fmt: skip
def test_connections_alone_invent_no_asset(tmp_path: Path, text: str) -> None:
    local = LocalRun(source(tmp_path, text), tmp_path / "run")
    (tmp_path / "run").mkdir()
    local.run(Phase.MIGRATION_STRATEGY)
    assert assets_of(local) == []
    mapped = local.outcomes[Phase.FIELD_MAPPING].result
    assert isinstance(mapped, MappingResult)
    assert {mapping.target for mapping in mapped.mappings} == {None}
    result = result_of(local)
    assert result.dependencies == result.unresolved > 0
    assert not any(target.startswith("0.0.0.0") for _, target in edges_of(local))
    said = " ".join(result.findings)
    assert "has both ends in the inventory" in said
    assert "sqlservr.exe" not in said


def test_two_tables_of_connections_alone(tmp_path: Path) -> None:
    read_in = read(archive(tmp_path, a="Source,Destination,Port\na,b,1\na,c,2\n",
                           b="Quellserver,Zielserver,Zielport\nd,e,1\n"))  # fmt: skip
    assert [row["Destination"] for row in rows_of(read_in)] == ["b", "c"]
    assert read_in.connections is not None
    assert [row["targets"] for row in table(read_in.connections)] == [["e"]]


def test_a_person_who_maps_such_a_table_gets_the_assets(tmp_path: Path) -> None:
    decided = [
        FieldMapping(column="Source", target="hostname", confidence=1, reason="x"),
        FieldMapping(column="Destination", target=None, confidence=1, reason="x"),
    ]
    mappings = tmp_path / "mappings.json"
    mappings.write_bytes(TypeAdapter(list[FieldMapping]).dump_json(decided, by_alias=True))
    (tmp_path / "run").mkdir()
    local = LocalRun(
        source(tmp_path, "Source,Destination\na,b\nb,c\n"), tmp_path / "run",
        given={"mappings": mappings},
    )  # fmt: skip
    local.run(Phase.ASSET_INVENTORY)
    assert assets_of(local) == ["a", "b"]


def test_an_address_tells_which_of_two_machines_of_a_name(tmp_path: Path) -> None:
    twins = (
        "VM name,FQDN,IP address,OS\nweb,web.a.org,10.0.0.1,Linux\n"
        "web,web.b.org,10.0.0.2,Linux\ndb,db.a.org,10.0.0.3,Linux\n"
    )
    flows = "Source name,Source IP,Destination name,Destination IP\ndb,10.0.0.3,web,10.0.0.2\n"
    local = analysed(archive(tmp_path, servers=twins, flows=flows), tmp_path / "run")
    assert edges_of(local) == {("db", "web.b.org")}


@pytest.mark.parametrize("lines", [
    ("Proto,Local Address,Foreign Address\nTCP,10.0.0.2:443,10.0.0.1:50000\n"
     "TCP,10.0.0.2:51000,10.0.0.3:5432\n"),
    ("LocalAddress,LocalPort,RemoteAddress,RemotePort,PSComputerName\n"
     "172.16.0.1,443,10.0.0.1,50000,two\n172.16.0.1,51000,10.0.0.3,5432,two\n"),
])  # fmt: skip
def test_a_machine_lists_also_what_others_have_opened(tmp_path: Path, lines: str) -> None:
    servers = "VM name,IP address,OS\none,10.0.0.1,Linux\ntwo,10.0.0.2,Linux\nthree,10.0.0.3,A\n"
    local = analysed(archive(tmp_path, servers=servers, netstat=lines), tmp_path / "run")
    made = local.outcomes[Phase.DEPENDENCY_ANALYSIS].artefacts["dependencies"]
    assert {(row["from_name"], row["to_identity"].split(":")[1], row["port"])
            for row in table(made)} == {("one", "two", 443), ("two", "three", 5432)}  # fmt: skip


def test_relations_as_the_interface_of_a_cmdb_gives_them() -> None:
    found = connection_table(
        ["parent.display_value", "parent.link", "type.display_value", "child.display_value"]
    )
    assert found is not None
    assert (found.sources, found.targets, found.relation) == (
        ("parent.display_value",), ("child.display_value",), "type.display_value",
    )  # fmt: skip
