"""What words of several languages mean, as SQL: switched off, critical, retired.

A rule that knows English words only says nothing of half the inventories. The words are data
(`meanings.yaml`); values are compared without letter case, accents, underscores and dashes.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from importlib import resources
from typing import Literal

import yaml

from .engine import literal

About = Literal["power", "level", "lifecycle"]
_SPACES = r"[\s_/-]+"
# what stands before the word: "VM running", "PowerState/deallocated"; the rank of a level
_BEFORE = {
    "power": r"^(vm|power ?state|state|status)[ :]+",
    "level": r"^[a-z]*[ ]?[0-9]+ ?[.:)(]* ?",
}
_BEHIND = {"level": r" ?\(?[0-9]*\)?$"}


@lru_cache(maxsize=1)
def _words() -> dict[str, dict[str, list[str]]]:
    text = (resources.files(__package__) / "meanings.yaml").read_text(encoding="utf-8")
    content: dict[str, dict[str, list[str]]] = yaml.safe_load(text)
    return content


def meaning(text: str, about: About) -> str:
    """SQL: what the text `text` means (`on`, `off`, `suspended` …); NULL where nobody knows."""
    plain = f"replace(strip_accents(lower(trim({text}))), '\u2019', chr(39))"
    folded = f"regexp_replace({plain}, {literal(_SPACES)}, ' ', 'g')"
    for place in (_BEFORE, _BEHIND):
        if about in place:
            folded = f"trim(regexp_replace({folded}, {literal(place[about])}, ''))"
    cases = " ".join(
        f"WHEN {folded} IN ({', '.join(sorted({literal(_folded(word)) for word in words}))}) "
        f"THEN {literal(name)}"
        for name, words in _words()[about].items()
    )
    return f"CASE {cases} END"


def _folded(word: str) -> str:
    """A word as the engine folds values."""
    plain = unicodedata.normalize("NFKD", str(word).lower())
    plain = "".join(sign for sign in plain if not unicodedata.combining(sign))
    return " ".join(plain.replace("_", " ").replace("-", " ").replace("/", " ").split())
