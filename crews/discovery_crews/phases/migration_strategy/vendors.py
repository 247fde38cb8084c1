"""What the import files of AWS, Azure and Google hold, column by column.

Field lists: AWS Application Discovery Service user guide (import template), Azure Migrate (CSV
import, Microsoft Learn), Google Migration Center (vmInfo, diskInfo, tagInfo).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from discovery_crews.tables.addresses import routable
from discovery_crews.tables.engine import identifier

from .facts import Facts
from .labels import label_query, tag_text

# what Azure Migrate takes in one file, and disks of one server
AZURE_SERVERS = 20_000
AZURE_DISKS = 8
_SERVERS = "FROM servers AS a WHERE true"


@dataclass(frozen=True)
class Sheet:
    """One file of a vendor: its columns in order, each with the SQL that fills it.

    `requires` are conditions that a server must meet, by what is missing otherwise; `warns` are
    conditions that a server should meet, by what is said otherwise. `most` rows go into a file.
    """

    name: str
    columns: dict[str, str]
    requires: dict[str, str]
    warns: dict[str, str] = field(default_factory=dict)
    most: int | None = None

    @property
    def selected(self) -> str:
        """The columns as a SELECT list."""
        return selected(self.columns)


def selected(columns: dict[str, str]) -> str:
    """Columns as a SELECT list."""
    return ", ".join(f"{sql} AS {identifier(name)}" for name, sql in columns.items())


def _rate(facts: Facts, field: str) -> str:
    """A rate that the inventory keeps in MB/s, in KB/s."""
    return f"round({facts.column(field)} * 1024, 2)"


def _joined(facts: Facts, field: str, separator: str) -> str:
    return f"array_to_string({facts.column(field, 'NULL::VARCHAR[]')}, '{separator}')"


def _unique_name(name: str) -> str:
    """A name with the identity behind it where servers share it: Azure keeps one of each name."""
    shared = f"SELECT lower({name}) {_SERVERS} GROUP BY 1 HAVING count(*) > 1"
    called = f"{name} || ' (' || a.identity || ')'"
    return f"CASE WHEN lower({name}) IN ({shared}) THEN {called} ELSE {name} END"


def _first(facts: Facts, field: str) -> str:
    return f"{facts.column(field, 'NULL::VARCHAR[]')}[1]"


def _reachable(facts: Facts) -> str:
    """The addresses that others can reach; one that many machines have is nobody's."""
    found = facts.column("ip_address", "NULL::VARCHAR[]")
    return f"list_filter({found}, lambda part: {routable('part')})"


def _all(listed: str, separator: str) -> str:
    """A list as one text; NULL where it is empty."""
    return f"nullif(array_to_string({listed}, '{separator}'), '')"


