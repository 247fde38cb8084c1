"""Brings the evidence on one column and one field together in one score between 0 and 1.

Header and values are independent witnesses: together they are surer than each alone, and each
can contradict the other. Values speak louder the less the header says, and where they
contradict what the header seems to mean ("Name" above operating systems) the header loses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from discovery_core.wire.results import ColumnProfile

from discovery_crews.tables.units import family, unit_of_header
from discovery_crews.target_schema import TargetField, TargetSchema

from .fit import NOTHING, Fit, fit
from .kinds import kinds_of
from .text import Match, TextIndex
from .tokens import cores_per_socket, words_of

HEADER_WEIGHT = 0.94
SUPPORT_WEIGHT = 0.4
_TRUST_UNKNOWN = 0.86
_TRUST_MEANINGLESS = 0.86
_TRUST_OTHER = 0.5
_TRUST_CLEAR = 0.36
_CLEAR = 0.6
_PLAIN = 0.68
_HEADER_COUNTS = 0.3
_WRONG_UNIT = 0.35
_REPEATED = 0.93
_NOTHING_SAID = Match(0.0, "")


@dataclass(frozen=True)
class Evidence:
    """Why a column may be a field: the score, what the header says, what the values say."""

    target: str
    score: float
    header: Match
    values: Fit
    unit: bool = False
    margin: float = 0.0

    def reason(self, header: str) -> str:
        """One sentence for the approver."""
        parts = []
        if self.header.score >= 0.9:
            parts.append(f"the header {header!r} is a usual name for it")
        elif self.header.score >= 0.35:
            parts.append(f"the header {header!r} resembles {self.header.phrase!r}")
        if self.values.support >= 0.5 and self.values.kind:
            parts.append(f"the values look like {self.values.kind.replace('_', ' ')}")
        elif self.values.against >= 0.4:
            parts.append("though the values do not look like it")
        if self.unit:
            parts.append("the unit fits")
        return ("; ".join(parts) or "weak evidence from header and values") + "."


def score_column(
    profile: ColumnProfile,
    schema: TargetSchema,
    index: TextIndex,
    header: str | None = None,
    limit: int = 12,
) -> list[Evidence]:
    """The fields that the column may be, best first; `header` is its name as far as it matters."""
    texts = index.scores(header or profile.name)
    kinds = kinds_of(profile)
    unit = unit_of(profile)
    # cores of each socket are neither the cores nor the sockets
    ratio = {"cpu_cores", "cpu_sockets"} if cores_per_socket(profile.name) else set()
    fits = {
        number: fit(target, kinds, profile.samples)
        for number, target in enumerate(schema.fields)
        if number in texts or target.kinds or target.allowed_values or target.pattern
    }
    fits = {
        number: values
        for number, values in fits.items()
        if not _is_no_amount(profile.name, schema.fields[number], unit)
        and schema.fields[number].name not in ratio
    }
    units = {number: _unit(schema.fields[number], unit) for number in fits}
    repeats = profile.filled >= 4 and profile.distinct < 0.8 * profile.filled
    information = index.information(header or profile.name)
    trust = _trust(information, texts, fits, units)
    found = []
    for number, values in fits.items():
        said = texts.get(number, _NOTHING_SAID)
        vague = information > 0 and values.telling < _PLAIN
        score = _combine(said.score, values, min(trust, _TRUST_CLEAR) if vague else trust)
        if repeats and schema.fields[number].unique:
            score *= _REPEATED
        if units[number] is False:
            score *= _WRONG_UNIT
        elif units[number] and (said.score > 0.2 or score > 0.2):
            score = min(1.0, score * 1.05 + 0.03)
        if score > 0.02:
            name = schema.fields[number].name
            found.append(Evidence(name, round(score, 4), said, values, units[number] is True))
    found.sort(key=lambda evidence: -evidence.score)
    return found[:limit]


def unit_of(profile: ColumnProfile) -> str | None:
    """The unit of a column's numbers: from its header, else from its values."""
    return unit_of_header(profile.name) or words_of(profile.name).unit or profile.unit


def _trust(
    information: float,
    texts: dict[int, Match],
    fits: dict[int, Fit],
    units: dict[int, bool | None],
) -> float:
    """How much values may say on their own, by how much the header says that they bear out."""
    if information == 0.0:
        return _TRUST_MEANINGLESS
    borne_out = max(
        (
            match.score
            * (1.0 - fits.get(number, NOTHING).against)
            * (_WRONG_UNIT if units.get(number) is False else 1.0)
            for number, match in texts.items()
        ),
        default=0.0,
    )
    said = max((match.score for match in texts.values()), default=0.0)
    if borne_out >= _CLEAR:
        return _TRUST_CLEAR
    if said >= _CLEAR and borne_out < 0.5 * said:
        return _TRUST_UNKNOWN
    return _TRUST_OTHER + (1.0 - information) * 0.16


def _combine(header: float, values: Fit, trust: float) -> float:
    """Two witnesses: the chance that not both are wrong, less what contradicts."""
    stands = 1.0 - values.against
    said = HEADER_WEIGHT * header * stands
    alone = values.telling * trust * stands
    if header < _HEADER_COUNTS:
        return max(alone, said, 1.0 - (1.0 - said) * (1.0 - alone) if header >= 0.15 else 0.0)
    # values that merely do not contradict make a clear header surer
    borne = max(SUPPORT_WEIGHT * values.support * stands * header, 0.6 * alone)
    return max(alone, 1.0 - (1.0 - said) * (1.0 - borne))


def _unit(target: TargetField, unit: str | None) -> bool | None:
    """Whether the column's unit and the field's are of one family; None where one is missing."""
    measured = family(unit or "")
    if measured is None or measured == "operations":
        return None
    own = family(target.unit or "")
    if own is None or own == "operations":
        return False if target.type in ("integer", "number", "date", "boolean") else None
    if measured == own:
        return True
    # memory usage comes as a size as well as a percentage
    return None if (measured, own) == ("data", "share") else False


def _is_no_amount(header: str, target: TargetField, unit: str | None) -> bool:
    """Whether the column has percentages that the field cannot be.

    They are never amounts, and those of disks are no load of processors or memory.
    """
    if family(unit or "") != "share" or target.unit is None:
        return False
    if family(target.unit) != "share":
        return True
    return _is_disk(header) and not _is_disk(target.name)


def _is_disk(name: str) -> bool:
    said = {word for reading in words_of(name).readings for word in reading}
    return "disk" in said and not said & {"memory", "cpu"}


def best_margin(found: Sequence[Evidence]) -> float:
    """How far the best field is ahead of the next."""
    if len(found) < 2:
        return found[0].score if found else 0.0
    return found[0].score - found[1].score
