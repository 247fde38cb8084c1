"""Exports of well-known tools, recognised by their headers.

Sources of the headers, all looked up in 2026:
- RVTools: workbook in kubev2v/migration-planner (test/e2e/data), sbroenne/RvToolsMerge
  (docs/ColumnMappings.md); text exports are called `RVTools_tabvInfo.csv` and so on.
- AWS Application Discovery Service import template: user guide, "Import data into Migration Hub".
  Agents' export (`…_osInfo.csv` …): user guide, "Exporting collected data".
- Azure Migrate: "Tutorial: assess servers using an imported CSV file".
- Google Migration Center: "Import data from manual tables" (vmInfo, diskInfo, perfInfo, tagInfo).
- ServiceNow: attributes of class cmdb_ci (list exports have field names or their labels).
- Konveyor: tackle2-ui, template of its application import.
- AWS Cloud Migration Factory: intake form of its implementation guide.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

Role = Literal["main", "child", "series", "tags", "other"]


@dataclass(frozen=True)
class Preset:
    """A kind of table: `all_of` has to be in the header, and `enough` columns of `any_of`.

    Where `tables` is given, file or sheet have to be called so. `keys` name the ways to the main
    table of the same tool, best first; `lookup` says that each of its rows is about several of that
    table. `sums` are columns of sizes that add up.
    """

    tool: str
    table: str
    all_of: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()
    enough: int = 0
    tables: tuple[str, ...] = ()
    role: Role = "main"
    keys: tuple[tuple[str, ...], ...] = ()
    sums: tuple[str, ...] = ()
    lookup: bool = False
    ragged: bool = False

    @property
    def title(self) -> str:
        """What people call it."""
        return f"{self.tool} {self.table}".strip()


RVTOOLS = "RVTools"
# a virtual machine's id is of one vCenter; its UUID is there again where it was copied
_VM_KEYS = (
    ("VI SDK UUID", "VM ID"),
    ("VI SDK Server", "VM ID"),
    ("VM UUID",),
    ("VM UUID", "VM"),
    ("VM UUID", "VM", "Host"),
    ("VM ID", "VM"),
    ("VM", "Host", "Cluster"),
    ("VM", "Host"),
    ("VM",),
)
# two rows that differ in one of these are about different virtual machines
CERTAIN_COLUMNS = frozenset({"vm uuid", "vm id", "vi sdk uuid"})
_VM_TABLES = ("vCPU", "vMemory", "vNetwork", "vCD", "vFloppy", "vUSB", "vSnapshot", "vTools")
_ADS_TABLES: tuple[tuple[str, Role], ...] = (
    ("networkInterface", "child"),
    ("process", "child"),
    ("VMwareInfo", "child"),
    ("systemPerformance", "series"),
    ("Tags", "tags"),
    ("sourceProcessConnection", "other"),
    ("destinationProcessConnection", "other"),
)
_GOOGLE = "Google Migration Center"
_ADS = "AWS Application Discovery Service"

PRESETS: tuple[Preset, ...] = (
    Preset(RVTOOLS, "vInfo", ("VM", "Powerstate"),
           ("CPUs", "Memory", "NICs", "Disks", "VM UUID", "DNS Name", "Guest state",
            "Primary IP Address"), 3),
    Preset(RVTOOLS, "vInfo", ("VM",), tables=("vInfo",)),
    Preset(RVTOOLS, "vDisk", ("VM", "Disk"), tables=("vDisk",), role="child", keys=_VM_KEYS,
           sums=("Capacity MiB", "Capacity MB")),
    Preset(RVTOOLS, "vPartition", ("VM", "Disk"), tables=("vPartition",), role="child",
           keys=_VM_KEYS, sums=("Capacity MiB", "Consumed MiB", "Capacity MB", "Consumed MB")),
    *(Preset(RVTOOLS, name, ("VM",), tables=(name,), role="child", keys=_VM_KEYS)
      for name in _VM_TABLES),
    Preset(RVTOOLS, "vHost", ("Host",), ("CPU Model", "# Cores", "# CPU", "ESX Version"), 2,
           ("vHost",), "child", (("Host",),), lookup=True),
    Preset(_GOOGLE, "vmInfo", ("MachineId", "MachineName"),
           ("MemoryGiB", "AllocatedProcessorCoreCount", "OsName", "TotalDiskAllocatedGiB"), 2),
    Preset(_GOOGLE, "diskInfo", ("MachineId", "DiskLabel", "SizeInGib"), role="child",
           keys=(("MachineId",),), sums=("SizeInGib", "UsedInGib")),
    Preset(_GOOGLE, "perfInfo", ("MachineId", "TimeStamp", "CpuUtilizationPercentage"),
           role="series", keys=(("MachineId",),)),
    Preset(_GOOGLE, "tagInfo", ("MachineId", "Key", "Value"), role="tags",
           keys=(("MachineId",),)),
    Preset(_ADS, "osInfo", ("agentId", "hostName", "osName")),
    Preset(_ADS, "Server", (), ("serverId", "configurationId", "hostName", "osName"), 2,
           ("Server",)),
    *(Preset(_ADS, name, (), ("agentId", "serverId", "configurationId"), 1, (name,), role,
             (("agentId",), ("serverId",), ("configurationId",)))
      for name, role in _ADS_TABLES),
    Preset(_ADS, "import", (),
           ("ExternalId", "SMBiosId", "HostName", "IPAddress", "MACAddress", "VMware.MoRefId",
            "VMware.VCenterId", "CPU.NumberOfProcessors", "CPU.NumberOfCores",
            "CPU.NumberOfLogicalCores", "OS.Name", "OS.Version", "VMware.VMName",
            "RAM.TotalSizeInMB", "RAM.UsedSizeInMB.Avg", "CPU.UsagePct.Avg", "ApplicationWave"),
           5),
    Preset("Azure Migrate", "import", ("Server name", "Cores", "OS name"),
           ("Memory", "Memory (In MB)", "Number of disks", "Disk 1 size", "Disk 1 size (In GB)",
            "OS version", "OS architecture", "Firmware type", "CPU utilization percentage"), 1),
    Preset("ServiceNow", "cmdb_ci", ("name", "sys_class_name"),
           ("sys_id", "install_status", "operational_status", "asset_tag", "serial_number",
            "u_environment", "support_group", "discovery_source"), 1),
    Preset("ServiceNow", "cmdb_ci", ("Name", "Class"),
           ("Install Status", "Operational status", "Asset tag", "Discovery source",
            "Most recent discovery", "Correlation ID", "Support group", "Change Group"), 3),
    Preset("Konveyor", "application import", ("Record Type 1", "Application Name"), ragged=True),
    Preset("AWS Cloud Migration Factory", "intake", ("app_name", "server_name"),
           ("wave_id", "wave_name", "aws_accountid", "aws_region", "server_os_family",
            "server_fqdn", "server_tier", "r_type", "server_environment"), 4),
)  # fmt: skip

# Main tables known well enough to find their header below a title.
_CERTAIN = tuple(preset for preset in PRESETS if preset.role == "main" and not preset.tables)
_OPTIONAL = re.compile(r" ?\(optional\)$", re.IGNORECASE)


def column_key(name: str) -> str:
    """A header for comparison: without case, spaces around it and marks of what is required.

    Google's template writes `(optional)` behind a header, Azure's a `*` before it.
    """
    return _OPTIONAL.sub("", " ".join(name.replace("\ufeff", "").split())).strip("* ").lower()


def table_name(source: str) -> str:
    """A table's name from that of its file or sheet: `x/RVTools_tabvDisk.csv` is `vDisk`."""
    stem = re.sub(r"\.(csv|tsv|txt|json|ndjson|jsonl|xlsx|xlsm)$", "",
                  PurePosixPath(source.replace("\\", "/")).name, flags=re.IGNORECASE)  # fmt: skip
    stem = re.sub(r"^.*(?=(?:^|_)tabv)", "", stem).lstrip("_")
    stem = re.sub(r"^tab(?=(dv|v)[A-Z])", "", stem)
    known = {name.lower(): name for preset in PRESETS for name in (*preset.tables, preset.table)}
    return known.get(stem.lower(), known.get(stem.rpartition("_")[2].lower(), stem))


def recognise(columns: Sequence[str], table: str = "") -> Preset | None:
    """The kind of table that this header belongs to. `table` is a result of `table_name`."""
    names = {column_key(name) for name in columns}
    return next((preset for preset in PRESETS if _fits(preset, names, table)), None)


def _fits(preset: Preset, names: set[str], table: str) -> bool:
    # a sheet vCPU has much of what vInfo has, so a name that is taken rules other tables out
    if table not in preset.tables and (preset.tables or table in _NAMED - {preset.table}):
        return False
    if not all(column_key(name) in names for name in preset.all_of):
        return False
    return sum(1 for name in preset.any_of if column_key(name) in names) >= preset.enough


_NAMED = frozenset(name for preset in PRESETS for name in preset.tables)


def is_header_of_preset(cells: Sequence[str]) -> bool:
    """Whether a row is the header of a well-known export, wherever it stands."""
    names = {column_key(cell) for cell in cells if cell.strip()}
    return len(names) > 2 and any(_fits(preset, names, "") for preset in _CERTAIN)


def recognised_finding(preset: Preset) -> str:
    """What to tell people."""
    export = "" if preset.table == "import" else " export"
    return f"Recognised: {preset.title}{export}."