def aws(facts: Facts) -> Sheet:
    """The import template of AWS Application Discovery Service: 34 columns.

    A server needs one of the keys. The number of a row is no key: it names another server in the
    next file.
    """
    c = facts.column
    keys = {
        "ExternalId": "CASE WHEN a.identity NOT LIKE 'row:%' THEN a.identity END",
        "IPAddress": _all(_reachable(facts), ", "),
        "MACAddress": _all(c("mac_address", "NULL::VARCHAR[]"), ", "),
        "HostName": f"coalesce({c('fqdn')}, {c('hostname')})",
    }
    kept = facts.kept
    located = {"VMware.MoRefId": kept.moref_id, "VMware.VCenterId": kept.vcenter_id}
    filled = (
        keys
        | located
        | {
            "SMBiosId": kept.smbios_id,
            "CPU.NumberOfProcessors": c("cpu_sockets"),
            "CPU.NumberOfCores": c("cpu_cores"),
            "OS.Name": c("os_name"),
            "OS.Version": c("os_version"),
            "VMware.VMName": f"CASE WHEN {kept.is_virtual} THEN a.name END",
            "RAM.TotalSizeInMB": f"try_cast(round({c('memory_gb')} * 1024) AS BIGINT)",
            "CPU.UsagePct.Avg": c("cpu_utilization_avg"),
            "CPU.UsagePct.Max": c("cpu_utilization_max"),
            "DiskReadsPerSecondInKB.Avg": _rate(facts, "disk_read_throughput"),
            "DiskWritesPerSecondInKB.Avg": _rate(facts, "disk_write_throughput"),
            "DiskReadsOpsPerSecond.Avg": c("disk_read_iops"),
            "DiskWritesOpsPerSecond.Avg": c("disk_write_iops"),
            "NetworkReadsPerSecondInKB.Avg": _rate(facts, "network_in_throughput"),
            "NetworkWritesPerSecondInKB.Avg": _rate(facts, "network_out_throughput"),
            "Applications": _joined(facts, "application_name", ", "),
            "ApplicationWave": c("migration_wave"),
            "Tags": tag_text(),
        }
    )
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
    applications = c("application_name", "NULL::VARCHAR[]")
    one_of = " OR ".join(f"({sql}) IS NOT NULL" for sql in (*keys.values(), kept.vcenter_id))
    return Sheet(
        "aws-import",
        {name: filled.get(name, "NULL") for name in order},
        {"one of ExternalId, IPAddress, MACAddress, HostName": one_of},
        {
            "an application's name has a comma, which AWS reads as two": (
                f"coalesce(len(list_filter({applications}, lambda part: contains(part, ','))), 0) "
                "= 0"
            )
        },
    )


def azure(facts: Facts, disks: str | None, most_disks: int) -> Sheet:
    """The CSV import of Azure Migrate: memory in MB, disk sizes in GB.

    `disks` is SQL for the list of a server's disk sizes where the source has them; `most_disks`
    is the length of the longest. Expects the table `azure_systems` (os_name, os_version,
    assessed, written).
    """
    c = facts.column
    known = f"len({disks}) > 0" if disks else "false"
    total = c("storage_gb")
    columns = {
        "Server name": _unique_name(f"coalesce({c('fqdn')}, a.name)"),
        "IP address": f"{_reachable(facts)}[1]",
        "Cores": c("cpu_cores"),
        "Memory": f"try_cast(round({c('memory_gb')} * 1024) AS BIGINT)",
        "OS name": _azure_system(facts, "written"),
        "OS version": c("os_version"),
        "OS architecture": _architecture(c("os_architecture", "NULL::VARCHAR")),
        "Number of disks": c("disk_count"),
    }
    for number in range(1, max(1, min(most_disks, AZURE_DISKS)) + 1):
        one = f"({disks})[{number}]" if disks else "NULL"
        size = f"CASE WHEN {known} THEN {one} ELSE {total} END" if number == 1 else one
        columns[f"Disk {number} size"] = size
        for measure in ("read ops", "write ops", "read throughput", "write throughput"):
            columns[f"Disk {number} {measure}"] = "NULL"
    columns |= {
        "CPU utilization percentage": c("cpu_utilization_avg"),
        "Memory utilization percentage": c("memory_utilization_avg"),
        "Total disks read ops": c("disk_read_iops"),
        "Total disks write ops": c("disk_write_iops"),
        "Total disks read throughput": c("disk_read_throughput"),
        "Total disks write throughput": c("disk_write_throughput"),
        "Network In throughput": c("network_in_throughput"),
        "Network Out throughput": c("network_out_throughput"),
        "Firmware type": _firmware(c("firmware_type", "NULL::VARCHAR")),
        "MAC address": _joined(facts, "mac_address", ";"),
    }
    required = ("Server name", "Cores", "Memory", "OS name")
    several = f"coalesce(try_cast({c('disk_count')} AS INTEGER), 1) > 1 AND {total} IS NOT NULL"
    warns = {
        "Azure Migrate does not assess this OS name (Unknown OS)": (
            f"{_azure_system(facts, 'assessed')} IS NOT NULL"
        ),
        "only the total size of several disks is known; it stands in Disk 1": (
            f"{known} OR NOT ({several})"
        ),
    }
    if disks:
        warns[f"more than {AZURE_DISKS} disks; the first {AZURE_DISKS} are in the file"] = (
            f"coalesce(len({disks}), 0) <= {AZURE_DISKS}"
        )
    return Sheet(
        "azure-migrate",
        columns,
        {name: f"({columns[name]}) IS NOT NULL" for name in required},
        warns,
        AZURE_SERVERS,
    )


