"""Tables whose rows are connections: recognised by what their columns mean, in seven languages.

A row of such a table is about two machines and makes neither. Import, mapping, inventory and
dependency analysis all have to agree on which tables these are, so it is decided here, by the
headers alone; the words are in `connection_words.yaml`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml

from discovery_crews.tables import values
from discovery_crews.tables.engine import ROW, identifier, literal

Side = Literal["source", "target"]
MOST_ROWS = 10
NOT_ASSETS = (
    "Its rows are connections between machines: they become dependencies, and no assets. Ends are "
    "looked up in the inventory of the engagement."
)
_WORDS = Path(__file__).parent / "connection_words.yaml"
# how much of a table has to be about connections for its rows to be nothing else
_ONLY = 0.5


@dataclass(frozen=True)
class ConnectionTable:
    """The columns of a table of connections; of each end names come before addresses and ids.

    `relation` is the column that says which relation a row is. `only` tells that rows are
    connections and nothing else; otherwise they may be assets that name a connection as well. With
    `either_way` a machine lists its own connections, also those that others have opened;
    `source_port` is then its own port, where that has a column.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    port: str | None = None
    protocol: str | None = None
    relation: str | None = None
    only: bool = False
    either_way: bool = False
    source_port: str | None = None

    @property
    def columns(self) -> str:
        """The columns of both ends, for people."""
        return ", ".join((*self.sources, *self.targets))

    def query(self, view: str, place: str = "") -> str:
        """SQL: what the rows of a view say, each pair of ends once.

        Columns: `sources` and `targets` (VARCHAR[], the texts of each end, never empty), `port`,
        `source_port`, `protocol`, `relation`, `rows` (numbers of the first rows that say so),
        `times` (how many), `place` (as given), `columns` (of both ends), `either_way`.
        """
        return f"""
            SELECT *, {literal(place)} AS place, {literal(self.columns)} AS columns,
                {self.either_way} AS either_way FROM (
                SELECT {_texts(self.sources)} AS sources, {_texts(self.targets)} AS targets,
                    {_number(self.port)} AS port, {_number(self.source_port)} AS source_port,
                    {_lower(self.protocol)} AS protocol,
                    {_lower(self.relation)} AS relation,
                    list({ROW} ORDER BY {ROW})[:{MOST_ROWS}] AS rows, count(*) AS times
                FROM {view} GROUP BY ALL
            ) WHERE len(sources) > 0 AND len(targets) > 0
        """  # noqa: S608 - identifiers and literals are quoted


def _texts(columns: Sequence[str]) -> str:
    """SQL: what the columns say, without the empty ones."""
    listed = ", ".join(values.string(identifier(column)) for column in columns)
    return f"list_filter([{listed}], lambda text: text IS NOT NULL)"


def _number(column: str | None) -> str:
    return f"try_cast(trim({identifier(column)}) AS INTEGER)" if column else "NULL::INTEGER"


def _lower(column: str | None) -> str:
    return f"nullif(lower(trim({identifier(column)})), '')" if column else "NULL::VARCHAR"


def write_connections(tables: Sequence[tuple[str, str, ConnectionTable]], target: Path) -> str:
    """SQL that writes the connections of `tables` (name, view, columns) to a Parquet file.

    Its columns are those of `ConnectionTable.query`.
    """
    parts = " UNION ALL ".join(table.query(view, name) for name, view, table in tables)
    return f"COPY ({parts}) TO {literal(target)} (FORMAT parquet, COMPRESSION zstd)"


