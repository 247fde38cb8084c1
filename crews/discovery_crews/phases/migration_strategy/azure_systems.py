"""Operating system names that Azure Migrate assesses, and ours as one of them.

Source: Microsoft Learn, "Assess servers using an imported CSV file", list "Supported operating
system names" (page of 2020-09-14). A name has to be in that list or contain one of it; a server
with any other is imported, but its readiness stays "Unknown OS".
"""

from __future__ import annotations

import re
from functools import lru_cache

from discovery_crews.systems import System, system_of

NAMES = (
    "Apple Mac OS X 10", "Asianux 3", "Asianux 4", "Asianux 5", "CentOS", "CoreOS Linux",
    *(f"Debian GNU/Linux {n}" for n in range(4, 9)), "FreeBSD", "IBM OS/2", "MS-DOS",
    "Novell NetWare 5", "Novell NetWare 6", "Oracle Linux", "Oracle Solaris 10",
    "Oracle Solaris 11", *(f"Red Hat Enterprise Linux {n}" for n in range(2, 8)),
    "Red Hat Fedora", "SCO OpenServer 5", "SCO OpenServer 6", "SCO UnixWare 7",
    "Serenity Systems eComStation", "Sun Microsystems Solaris 8", "Sun Microsystems Solaris 9",
    "SUSE Linux Enterprise 10", "SUSE Linux Enterprise 11", "SUSE Linux Enterprise 12",
    "SUSE Linux Enterprise 8/9", "SUSE openSUSE", "Ubuntu Linux", "VMware ESXi 4",
    "VMware ESXi 5", "VMware ESXi 6", "Windows 10", "Windows 2000", "Windows 3", "Windows 7",
    "Windows 8", "Windows 95", "Windows 98", "Windows NT", "Windows Server (R) 2008",
    "Windows Server 2003", "Windows Server 2008", "Windows Server 2008 R2", "Windows Server 2012",
    "Windows Server 2012 R2", "Windows Server 2016", "Windows Server 2019",
    "Windows Server Threshold", "Windows Vista", "Windows Web Server 2008 R2",
    "Windows XP Professional",
)  # fmt: skip
_FOLDED = {name.lower(): name for name in NAMES}
# by product of our catalogue; {v} is its version, {major} that before the first dot
_SPELLINGS = {
    "windows-server": "Windows Server {v}", "windows": "Windows {v}", "centos": "CentOS",
    "centos-stream": "CentOS", "debian": "Debian GNU/Linux {major}", "freebsd": "FreeBSD",
    "oracle-linux": "Oracle Linux", "solaris": "Oracle Solaris {major}",
    "rhel": "Red Hat Enterprise Linux {major}", "fedora": "Red Hat Fedora",
    "sles": "SUSE Linux Enterprise {major}", "ubuntu": "Ubuntu Linux",
    "esxi": "VMware ESXi {major}",
}  # fmt: skip
_ALSO = {
    "windows server 2000": "Windows 2000", "windows server 2003 r2": "Windows Server 2003",
    "windows xp": "Windows XP Professional", "windows 8.1": "Windows 8",
    "oracle solaris 8": "Sun Microsystems Solaris 8",
    "oracle solaris 9": "Sun Microsystems Solaris 9",
}  # fmt: skip


_DIGITS = re.compile(r"\d")
_BITS = re.compile(r"\d\d[- ]?bit|x86|x64")


@lru_cache(maxsize=50_000)
def assessed_name(name: str, version: str | None = None) -> str | None:
    """What to write for an operating system so that it is assessed; None where nothing fits."""
    folded = " ".join(name.lower().split())
    claims_none = without_version(name) is not None
    if not claims_none and any(known in folded for known in _FOLDED):
        return name.strip()
    for text in (name, f"{name} {version}" if version and not claims_none else name):
        system = system_of(text, "os")
        if system is not None and (found := _spelled(system)) is not None:
            return found
    return None


@lru_cache(maxsize=50_000)
def without_version(name: str) -> str | None:
    """The product of a name that fits several versions, which Azure would take for one of them.

    None for any other name.
    """
    system = system_of(name, "os")
    if system is None or system.version is not None or system.product == "linux":
        return None
    return system.label if _DIGITS.search(_BITS.sub(" ", name)) else None


def _spelled(system: System) -> str | None:
    pattern = _SPELLINGS.get(system.product)
    if pattern is None or ("{" in pattern and system.version is None):
        return None
    version = system.version or ""
    spelled = pattern.format(v=version, major=version.split(".")[0]).lower()
    return _FOLDED.get(spelled) or _ALSO.get(spelled)