def _azure_system(facts: Facts, column: str) -> str:
    name, version = facts.column("os_name"), facts.column("os_version")
    return (
        f"(SELECT any_value(s.{column}) FROM azure_systems AS s "  # noqa: S608 - quoted
        f"WHERE s.os_name = {name} AND s.os_version IS NOT DISTINCT FROM {version})"
    )


def _architecture(text: str) -> str:
    """One of the values that Azure Migrate takes: x64, x86."""
    return (
        f"CASE WHEN regexp_matches(lower({text}), '64') THEN 'x64' "
        f"WHEN regexp_matches(lower({text}), '32|86|386') THEN 'x86' END"
    )


def _firmware(text: str) -> str:
    """BIOS or UEFI."""
    return (
        f"CASE WHEN regexp_matches(lower({text}), 'efi') THEN 'UEFI' "
        f"WHEN regexp_matches(lower({text}), 'bios') THEN 'BIOS' END"
    )


def google(facts: Facts) -> Sheet:
    """The table vmInfo of Google Migration Center; what its list does not call optional is needed.

    Used disk space and whether a machine is physical are seldom known: they are warned about.
    """
    c = facts.column
    columns = {
        "MachineId": "a.identity",
        "MachineName": "a.name",
        "PrimaryIPAddress": f"{_reachable(facts)}[1]",
        "PrimaryMACAddress": _first(facts, "mac_address"),
        "PublicIPAddress": "NULL",
        "IpAddressListSemiColonDelimited": _joined(facts, "ip_address", ";"),
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
        "IsPhysical": f"NOT {facts.kept.is_virtual}",
    }
    required = (
        "MachineName", "TotalDiskAllocatedGiB", "AllocatedProcessorCoreCount", "MemoryGiB",
        "OsName",
    )  # fmt: skip
    return Sheet(
        "google-import",
        columns,
        {name: f"({columns[name]}) IS NOT NULL" for name in required},
        {
            f"{name} is not known": f"({columns[name]}) IS NOT NULL"
            for name in ("TotalDiskUsedGiB", "IsPhysical")
        },
    )


def google_tables(facts: Facts, taken: str, disks: str | None) -> dict[str, str]:
    """The queries of vmInfo, diskInfo and tagInfo, for servers that meet the condition `taken`."""
    c = facts.column
    servers = f"{_SERVERS} AND {taken}"
    whole = (
        "SELECT a.identity AS identity, 'all disks' AS label, "
        f"{c('storage_gb')} AS size, {c('storage_used_gb')} AS used, "
        f"{c('storage_type')} AS kind {servers} AND {c('storage_gb')} IS NOT NULL"
    )
    if disks:
        whole += f" AND NOT coalesce(len({disks}) > 0, false)"
        each = (
            "SELECT identity, 'disk ' || generate_subscripts(sizes, 1) AS label, "  # noqa: S608 - ours
            f"unnest(sizes) AS size, NULL AS used, kind FROM (SELECT a.identity AS identity, "
            f"{disks} AS sizes, {c('storage_type')} AS kind {servers})"
        )
        whole = f"{each} UNION ALL {whole}"
    return {
        "vmInfo": f"SELECT {google(facts).selected} {servers} ORDER BY a.identity",
        "diskInfo": (
            'SELECT identity AS "MachineId", label AS "DiskLabel", size AS "SizeInGib", '  # noqa: S608 - ours
            f'used AS "UsedInGib", kind AS "StorageTypeLabel" FROM ({whole}) ORDER BY 1, 2'
        ),
        "tagInfo": label_query(servers),
    }