@dataclass(frozen=True)
class _Vocabulary:
    """The words by what they mean."""

    words: dict[str, frozenset[str]]
    relations: dict[str, tuple[str, bool]]

    @cached_property
    def parts(self) -> frozenset[str]:
        """What may follow the word for a side within one word: `zielport`, `dstaddr`."""
        return self["names"] | self["addresses"] | self["ids"] | self["port"] | self["about"]

    @cached_property
    def prefixes(self) -> tuple[str, ...]:
        """Words for a side that others are written together with, the longest first."""
        sides = ("source", "target", "planned_target", "local", "remote", "parent", "child")
        return tuple(sorted(frozenset().union(*(self[side] for side in sides)), key=len)[::-1])

    @cached_property
    def ends(self) -> frozenset[str]:
        """Words for a machine."""
        return self["names"] | self["addresses"] | self["ids"]

    def __getitem__(self, kind: str) -> frozenset[str]:
        return self.words[kind]


@lru_cache(maxsize=1)
def _vocabulary() -> _Vocabulary:
    content: dict[str, Any] = yaml.safe_load(_WORDS.read_text(encoding="utf-8"))
    relations = {
        said: (kind, reverse)
        for reverse, key in ((False, "relations"), (True, "reversed_relations"))
        for kind, texts in content.pop(key).items()
        for said in texts
    }
    return _Vocabulary({kind: frozenset(text.split()) for kind, text in content.items()}, relations)


def relation_of(text: str) -> tuple[str, bool]:
    """The kind of edge that a relation's type means, and whether it goes from child to parent.

    What is not known joins both without saying more.
    """
    said = " ".join(_folded(text.split("::", maxsplit=1)[0]))
    return _vocabulary().relations.get(said, ("connects_to", False))


def _folded(header: str) -> list[str]:
    """A header in lower-case words without accents: `sourceServerName`, `Ziel-IP`, `Zielport`."""
    plain = unicodedata.normalize("NFKD", header.replace("ß", "ss"))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", plain).lower()
    return re.findall(r"[a-z0-9]+", spaced)


def _taken_apart(word: str, known: _Vocabulary) -> list[str]:
    if word in known.parts:
        return [word]
    for prefix in known.prefixes:
        if word.startswith(prefix) and word[len(prefix) :] in known.parts:
            return [prefix, word[len(prefix) :]]
    return [word]


@dataclass(frozen=True)
class _Header:
    """A header's words, and what is left of them without fillers."""

    column: str
    words: tuple[str, ...]

    @classmethod
    def of(cls, column: str, known: _Vocabulary) -> _Header:
        split = [part for word in _folded(column) for part in _taken_apart(word, known)]
        return cls(column, tuple(split))

    def told(self, known: _Vocabulary) -> tuple[str, ...]:
        return tuple(word for word in self.words if word not in known["fillers"]) or self.words

    def side(self, known: _Vocabulary, *sides: str) -> tuple[str, ...] | None:
        """The other words where one is of `sides`."""
        told = self.told(known)
        wanted = frozenset().union(*(known[side] for side in sides))
        if not any(word in wanted for word in told):
            return None
        return tuple(word for word in told if word not in wanted)

    def vague(self, known: _Vocabulary, side: str) -> bool:
        """Whether the first word is a vague one for the side and the others name an end."""
        return bool(known[side] & set(self.words[:1])) and all(
            word in known.ends for word in self.words[1:]
        )


def connection_table(columns: Sequence[str]) -> ConnectionTable | None:
    """The columns that make a table one of connections; None where there are no two ends."""
    known = _vocabulary()
    headers = [_Header.of(column, known) for column in columns]
    port = _only_word(headers, known, "port", "target", "planned_target", "remote")
    protocol = _only_word(headers, known, "protocol")
    only = _is_only(headers, known)
    relation = _relation(headers, known)
    pairs = [(_ends(headers, known, "source"), _ends(headers, known, "target"))]
    local = _local_and_remote(headers, known)
    pairs.append(local)
    if relation is not None or only:
        pairs.append((_ends(headers, known, "parent"), _ends(headers, known, "child")))
    if port or protocol or only:
        pairs.append((pairs[0][0], _ends(headers, known, "planned_target")))
    if port or protocol:
        sources = pairs[0][0] or _vague(headers, known, "vague_source")
        targets = pairs[0][1] or pairs[-1][1] or _vague(headers, known, "vague_target")
        pairs.append((sources, targets))
    for sources, targets in pairs:
        if sources and targets and not set(sources) & set(targets):
            own = (sources, targets) == local
            told = _sided(headers, known, "port", "local") if own else None
            return ConnectionTable(sources, targets, port, protocol, relation, only, own, told)
    return None


