"""What a column's values look like: kinds of values, from patterns over all rows and from samples.

A kind is a word such as `ip` or `os`; the target schema says which kinds fit a field. Kinds that
cannot belong to a field (an operating system as a host name) veto it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from discovery_core.wire import ColumnProfile

from .tokens import plain

_MISSING = {"", "-", "n/a", "na", "none", "null", "unknown", "tbd", "?", "n.a.", "#n/a"}

# Words that give a kind away. Texts are compared in plain lower case.
_VOCABULARY: dict[str, frozenset[str]] = {
    kind: frozenset(words.split("|"))
    for kind, words in {
        "environment": "prod|production|prd|dev|development|test|tst|uat|qa|staging|stage|stg|"
        "sandbox|preprod|pre-production|pre-prod|non-prod|nonprod|dr|int|integration|training|"
        "lab|poc|produktion|produktiv|entwicklung|abnahme|schulung|developpement|recette|"
        "preproduction|produccion|desarrollo|pruebas|preproduccion|producao|desenvolvimento|"
        "homologacao|teste|hml|acceptance|sit|live",
        "power": "on|off|poweredon|poweredoff|powered on|powered off|running|stopped|suspended|"
        "up|down|power on|power off|vm running|vm deallocated|deallocated|terminated|"
        "eingeschaltet|ausgeschaltet|an|aus|allume|eteint|encendido|apagado|ligado|desligado|"
        "started|halted|shut off|shutoff",
        "boolean": "true|false|yes|no|y|n|0|1|ja|nein|j|oui|non|o|si|sim|nao|t|f|wahr|falsch|"
        "vrai|faux|verdadero|falso|verdadeiro|enabled|disabled",
        "virtual": "virtual|physical|vm|phys|p|v|virtuell|physisch|physikalisch|virtuel|physique|"
        "fisico|bare metal|baremetal|virtual machine|physical server",
        "criticality": "critical|high|medium|low|tier 1|tier 2|tier 3|tier 4|tier1|tier2|tier3|"
        "p1|p2|p3|p4|mission critical|business critical|business operational|gold|silver|bronze|"
        "platinum|very high|normal|moderate|essential|kritisch|hoch|mittel|niedrig|gering|"
        "critique|eleve|elevee|haute|moyenne|moyen|faible|basse|alta|media|baja|critica|critico|"
        "baixa|1 - most critical|2 - somewhat critical|3 - less critical|4 - not critical",
        "lifecycle": "active|retired|in use|operational|decommissioned|installed|in stock|"
        "deployed|planned|obsolete|maintenance|disposed|in maintenance|end of life|inactive|"
        "live|non-operational|production use|pending install|aktiv|in betrieb|ausser betrieb|"
        "stillgelegt|ausgemustert|geplant|actif|en service|hors service|retire|en production|"
        "activo|inactivo|en uso|retirado|baja|de baja|ativo|inativo|em uso|desativado|em producao|"
        "powered off|in service|spare|implementation|obsolet|inaktiv",
        "tier": "web|app|db|database|application|frontend|front-end|backend|back-end|"
        "presentation|data|middleware|cache|proxy|load balancer|web server|app server|"
        "application server|database server|file server|mail server|dns|domain controller|"
        "print server|webserver|datenbank|anwendung|base de donnees|base de datos|"
        "banco de dados|aplicacion|aplicacao|file|mail|messaging|batch|monitoring|edge|api|"
        "datenbankserver|anwendungsserver|dateiserver",
        "asset_class": "server|database|application|network|storage|virtual machine|vm|"
        "physical server|workstation|laptop|desktop|switch|router|firewall|load balancer|"
        "printer|appliance|linux server|windows server|unix server|computer|esx server|"
        "virtual server|cmdb_ci_server|cmdb_ci_linux_server|cmdb_ci_win_server|"
        "cmdb_ci_vm_instance|container|cluster|hypervisor|datenbank|anwendung|serveur|"
        "machine virtuelle|servidor|maquina virtual|physischer server|virtueller server|"
        "serveur physique|serveur virtuel|servidor fisico|servidor virtual|netzwerk|san|nas",
        "strategy": "rehost|replatform|refactor|repurchase|retire|retain|relocate|rearchitect|"
        "lift and shift|lift & shift|rebuild|replace|revisit|rehosting|replatforming",
        "architecture": "x86_64|x64|x86|amd64|arm64|aarch64|i386|i686|ppc64le|ppc64|sparc|"
        "64-bit|32-bit|64 bit|32 bit|64bit|32bit|64|32|ia64|s390x|power",
        "firmware": "bios|uefi|efi|legacy|legacy bios|efi secure boot",
        "storage_kind": "ssd|hdd|sas|sata|nvme|san|nas|local|thin|thick|gp2|gp3|io1|st1|premium|"
        "standard|flash|nfs|vmfs|iscsi|fc|premium ssd|standard ssd|thin provisioned|"
        "eager zeroed thick|lazy zeroed thick|fast|slow|vsan|nl-sas|tier 0|premium_lrs|"
        "standard_lrs",
        "backup": "daily|weekly|monthly|none|full|incremental|veeam|commvault|netbackup|"
        "daily full|nightly|taeglich|woechentlich|monatlich|quotidien|quotidienne|hebdomadaire|"
        "mensuel|diario|semanal|mensual|diaria|mensal|rubrik|avamar|tsm|networker",
        "compliance": "pci|pci-dss|pci dss|sox|hipaa|gdpr|dsgvo|rgpd|lgpd|iso27001|iso 27001|"
        "fedramp|nist|internal|confidential|public|restricted|secret|soc2|soc 2|bafin|kritis|"
        "vertraulich|intern|oeffentlich|confidentiel|interne|confidencial|interno|ens",
        "exposure": "internal|external|dmz|internet|public|private|intranet|extern|intern",
        "dr": "dr1|dr2|dr3|hot|warm|cold|active-active|active-passive|tier 0|class a|class b|"
        "class c|rto 4h|rto 24h|4h|24h|72h|ha|no dr|klasse 1|klasse 2|klasse 3",
    }.items()
}
_VENDORS = frozenset(
    [
        "dell",
        "hp",
        "hpe",
        "hewlett packard",
        "hewlett-packard",
        "ibm",
        "lenovo",
        "cisco",
        "vmware",
        "fujitsu",
        "supermicro",
        "oracle",
        "huawei",
        "netapp",
        "emc",
        "dell emc",
        "juniper",
        "microsoft",
        "nutanix",
        "sun",
        "hitachi",
        "bull",
        "nec",
        "dell inc.",
        "vmware, inc.",
        "hewlett packard enterprise",
        "microsoft corporation",
        "intel",
        "acer",
        "apple",
        "arista",
        "f5",
        "fortinet",
        "palo alto",
        "qemu",
        "xen",
        "amazon ec2",
        "google",
        "inspur",
        "quanta",
        "apc",
        "red hat",
        "citrix",
        "hp inc.",
        "cisco systems",
        "cisco systems inc",
        "fujitsu siemens",
    ]
)
_MODELS = re.compile(
    r"\b(poweredge|proliant|thinksystem|ucs|primergy|vmware virtual platform|system x|blade|"
    r"optiplex|latitude|catalyst|nexus|powervault|fusionserver|dl\d{3}|bl\d{3}|r[2-9]\d0|"
    r"x3[0-9]{3}|virtual machine|vmware7|power s\d|synergy|superdome|simplivity)\b"
)
_OS = re.compile(
    r"\b(windows|linux|ubuntu|debian|centos|red ?hat|rhel|suse|sles|aix|solaris|hp-?ux|freebsd|"
    r"oracle linux|rocky|alma ?linux|amazon linux|photon|esxi?|macos|mac os|ios xe|nx-os|"
    r"fedora|cos|flatcar|z/?os|os/400|ibm i|netware|unix|win ?(10|11|2k|20\d\d)|"
    r"w(in)?2k(3|8|12|16|19|22)?|sunos|other linux|microsoft windows)\b"
)
_DATABASE = re.compile(
    r"\b(oracle( database)? ?\d*|sql server|mssql|mysql|postgres(ql)?|mariadb|db2|mongodb|"
    r"sybase|redis|cassandra|hana|teradata|informix|elasticsearch|dynamodb|couchbase|ms sql)\b"
)
_REGION = re.compile(
    r"^([a-z]{2}-(gov-)?[a-z]+-\d|[a-z]+-[a-z]+\d|(east|west|north|south|central)[ -]?us ?\d?|"
    r"(north|west) ?europe|uk ?(south|west)|eastus2?|westus[23]?|emea|apac|amer|latam|na|eu|"
    r"asia ?pacific|europe|americas|asia|nord|sud|sued|ost|west|north|south|east|"
    r"germany ?west ?central|france ?central|southeast ?asia|dach|mea|amers|noram|iberia)$"
)
_PERSON = re.compile(r"^[A-ZÀ-Ý][\w'\u2019.-]+,? [A-ZÀ-Ý][\w'\u2019.-]+( [A-ZÀ-Ý][\w'\u2019.-]+)?$")
_WAVE = re.compile(r"^(wave|welle|vague|ola|onda|lot|batch|mg|move group|w|phase)[ _-]?\d{1,3}$")
_SERIAL = re.compile(r"^(?=.*\d)(?=.*[A-Za-z])[A-Za-z0-9-]{6,30}$")
_VMWARE_SERIAL = re.compile(r"^VMware-[0-9a-f]{2} ")
_CODE = re.compile(r"^[A-Za-z]{0,6}[-_]?\d{2,}[A-Za-z0-9_-]*$")
_CIDR = re.compile(
    r"^\d+\.\d+\.\d+\.\d+/\d{1,2}$|^255\.\d+\.\d+\.\d+$|^vlan[ _-]?\d+", re.IGNORECASE
)
_HOSTNAME = re.compile(
    r"^[A-Za-z][A-Za-z0-9]*([-_][A-Za-z0-9]+)*\d+[A-Za-z0-9-_]*$|^[a-z]+-[a-z0-9-]+$"
)
_KEY_VALUE = re.compile(r"\w+\s*[=:]\s*\w+([;,|]\s*\w+\s*[=:]\s*\w+)*")
_SAMPLE_SHARE = 0.6


def kinds_of(profile: ColumnProfile) -> dict[str, float]:
    """Kinds with the share of values (0 to 1) that are of that kind."""
    kinds: dict[str, float] = {}
    if profile.filled:
        for pattern, kind in _FROM_PATTERN.items():
            share = min(1.0, profile.patterns.get(pattern, 0) / profile.filled)
            if share > 0.3:
                kinds[kind] = max(kinds.get(kind, 0.0), share)
    samples = [s.strip() for s in profile.samples if plain(s.strip()) not in _MISSING]
    if samples:
        for kind, share in _sampled(samples).items():
            kinds[kind] = max(kinds.get(kind, 0.0), share)
        _add_numbers(kinds, profile, samples)
        if "text" not in kinds and sum(len(s.split()) for s in samples) / len(samples) >= 4:
            kinds["text"] = 1.0
    if _identifies(profile):
        kinds["unique"] = 1.0
    return kinds


_FROM_PATTERN = {
    "ipv4": "ip", "ipv6": "ip", "mac": "mac", "uuid": "uuid", "fqdn": "fqdn",
    "hostname": "hostname", "email": "email", "date": "date", "datetime": "date",
    "percent": "percent", "size": "size", "os": "os", "version": "version",
    "boolean": "boolean", "key_value": "key_value", "url": "url",
}  # fmt: skip


def _identifies(profile: ColumnProfile) -> bool:
    return profile.filled >= 5 and profile.distinct >= 0.97 * profile.filled


def _share(samples: list[str], test: Callable[[str], object]) -> float:
    return sum(1 for sample in samples if test(sample)) / len(samples)


def _sampled(samples: list[str]) -> dict[str, float]:
    """Kinds told from samples alone."""
    lowered = [plain(sample).strip(" .") for sample in samples]
    found: dict[str, float] = {}
    for kind, words in _VOCABULARY.items():
        found[kind] = _share(lowered, words.__contains__)
    found["vendor"] = _share(lowered, _VENDORS.__contains__)
    found["os"] = _share(lowered, _OS.search)
    found["database"] = _share(lowered, _DATABASE.search)
    found["model"] = _share(lowered, _MODELS.search)
    found["region"] = _share(lowered, _REGION.match)
    found["wave"] = _share(lowered, _WAVE.match)
    found["cidr"] = _share(samples, _CIDR.match)
    found["person"] = _share(samples, _PERSON.match)
    found["serial"] = max(_share(samples, _SERIAL.match), _share(samples, _VMWARE_SERIAL.match))
    found["code"] = _share(samples, _CODE.match)
    found["key_value"] = _share(samples, _KEY_VALUE.fullmatch)
    found["hostname"] = _share(samples, _HOSTNAME.match)
    found["name"] = _share(lowered, lambda text: any(ch.isalpha() for ch in text)) * 0.6
    return {kind: share for kind, share in found.items() if share >= _SAMPLE_SHARE - 0.05}


def _add_numbers(kinds: dict[str, float], profile: ColumnProfile, samples: list[str]) -> None:
    numbers = [number for number in map(_number, samples) if number is not None]
    if len(numbers) < 0.8 * len(samples):
        return
    largest = max([*numbers, _number(profile.maximum or "") or 0.0])
    kinds["number"] = 1.0
    kinds.pop("hostname", None)
    kinds.pop("name", None)
    if all(number == int(number) for number in numbers):
        kinds["integer"] = 1.0
        if largest <= 512:
            kinds["small_integer"] = 1.0
        elif largest >= 800:
            kinds["large_integer"] = 1.0
    if min(numbers) >= 0 and largest <= 100 and any(number != int(number) for number in numbers):
        kinds["percent"] = max(kinds.get("percent", 0.0), 0.7)


def _number(text: str) -> float | None:
    try:
        return float(text.replace(" ", "").replace(",", ".").rstrip("%"))
    except ValueError:
        return None


# Kinds that cannot be values of a field, by the field's own first kind or type.
_VETO: dict[str, frozenset[str]] = {
    "hostname": frozenset({"os", "date", "percent", "size", "email", "boolean", "environment",
                           "power", "criticality", "number", "mac", "uuid", "person"}),
    "fqdn": frozenset({"os", "date", "number", "email", "boolean", "environment", "power", "mac"}),
    "ip": frozenset({"os", "date", "boolean", "environment", "power", "mac", "email", "size"}),
    "mac": frozenset({"ip", "os", "date", "number", "boolean", "environment"}),
    "os": frozenset({"ip", "mac", "date", "number", "boolean", "email", "uuid", "environment"}),
    "environment": frozenset({"ip", "mac", "os", "date", "email", "uuid", "number", "fqdn"}),
    "date": frozenset({"ip", "mac", "os", "email", "uuid", "environment", "power", "size"}),
    "power": frozenset({"ip", "mac", "os", "date", "email", "uuid", "number", "fqdn"}),
    "email": frozenset({"ip", "mac", "os", "date", "number", "size", "uuid", "boolean"}),
    "asset_class": frozenset({"ip", "mac", "date", "email", "uuid", "number"}),
}  # fmt: skip
_NUMERIC_KINDS = frozenset({"number", "size", "percent", "frequency", "small_integer"})


def fit(field_kinds: tuple[str, ...], field_type: str, kinds: dict[str, float]) -> float:
    """How well values fit a field: 1 the best, 0 nothing known, -1 impossible."""
    if not kinds:
        return 0.0
    first = field_kinds[0] if field_kinds else ""
    if any(kinds.get(kind, 0.0) >= _SAMPLE_SHARE for kind in _VETO.get(first, ())):
        own = max((kinds.get(kind, 0.0) for kind in field_kinds[:1]), default=0.0)
        if own < _SAMPLE_SHARE:
            return -1.0
    if field_type in ("integer", "number") and not _NUMERIC_KINDS & kinds.keys():
        return -1.0
    if field_type == "date" and "date" not in kinds:
        return -0.8
    if field_type == "boolean" and not {"boolean", "virtual"} & kinds.keys():
        return -0.5
    best = 0.0
    for rank, kind in enumerate(field_kinds):
        best = max(best, kinds.get(kind, 0.0) * (1.0 - 0.15 * rank))
    if best == 0.0 and first in _VOCABULARY:
        return -0.35
    if best == 0.0 and field_type in ("string", "list") and kinds.keys() & _NUMERIC_KINDS:
        return -0.3
    return best


def allowed(values: tuple[str, ...], samples: Iterable[str]) -> float:
    """Share of samples that are among a field's allowed values; 0 where it has none."""
    known = {plain(value) for value in values}
    listed = [plain(sample.strip()) for sample in samples]
    return sum(1 for s in listed if s in known) / len(listed) if known and listed else 0.0
