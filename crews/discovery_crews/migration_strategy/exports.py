"""Files that other tools import: AWS, Azure, Google, and plain CSV, JSON and Parquet.

Field lists: AWS Application Discovery Service user guide (import template), Azure Migrate (CSV
import), Google Migration Center (vmInfo, diskInfo, tagInfo). A server that lacks what a vendor
requires stays out of that vendor's file and is listed, with the reason, in a file beside it. Cells
that a spreadsheet would run are neutralised.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import duckdb

from discovery_crews.tables.engine import identifier, literal

from .facts import Facts

_MAC = "{mac}[1]"
_TAG = r"^\s*([^=:]+?)\s*[=:]\s*(.*)$"


@dataclass(frozen=True)
class Sheet:
    """One file of a vendor: its columns in order, each with the SQL that fills it.

    `requires` are conditions that a server must meet, with what is missing otherwise.
    """

    name: str
    columns: dict[str, str]
    requires: dict[str, str]


def _rate(facts: Facts, field: str) -> str:
    """A rate that the inventory keeps in MB/s, in KB/s."""
    return f"round({facts.column(field)} * 1024, 2)"


def aws(facts: Facts) -> Sheet:
    """The import template of AWS Application Discovery Service: 34 columns."""
    c = facts.column
    mebibytes = f"CAST(round({c('memory_gb')} * 1024) AS BIGINT)"
    filled = {
        "ExternalId": "a.identity",
        "IPAddress": f"{c('ip_address', 'NULL::VARCHAR[]')}[1]",
        "MACAddress": f"{c('mac_address', 'NULL::VARCHAR[]')}[1]",
        "HostName": f"coalesce({c('fqdn')}, {c('hostname')})",
        "CPU.NumberOfProcessors": c("cpu_sockets"),
        "CPU.NumberOfCores": c("cpu_cores"),
        "OS.Name": c("os_name"),
        "OS.Version": c("os_version"),
        "VMware.VMName": f"CASE WHEN {c('is_virtual')} THEN a.name END",
        "RAM.TotalSizeInMB": mebibytes,
        "CPU.UsagePct.Avg": c("cpu_utilization_avg"),
        "CPU.UsagePct.Max": c("cpu_utilization_max"),
        "DiskReadsPerSecondInKB.Avg": _rate(facts, "disk_read_throughput"),
        "DiskWritesPerSecondInKB.Avg": _rate(facts, "disk_write_throughput"),
        "DiskReadsOpsPerSecond.Avg": c("disk_read_iops"),
        "DiskWritesOpsPerSecond.Avg": c("disk_write_iops"),
        "NetworkReadsPerSecondInKB.Avg": _rate(facts, "network_in_throughput"),
        "NetworkWritesPerSecondInKB.Avg": _rate(facts, "network_out_throughput"),
        "Applications": f"array_to_string({c('application_name', 'NULL::VARCHAR[]')}, ', ')",
        "ApplicationWave": c("migration_wave"),
        "Tags": f"array_to_string({c('tags', 'NULL::VARCHAR[]')}, ', ')",
    }
    order = (
        "ExternalId", "SMBiosId", "IPAddress", "MACAddress", "HostName", "VMware.MoRefId",
        "VMware.VCenterId", "CPU.NumberOfProcessors", "CPU.NumberOfCores",
        "CPU.NumberOfLogicalCores", "OS.Name", "OS.Version", "VMware.VMName",
        "RAM.TotalSizeInMB", "RAM.UsedSizeInMB.Avg", "RAM.UsedSizeInMB.Max",
        "CPU.UsagePct.Avg", "CPU.UsagePct.Max", "DiskReadsPerSecondInKB.Avg",
        "DiskWritesPerSecondInKB.Avg", "DiskReadsPerSecondInKB.Max",
        "DiskWritesPerSecondInKB.Max", "DiskReadsOpsPerSecond.Avg", "DiskWritesOpsPerSecond.Avg",
        "DiskReadsOpsPerSecond.Max", "DiskWritesOpsPerSecond.Max",
        "NetworkReadsPerSecondInKB.Avg", "NetworkWritesPerSecondInKB.Avg",
        "NetworkReadsPerSecondInKB.Max", "NetworkWritesPerSecondInKB.Max", "Applications",
        "ApplicationWave", "Tags", "ServerId",
    )  # fmt: skip
    return Sheet("aws-import", {name: filled.get(name, "NULL") for name in order}, {})


def azure(facts: Facts) -> Sheet:
    """The CSV import of Azure Migrate: memory in MB, disk sizes in GB."""
    c = facts.column
    columns = {
        "Server name": "a.name",
        "IP address": f"array_to_string({c('ip_address', 'NULL::VARCHAR[]')}, ';')",
        "Cores": c("cpu_cores"),
        "Memory": f"CAST(round({c('memory_gb')} * 1024) AS BIGINT)",
        "OS name": c("os_name"),
        "OS version": c("os_version"),
        "OS architecture": c("os_architecture"),
        "Number of disks": c("disk_count"),
        "Disk 1 size": c("storage_gb"),
        "Disk 1 read ops": "NULL",
        "Disk 1 write ops": "NULL",
        "Disk 1 read throughput": "NULL",
        "Disk 1 write throughput": "NULL",
        "CPU utilization percentage": c("cpu_utilization_avg"),
        "Memory utilization percentage": c("memory_utilization_avg"),
        "Total disks read ops": c("disk_read_iops"),
        "Total disks write ops": c("disk_write_iops"),
        "Total disks read throughput": c("disk_read_throughput"),
        "Total disks write throughput": c("disk_write_throughput"),
        "Network In throughput": c("network_in_throughput"),
        "Network Out throughput": c("network_out_throughput"),
        "Firmware type": f"upper({c('firmware_type', 'NULL::VARCHAR')})",
        "MAC address": f"array_to_string({c('mac_address', 'NULL::VARCHAR[]')}, ';')",
    }
    required = ("Server name", "Cores", "Memory", "OS name")
    return Sheet(
        "azure-migrate", columns, {name: f"({columns[name]}) IS NOT NULL" for name in required}
    )


def google(facts: Facts) -> dict[str, str]:
    """The queries of Google Migration Center's vmInfo, diskInfo and tagInfo tables."""
    c = facts.column
    servers = "FROM inventory AS a WHERE a.asset_type = 'server' ORDER BY a.identity"
    addresses, macs = c("ip_address", "NULL::VARCHAR[]"), c("mac_address", "NULL::VARCHAR[]")
    tags = c("tags", "NULL::VARCHAR[]")
    machine = {
        "MachineId": "a.identity",
        "MachineName": "a.name",
        "PrimaryIPAddress": f"{addresses}[1]",
        "PrimaryMACAddress": f"{macs}[1]",
        "PublicIPAddress": "NULL",
        "IpAddressListSemiColonDelimited": f"array_to_string({addresses}, ';')",
        "TotalDiskAllocatedGiB": c("storage_gb"),
        "TotalDiskUsedGiB": c("storage_used_gb"),
        "MachineTypeLabel": c("model"),
        "AllocatedProcessorCoreCount": c("cpu_cores"),
        "MemoryGiB": c("memory_gb"),
        "HostingLocation": f"coalesce({c('datacenter')}, {c('location')})",
        "OsType": "NULL",
        "OsPublisher": "NULL",
        "OsName": c("os_name"),
        "OsVersion": c("os_version"),
        "MachineStatus": c("power_state"),
        "ProvisioningState": "NULL",
        "CreateDate": c("created_date"),
        "IsPhysical": f"CASE WHEN {c('is_virtual')} IS NOT NULL THEN NOT {c('is_virtual')} END",
    }
    disk = {
        "MachineId": "a.identity",
        "DiskLabel": "'all disks'",
        "SizeInGib": c("storage_gb"),
        "UsedInGib": c("storage_used_gb"),
        "StorageTypeLabel": c("storage_type"),
    }
    sized = servers.replace("WHERE", f"WHERE {c('storage_gb')} IS NOT NULL AND")
    pair = f"'{_TAG}'"
    return {
        "vmInfo": f"SELECT {_selected(machine)} {servers}",
        "diskInfo": f"SELECT {_selected(disk)} {sized}",
        "tagInfo": (
            f'SELECT identity AS "MachineId", regexp_extract(tag, {pair}, 1) AS "Key", '  # noqa: S608 - quoted
            f'regexp_extract(tag, {pair}, 2) AS "Value" FROM (SELECT a.identity AS identity, '
            f"unnest({tags}) AS tag FROM inventory AS a WHERE a.asset_type = 'server') "
            f"WHERE regexp_full_match(tag, {pair}) ORDER BY 1, 2"
        ),
    }


