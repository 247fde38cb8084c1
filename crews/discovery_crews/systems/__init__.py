"""Which product and version a text means, and until when its vendor maintains it.

Inventories write "Microsoft Windows Server 2012 R2 Standard (64-bit)", "Win2k12r2" or "RHEL 7.9";
each distinct text is looked at once. A text that fits several versions ("CentOS 4/5/6/7", "Windows
Server 2016 or later") has none.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

import yaml

Kind = Literal["os", "database"]
State = Literal["end_of_life", "paid_support", "ending", "supported", "unknown"]
_TELLING = 500
SOON = dt.timedelta(days=365)
_SEVERAL = re.compile(r"\d\s*/\s*\d++(?!\s*bit)")
_BITS = re.compile(r"\(?\b(?:32|64)[- ]?bits?\b\)?|\bx(?:86|64)(?:_64)?\b")
_SHORT_YEAR = re.compile(r"\b(?:w|win|windows|windows server)\s?2k(\d{1,2})")


@dataclass(frozen=True)
class System:
    """A product with its version, as far as they are known.

    `support_ends` is the end of general support, `extended_ends` that of paid support. `native`:
    whether clouds run it; `managed`: whether they offer it as a service; `extended_included`:
    whether extended support costs nothing.
    """

    product: str
    label: str
    version: str | None = None
    support_ends: dt.date | None = None
    extended_ends: dt.date | None = None
    native: bool = True
    managed: bool = False
    extended_included: bool = False

    @property
    def name(self) -> str:
        """For people: "Windows Server 2012 R2"."""
        return f"{self.label} {self.version}" if self.version else self.label

    def state(self, today: dt.date) -> State:
        """How far from its end it is; without a date nobody knows."""
        if self.support_ends is None or self.ends is None:
            return "unknown"
        if self.ends < today:
            return "end_of_life"
        if self.support_ends < today and not self.extended_included:
            return "paid_support"
        return "ending" if self.ends - today <= SOON else "supported"

    @property
    def ends(self) -> dt.date | None:
        """The day after which nobody maintains it, not even for money."""
        return self.extended_ends or self.support_ends


@lru_cache(maxsize=1)
def catalogue() -> dict[str, Any]:
    """`end_of_life.yaml`, with its expressions compiled."""
    text = (resources.files(__package__) / "end_of_life.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    content["open_ended"] = [re.compile(expression) for expression in content["open_ended"]]
    for product in content["products"]:
        product["match"] = [re.compile(expression) for expression in product["match"]]
    return content


def as_of() -> dt.date:
    """The day that the dates in the catalogue are known of."""
    day: dt.date = catalogue()["as_of"]
    return day


def is_open_ended(text: str) -> bool:
    """Whether a text says "or later": its number is the least of many versions."""
    folded = " ".join(text.lower().split())
    return any(expression.search(folded) for expression in catalogue()["open_ended"])


@lru_cache(maxsize=50_000)
def system_of(text: str, kind: Kind) -> System | None:
    """What a text means, or None where it names no known product."""
    folded = " ".join(text[:_TELLING].lower().replace("®", "").replace("(r)", "").split())
    folded = _SHORT_YEAR.sub(lambda found: f"windows server 20{int(found.group(1)):02d} ", folded)
    folded = re.sub(r"(20\d\d)\s*r2\b", r"\1 r2", folded)
    folded = _BITS.sub(" ", folded)
    several = _SEVERAL.search(folded) is not None or is_open_ended(folded)
    for product in catalogue()["products"]:
        if product["kind"] != kind:
            continue
        for expression in product["match"]:
            found = expression.search(folded)
            if found:
                version = found.groupdict().get("v")
                return _system(product, None if several else version)
    return None


def _system(product: dict[str, Any], version: str | None) -> System:
    written = " ".join(version.replace("r2", "R2").split()) if version else None
    dates = product["versions"].get(written or "", [])
    return System(
        product=product["id"],
        label=product["label"],
        version=written,
        support_ends=dates[0] if dates else None,
        extended_ends=dates[-1] if dates else None,
        native=product.get("native", True),
        managed=product.get("managed", False),
        extended_included=product.get("extended_included", False),
    )
