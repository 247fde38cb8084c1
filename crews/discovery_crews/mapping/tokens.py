"""Headers as words: the same words whatever the spelling or language, and the unit they name.

Headers that mean the same differ in spelling (`IPAddress`, `ip_addr`, `IP-Adresse`), language and
abbreviation. Everything here brings them to one set of words, so that a synonym written once is
found in all of them.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from discovery_crews.tables.units import UNIT_SPELLINGS

from . import vocabulary

MAX_READINGS = 6
_PART = 3
_COMPOUND = 4
_ACRONYM = re.compile(
    r"(?<![A-Za-z])(OS|IP|VM|DB|CPU|RAM|MAC|DNS|HDD|CI|ESX|UUID|FQDN)(?=[a-z]{3})"
)
_V_PREFIX = re.compile(r"(?<![A-Za-z])v(RAM|Disk|NIC)(?=s?(?![a-z]))")
_IP_VERSION = re.compile(r"IPv[46]", re.IGNORECASE)
_UNIT_WORD = re.compile(
    r"(?<=[a-z_\W])([KMGTP]i?B(?:ytes?)?|[KMG]?Hz)(?![a-z])|(?<![A-Za-z])([KMG]Hz)"
)
_RATE = re.compile(
    r"(?:(?<![A-Za-z])|(?<=[a-z])(?=[KMG]))([kmgKMG])i?(?:[bB]|[bB]its?|[bB]ytes?)"
    r"(?:ps|PS|/s(?:ec)?|/S)(?![a-z])"
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z](?!s(?![a-z]))[a-z])")
_NOTE = re.compile(r"\([^)]*\)?|\[[^\[\]]*\]")
_PATH = re.compile(r"[.:/]| - ")
_WORD = re.compile(r"[a-z]+|\d+|%")
# a letter alone is a word, as are the halves of a rate
_UNITS = {
    word: unit
    for word, unit in UNIT_SPELLINGS.items()
    if re.fullmatch("[a-z]{3,}|.b|[kmgt]o|hz", word)
} | {"%": "%", "ratebyte": "MB/s"}
_NOT_FIRST = frozenset({"to", "go", "mo", "ko", "tio", "pio", "hz", "mhz", "ghz"})
_FILLER = frozenset(vocabulary.load("words")["filler"])
_EACH_SOCKET = re.compile(r"\s?/\s?so[ck]+et|\bp/s\b", re.IGNORECASE)
_PER = frozenset(vocabulary.load("words")["per"])
_TRAFFIC = frozenset({"network", "net", "data", "traffic", "bytes", "nic", "netz"})
_LINKS = ("s", "es", "n", "en", "er", "e")
_SHORT_PARTS = frozenset({"ip", "os", "vm", "id", "db", "dc", "ci", "nr", "no"})
# how registers with short column names end them: SRVNM, CPUCT, ENVCD
_SHORT_TAILS = frozenset({"nm", "id", "no", "nr", "cd", "ct", "sz", "dt", "ts", "ip", "os"})
_FLOW = re.compile(r"\b(net|network|nic|data|traffic|bytes|pkts|packets)(in|out)\b")
_TAILS = frozenset({"number", "name", "date", "type", "status", "address", "version", "id", "code"})


@dataclass(frozen=True)
class Words:
    """A header taken apart.

    `words` is its first reading, without units; `readings` are all of them, since a word may
    mean two things ("nombre" is a name in Spanish and a number in French); `unit` is the unit
    that the header names, as the product writes units; `spelled` is the header in plain letters,
    without its unit, as it was.
    """

    words: tuple[str, ...]
    unit: str | None = None
    readings: tuple[tuple[str, ...], ...] = ()
    spelled: str = ""

    @property
    def joined(self) -> str:
        """All words as one text, for comparing characters."""
        return "".join(self.words)


def plain(text: str) -> str:
    """Lower case, without accents: "Größe" is "groesse", "Mémoire" is "memoire"."""
    for old, new in (("ß", "ss"), ("ä", "ae"), ("ö", "oe"), ("ü", "ue"), ("œ", "oe")):
        text = text.replace(old, new).replace(old.upper(), new.capitalize())
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(ch for ch in decomposed if not unicodedata.combining(ch)).lower()


@lru_cache(maxsize=1)
def _meanings() -> dict[str, tuple[str, ...]]:
    """Every known word with what it means; a word that is a meaning itself means that first."""
    content = vocabulary.load("words")
    found: dict[str, list[str]] = {word: [word] for word in content["words"]}
    for meaning, words in content["words"].items():
        for word in words:
            found.setdefault(word, []).append(meaning)
    for meaning, phrases in content["phrases"].items():
        for word in meaning.split():
            found.setdefault(word, [word])
        for phrase in phrases:
            if " " not in phrase and " " not in meaning:
                found.setdefault(phrase, [meaning])
    return {word: tuple(dict.fromkeys(meanings)) for word, meanings in found.items()}


@lru_cache(maxsize=1)
def _phrases() -> tuple[re.Pattern[str], dict[str, str]]:
    """An expression that finds every phrase, longest first, and what each one means."""
    content: dict[str, list[str]] = vocabulary.load("words")["phrases"]
    known = {phrase: meaning for meaning, phrases in content.items() for phrase in phrases}
    longest = sorted(known, key=lambda phrase: (-len(phrase), phrase))
    return re.compile(rf"\b({'|'.join(map(re.escape, longest))})s?\b"), known


@lru_cache(maxsize=20000)
def words_of(header: str) -> Words:
    """The words of a header. Filler words go, abbreviations and languages become one."""
    unit, tokens = _without_units(_tokens(header))
    found = _readings(tokens)
    ending = _PATH.split(header)[-1]
    if ending != header and len(last := _without_units(_tokens(ending))[1]) > 1:
        # "VMware.VMName": what a name of several words is under matters less
        found = tuple(dict.fromkeys([*found, *_readings(last)]))
    parts = [part for part in _NOTE.sub("", header).split("/") if len(part.strip()) >= _PART]
    if len(parts) > 1:
        # "Site / Room" names either
        either = [
            reading for part in parts for reading in _readings(_without_units(_tokens(part))[1])
        ]
        found = tuple(dict.fromkeys([*found, *either]))
    bare = _NOTE.sub(" ", header)
    if bare != header and (without := _without_units(_tokens(bare))[1]):
        notes = set(tokens) - set(without)
        if not any(word in _meanings() for word in notes):
            found = tuple(dict.fromkeys([*found, *_readings(without)]))
    if unit is not None and "second" in tokens and unit.endswith("B"):
        unit += "/s"
    return Words(found[0] if found else (), unit, found, " ".join(tokens))


def cores_per_socket(header: str) -> bool:
    """Whether a header counts the cores of each socket or processor, in any of the languages."""
    # "Cores / CPU" names either, "Cores/Socket" what each has
    tokens = _tokens(_EACH_SOCKET.sub(" per socket", header))
    for place, word in enumerate(tokens):
        if word in _PER and 0 < place < len(tokens) - 1:
            counted = {part for before in tokens[:place] for part in _all_meanings(before)}
            each = {part for behind in tokens[place + 1 :] for part in _all_meanings(behind)}
            if counted & {"core", "cpu"} and each & {"socket", "cpu", "physical"}:
                return True
    return False


def _all_meanings(word: str) -> set[str]:
    return {part for meaning in _meaning(word) for part in meaning}


def _readings(tokens: list[str]) -> tuple[tuple[str, ...], ...]:
    """What the words may mean, the likeliest first."""
    pattern, known = _phrases()
    text = pattern.sub(lambda match: known[match.group(1)], " ".join(tokens))
    kept = list(_meaningful(text.split())) or text.split()
    choices: list[tuple[str, ...]] = []
    for word in kept:
        choices += _meaning(word)
    return tuple(itertools.islice(itertools.product(*choices), MAX_READINGS))


def _tokens(header: str) -> list[str]:
    header = (
        re.sub("smbios", "smbios ", header, flags=re.IGNORECASE)
        .replace("#", " number ")
        .replace("\u00b0", "o ")
    )
    header = _RATE.sub(" ratebyte ", _IP_VERSION.sub("ip ", re.sub(r"vCPUs?", " vcpu ", header)))
    header = _UNIT_WORD.sub(lambda match: f" {match.group().lower()} ", header)
    header = _ACRONYM.sub(
        r"\1 ",
        _V_PREFIX.sub(r" virtual \1", header.replace("VMware", "vmware").replace("ESXi", "esxi")),
    )
    return _WORD.findall(_FLOW.sub(r"\1 \2", plain(_CAMEL.sub(" ", header))))


def _without_units(tokens: list[str]) -> tuple[str | None, list[str]]:
    unit: str | None = None
    kept: list[str] = []
    for word in tokens:
        # "Mo" is a unit behind "RAM", and a word at the beginning
        if word in _UNITS and (kept or word not in _NOT_FIRST):
            unit = unit if unit and word == "%" else _UNITS[word]
        else:
            kept.append(word)
    return unit, kept


def _meaningful(words: list[str]) -> Iterator[str]:
    for position, word in enumerate(words):
        if word == "in":
            # "network in" says which way, "memory in MB" says nothing
            if position and words[position - 1] in _TRAFFIC:
                yield "received"
        elif word not in _FILLER:
            yield word


def _meaning(word: str) -> list[tuple[str, ...]]:
    """What a word may mean; a compound gives several words."""
    meanings = _meanings()
    if word in meanings:
        return [meanings[word]]
    for form in _base_forms(word):
        if form in meanings:
            return [meanings[form]]
    parts = _split(word)
    if parts is None:
        return [(word,)]
    return [meanings.get(part, (part,)) for part in parts]


def _base_forms(word: str) -> Iterator[str]:
    """A word in singular and masculine, as it may be listed."""
    yield stem(word)
    if len(word) >= 5:
        for ending, base in (("as", "o"), ("os", "o"), ("a", "o"), ("es", ""), ("e", "")):
            if word.endswith(ending):
                yield word[: -len(ending)] + base


@lru_cache(maxsize=20000)
def _split(word: str) -> tuple[str, ...] | None:
    """A compound in known parts ("servername", "Plattenkapazität"); None where it is none.

    The first part may be unknown where the last one is a usual one ("Kundennummer").
    """
    if len(word) < _COMPOUND:
        return None
    whole = _cover(word)
    if whole is not None:
        return whole
    meanings = _meanings()
    for start in range(4, len(word) - 2):
        tail = word[start:]
        if tail in meanings and _TAILS & set(meanings[tail]) and len(tail) >= 4:
            return word[:start], tail
    return None


def _cover(word: str, parts: int = 4) -> tuple[str, ...] | None:
    """The word as at most so many known words, the longest first."""
    if parts == 0:
        return None
    meanings = _meanings()
    for end in range(len(word), 1, -1):
        head = word[:end]
        if head not in meanings:
            continue
        if end == len(word) and (len(head) > 2 or head in _SHORT_PARTS | _SHORT_TAILS):
            return (head,)
        if len(head) < _PART and head not in _SHORT_PARTS:
            continue
        for link in ("", *_LINKS):
            rest = word[end + len(link) :]
            if word[end:].startswith(link) and rest and (not link or len(head) >= 4):
                found = _cover(rest, parts - 1)
                if found is not None:
                    return (head, *found)
    return None


@lru_cache(maxsize=50000)
def trigrams(text: str) -> frozenset[str]:
    """Groups of three characters, with the beginning and the end marked."""
    padded = f"^{text}$"
    return frozenset(padded[i : i + 3] for i in range(max(1, len(padded) - 2)))


@lru_cache(maxsize=50000)
def skeleton(word: str) -> str:
    """First letter and consonants, as people abbreviate: "warranty" is "wrnty"."""
    consonants = re.sub(r"[aeiou]", "", word[1:])
    return word[:1] + re.sub(r"(.)\1+", r"\1", consonants)


def stem(word: str) -> str:
    """A word without its plural or verb ending, good enough to compare."""
    for ending in ("ungen", "ing", "ies", "es", "ed", "en", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return word
