"""What a column's values look like: kinds of values, from patterns over all rows and from samples.

A kind is a word such as `ip` or `os`. The built-in schema says which kinds fit a field; kinds
that cannot belong to a field veto it, whatever the header says.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from functools import lru_cache

from discovery_core.wire.results import ColumnProfile

from discovery_crews.tables.numbers import number_of
from discovery_crews.tables.units import FREQUENCY_WORDS, RATE_WORDS, SIZE_WORDS

from . import vocabulary
from .tokens import plain

# How surely a kind tells what the column is, when the header says nothing.
TELLING = {
    "mac": 0.97, "ip": 0.95, "os": 0.95, "strategy": 0.95, "firmware": 0.93, "environment": 0.92,
    "power": 0.88, "architecture": 0.88, "vendor": 0.88, "model": 0.86, "fqdn": 0.86,
    "database": 0.85, "wave": 0.9, "cidr": 0.85, "frequency": 0.9, "uuid": 0.82, "email": 0.8,
    "vmware_serial": 0.9, "virtual": 0.85, "lifecycle": 0.78, "criticality": 0.78,
    "asset_class": 0.78, "tier": 0.76, "storage_kind": 0.8, "backup": 0.72, "key_value": 0.82,
    "hostname": 0.72, "person": 0.62, "place": 0.78, "region": 0.82, "compliance": 0.78,
    "serial": 0.62, "exposure": 0.6, "dr": 0.6, "text": 0.72, "size": 0.66, "disk_size": 0.72,
    "percent": 0.6, "date": 0.6, "future_date": 0.62, "cores": 0.62, "memory_mb": 0.64,
    "rate": 0.55, "disk_number": 0.5, "boolean": 0.45, "version": 0.45, "code": 0.42, "name": 0.3,
    "small_integer": 0.3, "large_integer": 0.25, "number": 0.2,
}  # fmt: skip

# Values of these kinds contradict a field that does not take them, by so much.
CONTRADICTS = {
    "mac": 0.97, "ip": 0.95, "os": 0.9, "uuid": 0.85, "email": 0.85, "fqdn": 0.7, "date": 0.95,
    "strategy": 0.9, "environment": 0.85, "power": 0.75, "firmware": 0.85, "architecture": 0.85,
    "vendor": 0.7, "model": 0.55, "database": 0.6, "cidr": 0.8, "size": 0.9, "percent": 0.9,
    "frequency": 0.95, "rate": 0.9, "number": 0.6, "boolean": 0.7, "lifecycle": 0.55,
    "criticality": 0.55, "asset_class": 0.5, "tier": 0.5, "virtual": 0.7, "storage_kind": 0.55,
    "wave": 0.8, "text": 0.4, "person": 0.2, "key_value": 0.6, "place": 0.5, "region": 0.55,
    "url": 0.8, "path": 0.9, "phone": 0.8, "vmware_serial": 0.8, "hostname": 0.25,
    "compliance": 0.5, "duration": 0.8,
}  # fmt: skip

ENOUGH = 0.6
_PATTERN_ENOUGH = 0.3
_MISSING = frozenset(
    ["", "-", "--", "n/a", "na", "none", "null", "unknown", "tbd", "?", "n.a.", "#n/a", "n/d",
     "unbekannt", "inconnu", "desconocido", "desconhecido", "nan"]
)  # fmt: skip
_FROM_PATTERN = {
    "ipv4": "ip", "ipv6": "ip", "mac": "mac", "uuid": "uuid", "fqdn": "fqdn",
    "email": "email", "date": "date", "datetime": "date", "percent": "percent", "os": "os",
    "version": "version", "boolean": "boolean", "key_value": "key_value", "url": "url",
}  # fmt: skip

_MODELS = re.compile(
    r"\b(poweredge|proliant|thinksystem|thinkcentre|thinkpad|ucs[ -]?[a-z]?\d+|primergy|"
    r"vmware virtual platform|system x|bladesystem|optiplex|latitude|elitebook|elitedesk|"
    r"catalyst|nexus|powervault|fusionserver|[db]l\d{3}|r[2-9]\d0|x3[0-9]{3}|virtual machine|"
    r"vmware\d|power s\d|synergy|superdome|simplivity|big-?ip|ws-c\d|pa-\d{3,}|isr ?\d{4}|"
    r"standard_[a-z]\d+\w*|[a-z]\d[a-z]?\.(micro|small|medium|\d*x?large)|precision|"
    r"express5800|ex\d{4}|mx\d{2,3}|asr ?\d{4}|t\d-\d|rx\d{3,4}|integrity)\b"
)
_OS = re.compile(
    r"\b(windows|linux|ubuntu|debian|centos|red ?hat|rhel|suse|sles|solaris|hp-?ux|freebsd|"
    r"openbsd|oracle linux|rocky|alma ?linux|amazon linux|macos|mac os|os x|ios[ -]xe|"
    r"ios xr|nx-?os|junos|pan-os|fedora|flatcar|coreos|os/400|ibm i|netware|"
    r"openvms|tru64|win ?(7|8|10|11|xp|2k|20\d\d)|w(in)?2k(3|8|12|16|19|22)?|sunos|android|"
    r"chrome ?os|raspbian|opensuse|scientific linux)\b"
    r"|(?<![\w-])(aix|esxi?|photon|cos|ontap|unix|z/?os|z/?vm)(?![\w-]*\d+$)(?![\w])"
)
_DATABASE = re.compile(
    r"\b(oracle( database| db)? ?\d+\w*|sql ?server|mssql|mysql|postgres(ql)?|mariadb|db2|mongodb|"
    r"sybase|redis|cassandra|hana|teradata|informix|elasticsearch|dynamodb|couchbase|ms sql|"
    r"adabas|firebird|progress|exadata|cosmos ?db|aurora)\b"
)
_REGION = re.compile(
    r"^([a-z]{2}-(gov-)?(north|south|east|west|central|northeast|southeast|northwest|southwest)-\d"
    r"[a-z]?|[a-z]+-(north|south|east|west|central|southeast|northeast)\w*\d|"
    r"(east|west|north|south|central|north central|south central|west central)[ -]?us ?\d?|"
    r"(north|west) ?europe|uk ?(south|west)|eastus2?|westus[23]?|emea|apac|amer|latam|na|eu|"
    r"asia ?pacific|europe|americas|asia|nord|sud|sued|ost|west|north|south|east|central|"
    r"[a-z]+ ?west ?central|(france|brazil|india|japan|korea|australia) ?(central|south|north|east|"
    r"west|southeast)|southeast ?asia|dach|mea|amers|noram|iberia|north america|south america|"
    r"latin america|norte|sur|este|oeste|sudeste|nordeste)$"
)
_PERSON = re.compile(r"^[A-ZÀ-Ý][\w'\u2019.-]*,? [A-ZÀ-Ý][\w'\u2019-]+( [A-ZÀ-Ý][\w'\u2019-]+)?$")
_WAVE = re.compile(
    r"^(wave|welle|vague|ola|onda|lot|lote|batch|bundle|mg|move group|w|phase|fase)"
    r"[ _-]?\d{1,3}[a-z]?$"
)
_SERIAL = re.compile(r"^(?=(?:.*\d){2})(?=.*[A-Z])[A-Z0-9]{6,20}$")
_VMWARE_SERIAL = re.compile(r"^VMware-[0-9a-f]{2} ")
_CODE = re.compile(r"^[A-Za-z]{0,6}[-_]?\d\d[A-Za-z0-9_-]*$")
_CIDR = re.compile(
    r"^\d+\.\d+\.\d+\.\d+/\d{1,2}$|^255\.\d+\.\d+\.\d+$|^vlan[ _-]?\d+|^subnet-[0-9a-f]+",
    re.IGNORECASE,
)
_HOSTNAME = re.compile(
    r"^(?=.{4,63}$)[A-Za-z][A-Za-z]*([-_][A-Za-z0-9]+)*[-_]?\d[A-Za-z0-9-_]*$"
    r"|^[a-z]{2,}-[a-z0-9]+(-[a-z0-9]+)*$"
)
_KEY_VALUE = re.compile(r"^\w+\s*[=:](?!//)[^=:;,|]+([;,|]\s*\w+\s*[=:][^=:;,|]+)*;?")
_AMOUNT = r"^\d[\d.,' ]*"
_SIZE = re.compile(rf"{_AMOUNT}({SIZE_WORDS})( ?/ ?.*)?$")
_TERABYTES = re.compile(rf"{_AMOUNT}t(i?b|i?o|bytes?)$")
_FREQUENCY = re.compile(rf"{_AMOUNT}({FREQUENCY_WORDS})$")
_RATE = re.compile(rf"{_AMOUNT}({RATE_WORDS}|[kmg]i?bps|iops)$", re.IGNORECASE)
_DURATION = re.compile(
    r"^\d+([.,]\d+)? ?(ms|sec|min|minutes|days?|tage)$|^(\d+\.)?\d{1,2}:\d\d:\d\d$"
)
_PATH = re.compile(r"^([A-Za-z]:\\|\\\\|/(vm|var|opt|home|mnt|data)|\[[\w -]+\] ).*")
_IP_PORT = re.compile(r"^\d{1,3}(\.\d{1,3}){3}(:\d{1,5}|/\d{1,2})$")
_DIRECTORY_NAME = re.compile(r"^(cn|uid)=[^,]+,.*\b(dc|o|ou)=", re.IGNORECASE)
_HUGE = 100_000
_PHONE = re.compile(r"^(\+\d|0\d)[\d ()/.-]{7,}$")
_CPU_COUNTS = frozenset([1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 28, 32, 36, 40, 48, 64, 72, 96, 128])
_DATE_YEAR = re.compile(r"\b(19|20)\d\d\b")


@lru_cache(maxsize=1)
def _words() -> dict[str, frozenset[str]]:
    lists = vocabulary.load("values")
    return {kind: frozenset(words) for kind, words in lists.items()}


def kinds_of(profile: ColumnProfile) -> dict[str, float]:
    """Kinds with the share of values (0 to 1) that are of that kind; empty for no values."""
    kinds: dict[str, float] = {}
    real = profile.filled - profile.patterns.get("placeholder", 0)
    if real > 0:
        for pattern, kind in _FROM_PATTERN.items():
            share = min(1.0, kinds.get(kind, 0.0) + profile.patterns.get(pattern, 0) / real)
            if share > _PATTERN_ENOUGH:
                kinds[kind] = share
    samples = [s.strip() for s in profile.samples if plain(s.strip()) not in _MISSING]
    if samples:
        for kind, share in _sampled(samples).items():
            kinds[kind] = max(kinds.get(kind, 0.0), share)
        if "os" in kinds and _share([plain(sample) for sample in samples], _OS.search) < 0.5:
            del kinds["os"]  # "esx-01" is a host
        _numbers(kinds, profile, samples)
        _texts(kinds, samples)
        if kinds.get("date", 0.0) >= ENOUGH:
            _dates(kinds, samples)
    if real >= 5 and profile.distinct >= 0.97 * real:
        kinds["unique"] = 1.0
    return kinds


def _share(samples: list[str], test: Callable[[str], object]) -> float:
    return sum(1 for sample in samples if test(sample)) / len(samples)


def _sampled(samples: list[str]) -> dict[str, float]:
    """Kinds told from samples alone."""
    lowered = [plain(sample).strip(" .") for sample in samples]
    parts = [[part.strip() for part in re.split("[,;|]", text)] for text in lowered]
    found: dict[str, float] = {}
    for kind, words in _words().items():
        found[kind] = sum(
            1 for text, several in zip(lowered, parts, strict=True)
            if text in words or (len(several) > 1 and words.issuperset(several))
        ) / len(samples)  # fmt: skip
    for kind, pattern in (
        ("os", _OS), ("database", _DATABASE), ("model", _MODELS), ("region", _REGION),
        ("wave", _WAVE), ("size", _SIZE), ("frequency", _FREQUENCY), ("duration", _DURATION),
    ):  # fmt: skip
        found[kind] = _share(lowered, pattern.search)
    for kind, pattern in (
        ("cidr", _CIDR), ("person", _PERSON), ("serial", _SERIAL), ("code", _CODE),
        ("vmware_serial", _VMWARE_SERIAL), ("hostname", _HOSTNAME), ("rate", _RATE),
        ("path", _PATH), ("phone", _PHONE), ("ip", _IP_PORT),
    ):  # fmt: skip
        found[kind] = _share(samples, pattern.match)
    found["key_value"] = _share(samples, _KEY_VALUE.fullmatch)
    if _share(samples, _DIRECTORY_NAME.match) >= ENOUGH:
        found["key_value"], found["person"] = 0.0, 1.0
    found["list"] = sum(1 for several in parts if len(several) > 1) / len(samples)
    found["name"] = _share(lowered, lambda text: any(ch.isalpha() for ch in text))
    if found["size"] >= ENOUGH and any(map(_TERABYTES.match, lowered)):
        found["disk_size"] = found["size"]
    return {kind: share for kind, share in found.items() if share >= ENOUGH - 0.1}


def _texts(kinds: dict[str, float], samples: list[str]) -> None:
    """Sentences; and which of two readings of a name is right."""
    words = sum(len(sample.split()) for sample in samples) / len(samples)
    if words >= 3.5 and kinds.get("os", 0.0) < ENOUGH and kinds.get("list", 0.0) < ENOUGH:
        kinds["text"] = 1.0
    for narrow in ("os", "vendor", "place", "model", "wave", "fqdn", "database", "strategy"):
        if kinds.get(narrow, 0.0) >= ENOUGH:
            kinds.pop("person", None)
            kinds.pop("hostname", None)
    if kinds.get("model", 0.0) >= ENOUGH:
        kinds.pop("os", None)
        kinds.pop("fqdn", None)
    if kinds.get("database", 0.0) >= 0.8 and kinds.get("os", 0.0) < 0.8:
        kinds.pop("os", None)


def _dates(kinds: dict[str, float], samples: list[str]) -> None:
    """Dates that lie ahead are ends, not beginnings."""
    this_year = dt.datetime.now(tz=dt.UTC).year
    years = [int(match.group()) for text in samples if (match := _DATE_YEAR.search(text))]
    if years and sum(year >= this_year for year in years) >= 0.5 * len(years):
        kinds["future_date"] = 1.0
    for other in ("version", "number", "integer", "code", "name", "phone"):
        kinds.pop(other, None)


def _numbers(kinds: dict[str, float], profile: ColumnProfile, samples: list[str]) -> None:
    decimal = profile.separators.decimal if profile.separators else None
    read = [number_of(text, decimal) for text in samples if not any(map(str.isalpha, text))]
    numbers = [number for number in read if number is not None]
    if len(numbers) < 0.8 * len(samples):
        return
    low, high = number_of(profile.minimum or "", "point"), number_of(profile.maximum or "", "point")
    largest = max([*numbers, high or 0.0])
    smallest = min([*numbers, low if low is not None else numbers[0]])
    kinds["number"] = 1.0
    for other in ("hostname", "name", "code", "phone"):
        kinds.pop(other, None)
    if any(number != int(number) for number in numbers):
        if smallest >= 0 and largest <= 100:
            kinds["percent"] = max(kinds.get("percent", 0.0), 0.7)
        return
    kinds["integer"] = 1.0
    if smallest >= 0 and largest <= 512:
        kinds["small_integer"] = 1.0
    elif largest >= 800:
        kinds["large_integer"] = 1.0
    if largest >= _HUGE:
        kinds["huge"] = 1.0
    if smallest >= 1 and largest > 1 and all(number in _CPU_COUNTS for number in numbers):
        kinds["cores"] = 1.0
    if smallest >= 256 and all(number % 256 == 0 for number in numbers):
        kinds["memory_mb"] = 1.0
    elif largest >= 40 and smallest >= 8 and "cores" not in kinds and "boolean" not in kinds:
        kinds["disk_number"] = 1.0