def is_connections(columns: Sequence[str]) -> bool:
    """Whether the rows of such a table are connections and nothing else."""
    table = connection_table(columns)
    return table is not None and table.only


def _ends(headers: Sequence[_Header], known: _Vocabulary, *sides: str) -> tuple[str, ...]:
    found = []
    for header in headers:
        rest = header.side(known, *sides)
        if rest is not None and all(word in known.ends for word in rest):
            found.append((_rank(rest, known), header.column))
    return tuple(column for _, column in sorted(found, key=lambda entry: entry[0]))


def _rank(words: Sequence[str], known: _Vocabulary) -> int:
    if any(word in known["addresses"] for word in words):
        return 1
    return 2 if any(word in known["ids"] for word in words) else 0


def _vague(headers: Sequence[_Header], known: _Vocabulary, side: str) -> tuple[str, ...]:
    found = [header for header in headers if header.vague(known, side)]
    found.sort(key=lambda header: _rank(header.words, known))
    return tuple(header.column for header in found)


def _local_and_remote(
    headers: Sequence[_Header], known: _Vocabulary
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Ends of a list that a machine makes of its own connections; who it is may stand beside."""

    def addresses(side: str) -> tuple[str, ...]:
        found = []
        for header in headers:
            rest = header.side(known, side)
            if rest and all(word in known["addresses"] for word in rest):
                found.append(header.column)
        return tuple(found)

    local, remote = addresses("local"), addresses("remote")
    machine = tuple(
        header.column
        for header in headers
        if (told := header.told(known)) and all(word in known["names"] for word in told)
    )
    return ((*machine, *local) if local and remote else ()), remote


def _only_word(
    headers: Sequence[_Header], known: _Vocabulary, kind: str, *sides: str
) -> str | None:
    """The column of that kind: first one of these sides, then one of none."""
    if sides and (found := _sided(headers, known, kind, *sides)) is not None:
        return found
    passed = known[kind] | known["about"] | known["vague_target"]
    for header in headers:
        told = header.told(known)
        if any(word in known[kind] for word in told) and all(word in passed for word in told):
            return header.column
    return None


def _sided(headers: Sequence[_Header], known: _Vocabulary, kind: str, *sides: str) -> str | None:
    for header in headers:
        rest = header.side(known, *sides)
        if rest and all(word in known[kind] for word in rest):
            return header.column
    return None


def _relation(headers: Sequence[_Header], known: _Vocabulary) -> str | None:
    said = known["relation"] | known["names"]
    for header in headers:
        told = header.told(known)
        # as exported from ServiceNow's tables: `type.display_value`
        if told[:1] and told[0] in known["relation"] and set(told[1:]) <= said:
            return header.column
    return None


_SIDES = ("source", "target", "planned_target", "local", "remote", "parent", "child")


def _is_only(headers: Sequence[_Header], known: _Vocabulary) -> bool:
    """Whether columns are mostly about ends and connections, and none is a fact of an asset."""
    about = known["about"] | known["port"] | known["protocol"] | known["relation"] | known["ids"]
    vague = known["vague_source"] | known["vague_target"]
    counted = 0
    for header in headers:
        told = header.told(known)
        sided = header.side(known, *_SIDES) is not None or bool(vague & set(header.words[:1]))
        if sided or (told and all(word in about for word in told)):
            counted += 1
        elif any(word in known["inventory"] for word in told):
            return False
    return counted > _ONLY * len(headers)
