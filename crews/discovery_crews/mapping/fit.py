"""How well values of certain kinds fit a field, and how strongly they contradict it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from discovery_crews.tables.patterns import whole_value
from discovery_crews.target_schema import TargetField

from .kinds import CONTRADICTS, ENOUGH, TELLING
from .tokens import plain

_LATER_KIND = 0.12
_GENERAL = 0.9
_LISTED = 0.8
_NOT_ALLOWED = 0.8
_FREE_TEXT = 0.2
_NOT_A_COUNT = 0.8
_NOT_A_PERCENTAGE = 0.5
ANYTHING = "anything"
_NUMERIC = frozenset(
    ["number", "size", "percent", "frequency", "rate", "small_integer", "integer", "cores"]
)
# Kinds that say the same of a value as another, less exactly.
_IMPLIES = {
    "fqdn": {"hostname", "name"}, "hostname": {"name", "code"}, "place": {"name"},
    "vmware_serial": {"serial", "uuid"}, "serial": {"code"}, "person": {"name"},
    "email": {"person"}, "cidr": {"code"}, "os": {"name"}, "vendor": {"name"},
    "database": {"name"}, "tier": {"name"}, "asset_class": {"name"}, "region": {"name"},
    "compliance": {"name"}, "model": {"name", "code"}, "virtual": {"boolean"},
}  # fmt: skip
# Kinds whose words are often among those of another kind, and so do not contradict it.
_KIN = {
    "boolean": {"power", "virtual", "lifecycle", "backup", "encryption", "exposure"},
    "criticality": {"dr", "tier", "small_integer"},
    "lifecycle": {"environment", "power"},
    "asset_class": {"tier", "virtual", "os"},
    "tier": {"asset_class", "name"},
    "virtual": {"asset_class"},
    "environment": {"lifecycle"},
    "compliance": {"exposure"},
    "version": {"os", "database"},
    "cidr": {"ip"},
    "storage_kind": {"tier"},
}  # fmt: skip


@dataclass(frozen=True)
class Fit:
    """What values say about a field.

    `support` (0 to 1): the share of values that fit; `telling` (0 to 1): how surely they point
    to it without a header; `against` (0 to 1): how strongly they contradict it; `kind`: what
    they look like.
    """

    support: float = 0.0
    telling: float = 0.0
    against: float = 0.0
    kind: str = ""


NOTHING = Fit()


def fit(target: TargetField, kinds: Mapping[str, float], samples: Iterable[str]) -> Fit:
    """What the values' kinds say about the field. Without values nothing is said."""
    if not kinds:
        return NOTHING
    best = Fit()
    for rank, kind in enumerate(target.kinds):
        share = kinds.get(kind, 0.0)
        support = share * (1.0 - _LATER_KIND * rank)
        telling = support * TELLING.get(kind, 0.3)
        if share >= ENOUGH - 0.1 and telling > best.support * best.telling:
            best = Fit(support, telling, 0.0, kind)
    listed = _allowed(target, samples)
    if listed is not None:
        if listed >= ENOUGH:
            return Fit(listed, _LISTED * listed, 0.0, "allowed values")
        return Fit(0.0, 0.0, _NOT_ALLOWED * (1.0 - listed), "")
    if best.support > 0 and best.telling >= 0.3:
        return best
    against = max(_type_against(target, kinds), _kinds_against(target, kinds))
    if ANYTHING in target.kinds:
        against = min(against, _FREE_TEXT)
    if best.support > 0:
        return Fit(best.support, best.telling, _GENERAL * against, best.kind)
    return Fit(0.0, 0.0, against, "")


def _type_against(target: TargetField, kinds: Mapping[str, float]) -> float:
    if "huge" in kinds and target.kinds[:1] and set(target.kinds) & {"small_integer", "cores"}:
        return _NOT_A_COUNT
    if target.unit == "%" and "cores" in kinds and "percent" not in kinds:
        return _NOT_A_PERCENTAGE
    if target.type in ("integer", "number") and not _NUMERIC & kinds.keys():
        return 0.97
    if target.type == "date" and "date" not in kinds:
        return 0.9
    if target.type == "boolean" and not {"boolean", "virtual", "exposure"} & kinds.keys():
        return 0.5
    return 0.0


def _kinds_against(target: TargetField, kinds: Mapping[str, float]) -> float:
    """The strongest contradiction among the kinds that the field does not take."""
    if not target.kinds:
        return 0.0
    takes: set[str] = set(target.kinds)
    for kind in target.kinds:
        takes |= _IMPLIES.get(kind, set())
    if target.type in ("integer", "number") or takes & {"small_integer", "number"}:
        takes |= _NUMERIC
    strongest = 0.0
    for kind, share in kinds.items():
        if share < ENOUGH or kind in takes or takes & _KIN.get(kind, set()):
            continue
        if takes & _IMPLIES.get(kind, set()) and kind not in ("os", "vendor", "person"):
            continue
        strongest = max(strongest, CONTRADICTS.get(kind, 0.0) * share)
    known = any(kind in CONTRADICTS for kind in target.kinds[:1])
    if strongest == 0.0 and known and target.type in ("string", "list"):
        return 0.2
    return strongest


def _allowed(target: TargetField, samples: Iterable[str]) -> float | None:
    """Share of samples that the field's allowed values and pattern admit; None without either."""
    listed = [sample.strip() for sample in samples if sample.strip()]
    if not listed or not (target.allowed_values or target.pattern):
        return None
    known = {plain(value) for value in target.allowed_values}
    matches = whole_value(target.pattern) if target.pattern else bool
    fitting = [
        text for text in listed if (not known or plain(text) in known) and matches(text)
    ]  # fmt: skip
    return len(fitting) / len(listed)
