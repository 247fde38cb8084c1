"""Brings the evidence on one column and one field together in one score between 0 and 1."""

from __future__ import annotations

from dataclasses import dataclass

from discovery_core.wire import ColumnProfile

from discovery_crews.target_schema import TargetField, TargetSchema

from .text import TextIndex
from .tokens import words_of
from .values import allowed, fit, kinds_of

# Kinds that point to a field by themselves, with how surely they do.
_TELLING = {
    "ip": 0.95, "mac": 0.98, "os": 0.95, "fqdn": 0.85, "environment": 0.9, "power": 0.85,
    "asset_class": 0.75, "vendor": 0.9, "region": 0.7, "strategy": 0.95, "wave": 0.9,
    "architecture": 0.85, "firmware": 0.95, "database": 0.8, "email": 0.75, "uuid": 0.75,
    "cidr": 0.8, "compliance": 0.75, "lifecycle": 0.75, "criticality": 0.75, "tier": 0.75,
    "storage_kind": 0.75, "serial": 0.7, "model": 0.85, "virtual": 0.7, "backup": 0.7,
    "hostname": 0.7, "key_value": 0.75, "person": 0.7, "exposure": 0.6, "dr": 0.6, "date": 0.45,
    "text": 0.6, "size": 0.5, "percent": 0.5, "boolean": 0.3, "version": 0.5,
    "small_integer": 0.42, "large_integer": 0.3, "name": 0.2, "code": 0.25, "number": 0.2,
}  # fmt: skip
_INFORMATIVE = 0.55
# How far values alone may carry a column, by how much its header says.
_VALUE_TRUST = {0.0: 0.8, 0.5: 0.68, 1.0: 0.42}
_UNIT_FAMILY = {
    "KB": "size", "MB": "size", "GB": "size", "TB": "size", "KiB": "size", "MiB": "size",
    "GiB": "size", "TiB": "size", "B": "size", "MHz": "frequency", "GHz": "frequency",
    "Hz": "frequency", "%": "percent", "MB/s": "rate",
}  # fmt: skip


@dataclass(frozen=True)
class Evidence:
    """Why a column may be a field: the score and its parts."""

    target: str
    score: float
    text: float
    phrase: str
    value: float
    kind: str
    unit: bool = False

    def reason(self, header: str) -> str:
        """One sentence for the approver."""
        parts = []
        if self.text >= 0.9:
            parts.append(f"the header {header!r} is a usual name for it")
        elif self.text >= 0.45:
            parts.append(f"the header {header!r} resembles {self.phrase!r}")
        if self.value >= 0.5 and self.kind:
            parts.append(f"the values look like {self.kind.replace('_', ' ')}")
        elif self.value < 0:
            parts.append("though the values do not look like it")
        if self.unit:
            parts.append("the unit fits")
        return ("; ".join(parts) or "weak evidence from header and values") + "."


def score_column(
    profile: ColumnProfile, schema: TargetSchema, index: TextIndex, limit: int = 12
) -> list[Evidence]:
    """The fields that the column may be, best first."""
    texts = index.scores(profile.name)
    kinds = kinds_of(profile)
    best_text = max((score for score, _ in texts.values()), default=0.0)
    trust = 0.4 if best_text >= _INFORMATIVE else _VALUE_TRUST[index.information(profile.name)]
    unit = words_of(profile.name).unit or profile.unit
    found = []
    for number, target in enumerate(schema.fields):
        text, phrase = texts.get(number, (0.0, ""))
        evidence = _judge(target, text, phrase, kinds, unit, profile, trust=trust)
        if evidence.score > 0.02:
            found.append(evidence)
    found.sort(key=lambda evidence: (-evidence.score, evidence.target))
    return found[:limit]


def _judge(
    target: TargetField,
    text: float,
    phrase: str,
    kinds: dict[str, float],
    unit: str | None,
    profile: ColumnProfile,
    *,
    trust: float,
) -> Evidence:
    value = fit(target.kinds, target.type, kinds) if target.kinds or kinds else 0.0
    listed = allowed(target.allowed_values, profile.samples)
    value = max(value, listed)
    kind = _kind(target, kinds)
    unit_fits = _unit(target, unit)
    score = _combine(text, value, _TELLING.get(kind, 0.3), trust=trust)
    if kinds and "unique" not in kinds and target.name in ("asset_id", "serial_number"):
        score *= 0.85
    if unit_fits is False:
        score *= 0.35
    elif unit_fits:
        score = min(1.0, score * 1.06 + 0.04 * (text > 0.2))
    return Evidence(target.name, round(score, 4), text, phrase, value, kind, unit=unit_fits is True)


def _kind(target: TargetField, kinds: dict[str, float]) -> str:
    own = [kind for kind in target.kinds if kind in kinds]
    return max(own, key=lambda kind: kinds[kind], default="")


def _combine(text: float, value: float, telling: float, *, trust: float) -> float:
    if value <= -1.0:
        return 0.12 * text
    if value < 0:
        return text * (1.0 + 0.5 * value)
    if text < 0.3:
        alone = value * telling
        return max(0.85 * text, alone * trust)
    if value == 0:
        return 0.94 * text
    return min(1.0, 0.84 * text + 0.16 * value * (0.5 + 0.5 * telling) + 0.04 * value)


def _unit(target: TargetField, unit: str | None) -> bool | None:
    """Whether the column's unit and the field's are of one family; None where one is missing."""
    if unit is None or unit not in _UNIT_FAMILY:
        return None
    family = _UNIT_FAMILY[unit]
    own = _UNIT_FAMILY.get(target.unit or "")
    if own is None:
        return False if target.type in ("integer", "number", "date", "boolean") else None
    if family == own:
        return True
    # memory and disk usage come as sizes as well as percentages
    return None if {family, own} <= {"size", "percent", "rate"} else False