def _selected(columns: dict[str, str]) -> str:
    return ", ".join(f"{sql} AS {identifier(name)}" for name, sql in columns.items())


def write_exports(
    connection: duckdb.DuckDBPyConnection, facts: Facts, workdir: Path, assets: Path
) -> tuple[dict[str, Path], dict[str, int]]:
    """All exports below `workdir` by artefact name, and per vendor how many servers stayed out."""
    connection.execute(
        f"CREATE TEMP VIEW inventory AS SELECT * FROM read_parquet({literal(assets)})"  # noqa: S608 - quoted
    )
    files: dict[str, Path] = {}
    left_out: dict[str, int] = {}
    for sheet in (aws(facts), azure(facts)):
        conditions = " AND ".join(sheet.requires.values()) or "true"
        files[sheet.name] = workdir / f"{sheet.name}.csv"
        write_csv(
            connection,
            f"SELECT {_selected(sheet.columns)} FROM inventory AS a "  # noqa: S608 - quoted
            f"WHERE a.asset_type = 'server' AND {conditions} ORDER BY a.identity",
            files[sheet.name],
        )
        number = _write_left_out(connection, sheet, workdir, files)
        if number:
            left_out[sheet.name] = number
    files["google-import"] = _write_google(connection, facts, workdir)
    joined = (
        "SELECT a.*, s.strategy, s.confidence, s.reason, s.debt_score, s.gaps "
        "FROM inventory AS a JOIN strategies AS s USING (identity) ORDER BY a.identity"
    )
    files["assets_csv"] = workdir / "assets.csv"
    write_csv(connection, joined, files["assets_csv"])
    files["assets_json"] = workdir / "assets.ndjson"
    connection.execute(f"COPY ({joined}) TO {literal(files['assets_json'])} (FORMAT json)")
    files["assets_parquet"] = workdir / "assets.parquet"
    connection.execute(
        f"COPY ({joined}) TO {literal(files['assets_parquet'])} (FORMAT parquet, COMPRESSION zstd)"
    )
    return files, left_out


