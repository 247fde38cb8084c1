"""Archives and workbooks of several tables become one inventory, and say how."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_crews.readers.keys import names_assets
from discovery_crews.readers.presets import recognise, table_name

from tests.crews.files import read, rows_of, workbook, zip_of

VINFO = "VM,Powerstate,CPUs,Memory,NICs,Disks,Cluster,Host,VM UUID\n"
VDISK = "VM,Powerstate,Disk,Capacity MiB,Cluster,Host,VM UUID\n"
VMS = {
    "RVTools_tabvInfo.csv": VINFO
    + "web,poweredOn,2,4096,1,2,C1,esx1,u-1\n"
    + "db,poweredOff,8,16384,1,1,C1,esx2,U-2\n"
    + "old,poweredOff,1,512,1,0,C1,esx2,\n",
    "RVTools_tabvDisk.csv": VDISK
    + "web,poweredOn,Hard disk 1,1024,C1,esx1,U-1\n"
    + "web,poweredOn,Hard disk 2,1024,C1,esx1,u-1\n"
    + 'web,poweredOn,Hard disk 3,"1,536",C1,esx1,u-1\n'
    + "db,poweredOff,Hard disk 1,n/a,C1,esx2,u-2\n"
    + "gone,poweredOff,Hard disk 1,77,C1,esx2,u-9\n"
    + "old,poweredOff,Hard disk 1,10,C1,esx2,\n",
    "RVTools_tabvHost.csv": "Host,Cluster,CPU Model,# Cores,# CPU\n"
    "esx1,C1,Xeon,32,2\nesx2,C1,Epyc,64,1\n",
    "RVTools_tabvUSB.csv": "VM,Device\n",
    "RVTools_tabvLicense.csv": "Name,Key count\nvSphere,1\n",
}


def pack(folder: Path, members: dict[str, str], name: str = "export.zip") -> Path:
    path = folder / name
    path.write_bytes(zip_of({key: text.encode() for key, text in members.items()}))
    return path


def rejected(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_rvtools_archive(tmp_path: Path) -> None:
    table = read(pack(tmp_path, VMS))
    web, db, old = rows_of(table)
    assert (table.format, table.rows) == ("rvtools", 3)
    assert table.columns == [
        *VINFO.strip().split(","),
        "vDisk.Disk", "vDisk.Capacity MiB", "vDisk count", "vDisk.Capacity MiB sum",
            "vDisk.Capacity MiB each",
        "vHost.CPU Model", "vHost.# Cores", "vHost.# CPU",
    ]  # fmt: skip
    assert web["vDisk.Disk"] == "Hard disk 1; Hard disk 2; Hard disk 3"
    assert web["vDisk.Capacity MiB"] == "1024; 1,536"
    assert (web["vDisk count"], web["vDisk.Capacity MiB sum"]) == ("3", "3584")
    # a size that is no number gives no sum
    assert (db["vDisk count"], db["vDisk.Capacity MiB sum"]) == ("1", None)
    # without a UUID the name, host and cluster lead to the row
    assert old["vDisk.Capacity MiB sum"] == "10"
    assert (web["vHost.CPU Model"], db["vHost.# Cores"]) == ("Xeon", "64")
    (orphan,) = rejected(table.rejected)
    assert (orphan["row"], orphan["value"]) == ("6", "u-9")
    assert orphan["raw_line"] == "gone,poweredOff,Hard disk 1,77,C1,esx2,u-9"
    assert orphan["source_file"] == "RVTools_tabvDisk.csv"
    said = " ".join(table.findings)
    assert "Recognised: RVTools vInfo export." in said
    assert "vDisk: 1 rows, now rejected ones, belong to no row of vInfo" in said
    assert "vDisk: 5 rows were joined to vInfo by VM UUID" in said
    assert "'RVTools_tabvUSB.csv' (no table)" in said
    assert "'RVTools_tabvLicense.csv' (1 rows, no column leads to a row of vInfo)" in said


def test_rvtools_workbook_is_read_like_the_archive(tmp_path: Path) -> None:
    sheets: dict[str, Sequence[Sequence[Any]]] = {
        name.removeprefix("RVTools_tab").removesuffix(".csv"): list(csv.reader(text.splitlines()))
        for name, text in VMS.items()
    }
    from_sheets = read(workbook(tmp_path / "rvtools.xlsx", sheets), "rvtools")
    from_archive = read(pack(tmp_path, VMS), "rvtools")
    assert rows_of(from_sheets) == rows_of(from_archive)
    assert from_sheets.sheet == "vInfo"


def test_google_migration_center(tmp_path: Path) -> None:
    members = {
        "out/vmInfo.csv": "MachineId,MachineName,MemoryGiB,OsName,TotalDiskAllocatedGiB\n"
        "m1,web,4,Linux,30\nm2,db,8,Linux,\n",
        "out/diskInfo.csv": "MachineId,DiskLabel,SizeInGib,UsedInGib,StorageTypeLabel\n"
        "m1,sda,10.5,1,ssd\nm1,sdb,20,2,ssd\n",
        "out/tagInfo.csv": "MachineId,Key,Value\nm1,env,prod\nm1,owner,\nm2,env,prod\nm2,tier,db\n",
        "out/perfInfo.csv": "MachineId,TimeStamp,CpuUtilizationPercentage,NetworkBytesPerSecSent\n"
        "m1,2024-01-01,10,5\nm1,2024-01-02,30,5\nm2,2024-01-01,7.5,\n",
    }
    table = read(pack(tmp_path, members), "zip")
    web, db = rows_of(table)
    assert (web["diskInfo.SizeInGib sum"], web["diskInfo count"]) == ("30.5", "2")
    assert web["diskInfo.StorageTypeLabel"] == "ssd"
    assert (web["tagInfo.tags"], db["tagInfo.tags"]) == ("env=prod; owner", "env=prod; tier=db")
    assert web["perfInfo.CpuUtilizationPercentage avg"] == "20"
    assert web["perfInfo.CpuUtilizationPercentage max"] == "30"
    assert db["perfInfo.CpuUtilizationPercentage avg"] == "7.5"
    assert (web["perfInfo count"], db["diskInfo count"]) == ("2", None)
    assert table.format == "zip"
    assert "perfInfo: columns that are no measures were left out: TimeStamp." in table.findings


def test_application_discovery_service(tmp_path: Path) -> None:
    members = {
        "1_osInfo.csv": "agentId,hostName,osName\na1,web,Linux\na2,db,Windows\n",
        "1_networkInterface.csv": "agentId,ipAddress\na1,10.0.0.1\na1,10.0.0.2\n",
        "1_destinationProcessConnection.csv": "agentId,sourceIp\na1,10.0.0.9\n",
    }
    table = read(pack(tmp_path, members))
    assert rows_of(table)[0]["networkInterface.ipAddress"] == "10.0.0.1; 10.0.0.2"
    assert any("'1_destinationProcessConnection.csv' (1 rows" in text for text in table.findings)


def test_tables_with_one_header_are_appended(tmp_path: Path) -> None:
    members = {
        "a/servers.csv": "Name,IP\nweb,1.1.1.1\n\ndb,1.1.1.2\n",
        "b/servers.json": '[{"ip": "1.1.1.3", "name": "app"}]',
        "c/short.csv": "Name,IP\nx\nlast,1.1.1.4\n",
    }
    table = read(pack(tmp_path, members))
    assert table.columns == ["Name", "IP", "source_file"]
    assert [
        (row["Name"], row["IP"], row["source_file"], row["__row"]) for row in rows_of(table)
    ] == [
        ("web", "1.1.1.1", "a/servers.csv", 2),
        ("db", "1.1.1.2", "a/servers.csv", 4),
        ("app", "1.1.1.3", "b/servers.json", 5),
        ("last", "1.1.1.4", "c/short.csv", 8),
    ]
    assert [row["source_file"] for row in rejected(table.rejected)] == ["c/short.csv"]
    assert any("3 tables with one header" in finding for finding in table.findings)


def test_a_column_that_is_called_like_ours_keeps_its_name(tmp_path: Path) -> None:
    members = {f"{n}.csv": f"Name,Source_File\nweb{n},x\n" for n in (1, 2)}
    table = read(pack(tmp_path, members))
    assert table.columns == ["Name", "Source_File", "source_file_2"]
    assert rows_of(table)[1]["source_file_2"] == "2.csv"


def test_tables_of_no_known_tool_are_joined_by_a_shared_unique_column(tmp_path: Path) -> None:
    path = workbook(
        tmp_path / "book.xlsx",
        {
            "Contacts": [("ID", "Person", "Phone"), (1, "Ann", "5"), (2, "Bob", "6")],
            "Disks": [("Server Name", "GB", "OS"), *(("S1", n, "Linux") for n in range(9))],
            "Servers": [("ID", "server name", "OS"), (1, "s1", "Linux"), (2, "s2", "Linux")],
        },
    )
    table = read(path)
    first, second = rows_of(table)
    assert table.columns == ["ID", "server name", "OS", "Disks.GB"]
    assert (first["Disks.GB"], second["Disks.GB"]) == ("0; 1; 2; 3; 4; 5; 6; 7; 8", None)
    assert any("'Contacts' (2 rows" in finding for finding in table.findings)


def test_lookup_tables_do_not_become_the_inventory(tmp_path: Path) -> None:
    sites = [
        ("Site", "City", "Country", "Phone", "Floor"),
        *((f"S{n}", f"C{n}", "DE", n, n) for n in range(30)),
    ]
    servers = [("Server", "Site"), *((f"srv{n}", f"s{n % 3}") for n in range(20))]
    table = read(workbook(tmp_path / "book.xlsx", {"Sites": sites, "Servers": servers}))
    assert (table.sheet, table.rows) == ("Servers", 20)
    assert table.columns == [
        "Server",
        "Site",
        "Sites.City",
        "Sites.Country",
        "Sites.Phone",
        "Sites.Floor",
    ]
    assert [row["Sites.City"] for row in rows_of(table)][:4] == ["C0", "C1", "C2", "C0"]
    assert table.rows_rejected == 27


@pytest.mark.parametrize(
    ("column", "asset"),
    [("Server Name", True), ("hostname", True), ("VM", True), ("name", True), ("Site", False),
     ("Site name", False), ("serverid", True), ("MachineId", True), ("Owner", False)],
)  # fmt: skip
def test_columns_that_name_assets(column: str, asset: bool) -> None:
    assert names_assets(column) is asset


def test_a_workbook_in_an_archive_and_notes_beside_it(tmp_path: Path) -> None:
    book = workbook(tmp_path / "b.xlsx", {"S": [("Name", "IP"), ("web", "1.1.1.1")]})
    path = tmp_path / "x.zip"
    path.write_bytes(
        zip_of(
            {
                "b.xlsx": book.read_bytes(),
                "readme.txt": b"Dear all,\nthis is it\n",
                "logo.png": b"\x89PNG",
                "__MACOSX/._b.xlsx": b"\x00",
                "folder/": b"",
            }
        )
    )
    table = read(path)
    assert [row["Name"] for row in rows_of(table)] == ["web"]
    (said,) = [finding for finding in table.findings if finding.startswith("Not read")]
    assert "logo.png" in said
    assert "readme.txt" in said
    left = {entry.name for entry in (tmp_path / "x.zip.work").iterdir()}
    assert left == {"records.parquet", "rejected.csv", "spill"}


def test_joined_values_keep_to_the_cell_limit(tmp_path: Path) -> None:
    members = {
        "servers.csv": "Server,OS\na,x\nb,x\n",
        "apps.csv": "Server,App\n" + "".join(f"a,application {n}\n" for n in range(50)),
    }
    table = read(pack(tmp_path, members), limits={"max_cell_characters": 100})
    value = rows_of(table)[0]["apps.App"]
    assert len(value) == 100
    assert any("1 joined values are longer than 100" in finding for finding in table.findings)


def test_too_many_columns_are_left_out_and_named(tmp_path: Path) -> None:
    members = {"servers.csv": "Server,OS\na,x\nb,x\n", "apps.csv": "Server,App,V\na,p,1\n"}
    table = read(pack(tmp_path, members), limits={"max_columns": 3})
    assert table.columns == ["Server", "OS"]
    assert any("'apps.csv' (1 rows, too many columns)" in finding for finding in table.findings)


def test_hidden_sheets_and_merged_cells(tmp_path: Path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    for row in (("Name", "Site"), ("web", "Bonn"), ("db", None)):
        sheet.append(row)
    sheet.merge_cells("B2:B3")
    book.create_sheet("Secret").append(("Name", "Site"))
    book["Secret"].sheet_state = "hidden"
    book.save(tmp_path / "book.xlsx")
    table = read(tmp_path / "book.xlsx")
    assert [row["Site"] for row in rows_of(table)] == ["Bonn", None]
    assert any("1 groups of cells are merged" in finding for finding in table.findings)
    assert any("'Secret' (hidden)" in finding for finding in table.findings)


def test_same_archive_same_table(tmp_path: Path) -> None:
    first = read(pack(tmp_path, VMS, "a.zip"))
    second = read(pack(tmp_path, VMS, "b.zip"))
    assert rows_of(first) == rows_of(second)
    assert first.rejected.read_bytes() == second.rejected.read_bytes()


@pytest.mark.parametrize(("asked", "says"), [("xlsx", "'zip'"), ("rvtools", "vInfo")])
def test_an_archive_that_is_not_what_was_asked_for(tmp_path: Path, asked: str, says: str) -> None:
    with pytest.raises(DiscoveryError) as caught:
        read(pack(tmp_path, {"a.csv": "Name,IP\nx,1\n"}), asked)
    assert caught.value.code == ErrorCode.UNSUPPORTED_FORMAT
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("header", "source", "title"),
    [
        (VINFO, "anything.csv", "RVTools vInfo"),
        ("VM,CPUs,Sockets,Powerstate,Template", "x/RVTools_tabvCPU.csv", "RVTools vCPU"),
        ("VM,CPUs,Memory,Powerstate,NICs", "tabvInfo", "RVTools vInfo"),
        ("ExternalId,HostName,IPAddress,OS.Name", "", None),
        ("ExternalId,HostName,IPAddress,OS.Name,RAM.TotalSizeInMB,Tags,VMware.VMName", "i.csv",
         "AWS Application Discovery Service import"),
        ("*Server name,IP address,*Cores,*Memory (In MB),*OS name", "a.csv",
         "Azure Migrate import"),
        ("Server name,Cores,Memory (In MB),OS name", "a.csv", "Azure Migrate import"),
        ("MachineId,MachineName,MemoryGiB,OsType(optional),OsName", "v.csv",
         "Google Migration Center vmInfo"),
        ("name,sys_class_name,ip_address,serial_number", "cmdb_ci.csv", "ServiceNow cmdb_ci"),
        ("Record Type 1,Application Name,Tag 1", "k.csv", "Konveyor application import"),
        ("wave_id,app_name,aws_accountid,server_name,server_tier,server_fqdn", "intake.csv",
         "AWS Cloud Migration Factory intake"),
        ("Name,IP,Owner", "servers.csv", None),
        ("Name,Class,Owner", "servers.csv", None),
    ],
)  # fmt: skip
def test_presets(header: str, source: str, title: str | None) -> None:
    preset = recognise(header.strip().split(","), table_name(source))
    assert (preset.title if preset else None) == title


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("x/RVTools_tabvDisk.csv", "vDisk"),
        ("tabvInfo", "vInfo"),
        ("vInfo", "vInfo"),
        ("book.xlsx/vHost", "vHost"),
        ("123_osInfo.csv", "osInfo"),
        ("c\\VMINFO.csv", "vmInfo"),
        ("my servers.csv", "my servers"),
        ("tables_2024.csv", "tables_2024"),
    ],
)
def test_table_names(source: str, name: str) -> None:
    assert table_name(source) == name


COPIED = {
    "vInfo.csv": "VM,Powerstate,CPUs,Memory,NICs,Disks,VM ID,VM UUID,VI SDK Server\n"
    "erp,poweredOn,2,4096,1,2,vm-1,u-1,vc-a\n"
    "erp-copy,poweredOn,2,4096,1,1,vm-7,u-1,vc-b\n"
    "web,poweredOn,2,4096,1,1,vm-7,u-2,vc-a\n",
    "vDisk.csv": "VM,Disk,Capacity MiB,VM ID,VM UUID,VI SDK Server\n"
    "erp,Hard disk 1,100,vm-1,u-1,vc-a\n"
    "erp,Hard disk 2,200,vm-1,u-1,vc-a\n"
    "erp-copy,Hard disk 1,50,vm-7,u-1,vc-b\n"
    "web,Hard disk 1,7,vm-7,u-2,vc-a\n",
}


def without(members: dict[str, str], *columns: str) -> dict[str, str]:
    """The tables without these columns."""
    made = {}
    for name, text in members.items():
        rows = [line.split(",") for line in text.splitlines()]
        kept = [at for at, column in enumerate(rows[0]) if column not in columns]
        made[name] = "".join(",".join(row[at] for at in kept) + "\n" for row in rows)
    return made


@pytest.mark.parametrize(
    ("missing", "way"),
    [
        ((), "VI SDK Server and VM ID"),
        (("VI SDK Server",), "VM UUID and VM"),
        (("VI SDK Server", "VM ID"), "VM UUID and VM"),
        (("VM UUID",), "VI SDK Server and VM ID"),
        (("VI SDK Server", "VM ID", "VM UUID"), "VM"),
    ],
)
def test_each_copy_of_a_machine_has_its_own_disks(
    tmp_path: Path, missing: tuple[str, ...], way: str
) -> None:
    table = read(pack(tmp_path, without(COPIED, *missing)))
    sums = {row["VM"]: row["vDisk.Capacity MiB sum"] for row in rows_of(table)}
    assert sums == {"erp": "300", "erp-copy": "50", "web": "7"}
    assert f"joined to vInfo by {way} " in "\n".join(table.findings)
    assert table.rows_rejected == 0


def test_disks_that_may_be_of_either_copy_are_given_to_none(tmp_path: Path) -> None:
    members = without(COPIED, "VI SDK Server", "VM ID")
    members["vDisk.csv"] = without({"d": members["vDisk.csv"]}, "VM")["d"]
    table = read(pack(tmp_path, members))
    sizes = {row["VM"]: row["vDisk.Capacity MiB"] for row in rows_of(table)}
    assert sizes == {"erp": None, "erp-copy": None, "web": "7"}
    found = rejected(table.rejected)
    assert [row["row"] for row in found] == ["2", "3", "4"]
    assert {row["problem"] for row in found} == {
        "several rows of vInfo have its key, or another one"
    }


def test_no_name_leads_to_a_machine_of_another_uuid(tmp_path: Path) -> None:
    members = without(COPIED, "VI SDK Server", "VM ID")
    members["vDisk.csv"] += "web,Hard disk 9,1,u-3\n"
    table = read(pack(tmp_path, members))
    assert table.rows_rejected == 1


GENERIC = {
    "servers.csv": "Server Name,Serial UUID,RAM\n"
     "erp,u-1,4\nerp-copy,u-1,4\n" + "".join(f"s{n},v-{n},4\n" for n in range(8)),
    "disks.csv": "Server Name,Serial UUID,Size\n"
    "erp,u-1,100\nerp,u-1,200\nerp-copy,u-1,50\ns1,v-1,7\n",
}  # fmt: skip


def test_an_unknown_export_with_a_repeated_uuid(tmp_path: Path) -> None:
    table = read(pack(tmp_path, GENERIC))
    sizes = {row["Server Name"]: row["disks.Size"] for row in rows_of(table)}
    assert (sizes["erp"], sizes["erp-copy"], sizes["s1"]) == ("100; 200", "50", "7")
    other = tmp_path / "other"
    other.mkdir()
    table = read(pack(other, without(GENERIC, "Server Name") | {
        "servers.csv": GENERIC["servers.csv"]}))  # fmt: skip
    sizes = {row["Server Name"]: row["disks.Size"] for row in rows_of(table)}
    assert (sizes["erp"], sizes["erp-copy"], sizes["s1"]) == (None, None, "7")
    assert table.rows_rejected == 3


def test_two_columns_together_are_a_key(tmp_path: Path) -> None:
    members = {
        "servers.csv": "Host Name,Site,RAM\nweb,A,4\nweb,B,8\ndb,A,1\ndb,B,2\n",
        "disks.csv": "Host Name,Site,Size\nweb,A,10\nweb,A,11\nweb,B,20\nweb,B,21\ndb,A,30\n"
        "db,A,31\n",
    }
    sizes = {
        (row["Host Name"], row["Site"]): row["disks.Size"]
        for row in rows_of(read(pack(tmp_path, members)))
    }
    assert sizes[("web", "A")] == "10; 11"
    assert sizes[("web", "B")] == "20; 21"
    assert sizes[("db", "B")] is None
