"""Headers as words: the same words whatever the spelling, and the unit that a header names."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD = re.compile(r"[a-z]+|\d+|%")
_UNITS = {
    "kb": "KB", "mb": "MB", "gb": "GB", "tb": "TB", "kib": "KiB", "mib": "MiB", "gib": "GiB",
    "tib": "TiB", "ko": "KB", "mo": "MB", "go": "GB", "to": "TB", "bytes": "B", "octets": "B",
    "mhz": "MHz", "ghz": "GHz", "%": "%", "pct": "%", "percent": "%", "percentage": "%",
    "prozent": "%", "pourcentage": "%", "porcentaje": "%", "percentual": "%",
}  # fmt: skip
# Abbreviations that stand for one word wherever they appear in a header.
_SHORT = {
    "env": "environment", "mem": "memory", "addr": "address", "adr": "address", "no": "number",
    "nr": "number", "num": "number", "nbr": "number", "qty": "count", "cnt": "count",
    "desc": "description", "descr": "description", "descricao": "description",
    "mgr": "manager", "loc": "location", "dept": "department", "mfr": "manufacturer",
    "mfg": "manufacturer", "manuf": "manufacturer", "appl": "application", "apps": "applications",
    "srv": "server", "svr": "server", "hw": "hardware", "sw": "software", "virt": "virtual",
    "util": "utilization", "utilisation": "utilization", "usg": "usage", "avg": "average",
    "mean": "average", "max": "maximum", "min": "minimum", "prod": "production",
    "ver": "version", "vers": "version", "stat": "status", "sts": "status", "typ": "type",
    "crit": "criticality", "cat": "category", "maint": "maintenance", "opsys": "os",
    "proc": "processor", "procs": "processors", "cls": "class", "grp": "group", "svc": "service",
    "dt": "date", "bkp": "backup", "ntwk": "network", "netw": "network", "cap": "capacity",
    "resp": "responsible", "sn": "serial", "mig": "migration", "strat": "strategy",
    "thruput": "throughput", "sz": "size", "centre": "center", "organisation": "organization",
}  # fmt: skip
_FILLER = frozenset(
    [
        "the",
        "of",
        "a",
        "an",
        "and",
        "or",
        "in",
        "on",
        "for",
        "to",
        "by",
        "with",
        "is",
        "der",
        "die",
        "das",
        "des",
        "de",
        "du",
        "la",
        "le",
        "les",
        "del",
        "el",
        "los",
        "las",
        "do",
        "da",
        "dos",
        "das",
        "un",
        "une",
        "una",
        "um",
        "uma",
        "e",
        "y",
        "et",
        "und",
        "u",
        "c",
        "i",
        "x",
        "s",
        "value",
        "field",
        "column",
    ]
)


@dataclass(frozen=True)
class Words:
    """A header taken apart: `words` in order, without units; `unit` as it is written here."""

    words: tuple[str, ...]
    unit: str | None

    @property
    def joined(self) -> str:
        """All words as one text, for comparing characters."""
        return "".join(self.words)


def plain(text: str) -> str:
    """Lower case, without accents: "Größe" is "grosse", "Mémoire" is "memoire"."""
    text = text.replace("ß", "ss").replace("ä", "ae").replace("ö", "oe").replace("ü", "ue")
    text = text.replace("Ä", "Ae").replace("Ö", "Oe").replace("Ü", "Ue")
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(ch for ch in decomposed if not unicodedata.combining(ch)).lower()


@lru_cache(maxsize=20000)
def words_of(header: str) -> Words:
    """The words of a header. Filler words go, abbreviations are written out."""
    # a dotted or path-like name says most at its end, but its parents help
    spaced = _CAMEL.sub(" ", header)
    found = _WORD.findall(plain(spaced))
    unit: str | None = None
    kept: list[str] = []
    for word in found:
        # "MB" is a unit, but "to" and "go" are only units behind something else
        if word in _UNITS and (kept or word not in ("to", "go", "mo", "ko")):
            unit = _UNITS[word]
            continue
        kept.append(_SHORT.get(word, word))
    meaningful = [
        word
        for position, word in enumerate(kept)
        # "network in" ends with what matters
        if word not in _FILLER or (word == "in" and position == len(kept) - 1 > 0)
    ]
    return Words(tuple(meaningful or kept), unit)


@lru_cache(maxsize=50000)
def trigrams(text: str) -> frozenset[str]:
    """Groups of three characters, with the beginning and the end marked."""
    padded = f"^{text}$"
    return frozenset(padded[i : i + 3] for i in range(max(1, len(padded) - 2)))


def stem(word: str) -> str:
    """A word without its plural or verb ending, good enough to compare."""
    for ending in ("ungen", "ing", "ies", "es", "ed", "en", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return word