def _write_left_out(
    connection: duckdb.DuckDBPyConnection, sheet: Sheet, workdir: Path, files: dict[str, Path]
) -> int:
    if not sheet.requires:
        return 0
    missing = ", ".join(
        f"CASE WHEN NOT coalesce({condition}, false) THEN {literal(name)} END"
        for name, condition in sheet.requires.items()
    )
    query = (
        "SELECT identity, name, array_to_string(missing, ', ') AS missing FROM (SELECT a.identity, "  # noqa: S608 - quoted
        f"a.name, list_filter([{missing}], lambda part: part IS NOT NULL) AS missing "
        "FROM inventory AS a WHERE a.asset_type = 'server') WHERE len(missing) > 0 "
        "ORDER BY identity"
    )
    row = connection.execute(f"SELECT count(*) FROM ({query})").fetchone()  # noqa: S608 - ours
    number = int(row[0]) if row else 0
    if number:
        name = f"{sheet.name}-left-out"
        files[name] = workdir / f"{name}.csv"
        write_csv(connection, query, files[name])
    return number


def _write_google(connection: duckdb.DuckDBPyConnection, facts: Facts, workdir: Path) -> Path:
    """One archive, as Migration Center takes it; the same servers always give the same bytes."""
    target = workdir / "google-import.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for table, query in google(facts).items():
            part = workdir / f"google-{table}.csv"
            write_csv(connection, query, part)
            entry = zipfile.ZipInfo(f"{table}.csv")
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, part.read_bytes())
            part.unlink()
    return target


def write_csv(connection: duckdb.DuckDBPyConnection, query: str, target: Path) -> None:
    """A query as CSV for spreadsheets: lists joined by `; `, what would run is neutralised."""
    described = connection.execute(f"DESCRIBE {query}").fetchall()
    columns = []
    for name, kind, *_ in described:
        text = identifier(str(name))
        if str(kind).endswith("[]"):
            text = f"array_to_string({text}, '; ')"
        elif str(kind) != "VARCHAR":
            columns.append(f"{text} AS {identifier(str(name))}")
            continue
        runs = f"regexp_matches({text}, '^[=+@\\t\\r-]') AND NOT regexp_full_match({text}, "
        safe = f"CASE WHEN {runs}'[-+]?[0-9.,]+ ?%?') THEN chr(39) || {text} ELSE {text} END"
        columns.append(f"{safe} AS {identifier(str(name))}")
    connection.execute(
        f"COPY (SELECT {', '.join(columns)} FROM ({query})) TO {literal(target)} "  # noqa: S608 - quoted
        "(FORMAT csv, HEADER)"
    )
