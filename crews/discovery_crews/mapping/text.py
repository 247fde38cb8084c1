"""How well a header's words fit a field's name, synonyms and description.

Built once per schema as an inverted index, so that a header is only compared with phrases that
share something with it: a schema of 700 fields costs little more than one of 64. Words are
weighted by how few fields use them (inverse document frequency), so that "server" and "name"
say less than "warranty".
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from discovery_crews.target_schema import TargetSchema

from . import vocabulary
from .tokens import Words, skeleton, stem, trigrams, words_of

_EMPTY_WORDS = frozenset(vocabulary.load("words")["empty"])
_UNKNOWN_WEIGHT = 1.05
_DIGIT_WEIGHT = 0.1
_LIKE = 0.8
_CUT = 0.75
_SAME_CHARACTERS = 0.72
_DESCRIPTION_WEIGHT = 0.7
_BOTH = 0.12
_FLOOR = 0.12
_SYNONYM = 0.99
_SAME_WORDS = 0.97
# "CPU %" and "CPU MHz" mean what they mean by their units
_NAMING_UNITS = frozenset({"%", "MHz", "GHz", "MB/s"})
_WITHOUT_UNIT = 0.7
_LATER_READING = 0.96


@dataclass(frozen=True)
class Match:
    """How well a header fits a field (0 to 1), and the phrase or description that fitted."""

    score: float
    phrase: str


@dataclass(frozen=True)
class _Phrase:
    """One way to head a field."""

    target: int
    words: frozenset[str]
    text: str
    unit: str | None
    own_name: bool


@dataclass
class TextIndex:
    """All phrases of a schema, to be asked with headers."""

    schema: TargetSchema
    _phrases: list[_Phrase] = field(default_factory=list)
    _by_word: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    _weight: dict[str, float] = field(default_factory=dict)
    _descriptions: list[frozenset[str]] = field(default_factory=list)
    _described: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    _by_gram: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    _by_skeleton: dict[str, str] = field(default_factory=dict)
    _like: dict[str, tuple[tuple[str, float], ...]] = field(default_factory=dict)
    _names: list[frozenset[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        used: Counter[str] = Counter()
        for number, target in enumerate(self.schema.fields):
            mine: set[str] = set()
            for phrase in (target.name, *target.synonyms):
                taken, own_name = words_of(phrase), phrase == target.name
                words = frozenset(map(stem, taken.words))
                self._add(_Phrase(number, words, taken.spelled, taken.unit, own_name))
                mine |= words
            described = frozenset(map(stem, words_of(target.description).words))
            self._descriptions.append(described)
            self._names.append(frozenset(map(stem, words_of(target.name).words)))
            for word in described:
                self._described[word].append(number)
            used.update(mine | described)
        total = len(self.schema.fields)
        for word, count in used.items():
            rarity = math.log((total + 1) / count) / math.log(total + 1)
            self._weight[word] = _DIGIT_WEIGHT if word.isdigit() else 0.2 + 0.8 * rarity
            self._by_skeleton.setdefault(skeleton(word), word)
            for gram in trigrams(word):
                self._by_gram[gram].append(word)

    def _add(self, phrase: _Phrase) -> None:
        for word in phrase.words:
            self._by_word[word].append(len(self._phrases))
        self._phrases.append(phrase)

    def weight(self, word: str) -> float:
        """How much a word says, by how few fields use it."""
        return self._weight.get(word, _DIGIT_WEIGHT if word.isdigit() else _UNKNOWN_WEIGHT)

    def information(self, header: str) -> float:
        """How much a header says: 0 nothing ("Column 7"), 0.5 unknown words, 1 known words."""
        words = [w for w in words_of(header).words if not w.isdigit() and len(w) > 1]
        if all(word in _EMPTY_WORDS for word in words):
            return 0.0
        known = sum(1 for word in words if stem(word) in self._weight)
        return 1.0 if known == len(words) else 0.5 + 0.5 * known / len(words)

    def scores(self, header: str) -> dict[int, Match]:
        """How well the header fits each field, by the field's number; only those that fit."""
        best: dict[int, Match] = {}
        words = words_of(header)
        for rank, reading in enumerate(filter(None, words.readings)):
            own = self._with_likely(frozenset(map(stem, reading)))
            for number, match in self._read(own, words).items():
                score = match.score * (_LATER_READING if rank else 1.0)
                if number not in best or score > best[number].score:
                    best[number] = Match(score, match.phrase)
        return best

    def _with_likely(self, words: frozenset[str]) -> dict[str, tuple[str, float]]:
        """Per known word that the header has or nearly has: the header's word, the likeness."""
        found: dict[str, tuple[str, float]] = {}
        for word in words:
            if word in self._weight:
                found[word] = (word, 1.0)
                continue
            known = self._likely(word)
            for other, likeness in known:
                if other not in found:
                    found[other] = (word, likeness)
            if not known:
                found[word] = (word, 1.0)
        return found

    def _likely(self, word: str) -> tuple[tuple[str, float], ...]:
        """Known words that an unknown one abbreviates or misspells, the likeliest."""
        if word not in self._like:
            self._like[word] = self._find_likely(word)
        return self._like[word]

    def _find_likely(self, word: str) -> tuple[tuple[str, float], ...]:
        if len(word) < 3 or word.isdigit():
            return ()
        bones = skeleton(word)
        if bones in self._by_skeleton and (word == bones or len(word) >= 5):
            return ((self._by_skeleton[bones], _LIKE),)
        if len(word) < 4:
            return ()
        grams = trigrams(word)
        counts: Counter[str] = Counter()
        for gram in grams:
            counts.update(self._by_gram.get(gram, ()))
        scored = []
        for other, common in counts.items():
            dice = 2 * common / (len(grams) + len(trigrams(other)))
            begins = len(other) >= 5 and word.startswith(other) and dice >= 0.5
            if other.startswith(word):  # cut off: "path" for "pathologic"
                scored.append((other, max(_CUT, 0.3 + 0.7 * dice)))
            elif dice >= _SAME_CHARACTERS or begins:
                scored.append((other, min(0.95, 0.3 + 0.7 * dice)))
        scored.sort(key=lambda entry: (-entry[1], entry[0]))
        return tuple(scored[:2])

    def _read(self, own: Mapping[str, tuple[str, float]], header: Words) -> dict[int, Match]:
        total = sum(self.weight(word) for word in dict(own.values()))
        if not own or not total:
            return {}
        by_name = self._compare(own, header)
        described = self._describe(own, total)
        for number, score in described.items():
            name = by_name.get(number)
            if name is None or score > name.score:
                both = score + _BOTH * (name.score if name else 0.0)
                by_name[number] = Match(min(0.9, both), "its description")
            elif name.score < 0.9:
                by_name[number] = Match(min(0.9, name.score + _BOTH * score), name.phrase)
        return {number: match for number, match in by_name.items() if match.score >= _FLOOR}

    def _compare(self, own: Mapping[str, tuple[str, float]], header: Words) -> dict[int, Match]:
        """The best name or synonym of each field: weighted words in common of all words."""
        shared = {number for word in own for number in self._by_word.get(word, ())}
        asked = sum(self.weight(word) for word in {origin for origin, _ in own.values()})
        exact = {word for word, (_, likeness) in own.items() if likeness == 1.0}
        best: dict[int, Match] = {}
        for number in shared:
            phrase = self._phrases[number]
            if phrase.words == exact == own.keys():
                score = _SAME_WORDS
                if phrase.text == header.spelled:
                    score = 1.0 if phrase.own_name else _SYNONYM
            else:
                common = sum(self.weight(word) * own[word][1] for word in phrase.words & own.keys())
                other = sum(self.weight(word) for word in phrase.words)
                score = min(0.95, 0.95 * common / max(asked + other - common, common, 1e-9))
            if phrase.unit in _NAMING_UNITS and phrase.unit != header.unit:
                score *= _WITHOUT_UNIT
            known = best.get(phrase.target)
            if known is None or score > known.score:
                best[phrase.target] = Match(score, phrase.text)
        return best

    def _describe(self, own: Mapping[str, tuple[str, float]], total: float) -> dict[int, float]:
        """The header's words in each field's name and description, by weight."""
        near = {number for word in own for number in self._described.get(word, ())}
        found: dict[int, float] = {}
        for number in near:
            described = self._descriptions[number] | self._names[number]
            common = sum(
                self.weight(word) * likeness
                for word, (_, likeness) in own.items()
                if word in described
            )
            cover = min(1.0, common / total)
            whole = math.sqrt(sum(self.weight(word) for word in described))
            found[number] = _DESCRIPTION_WEIGHT * cover * (0.6 + 0.4 * min(1.0, common / whole))
        return found
