"""How well a header's words fit a field's name, synonyms and description.

Built once per schema as an inverted index, so that a header is only compared with phrases that
share something with it: a schema of 700 fields costs little more than one of 64.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from discovery_crews.target_schema import TargetSchema

from .tokens import stem, trigrams, words_of

_COMPOUND = 4
_EMPTY_WORDS = frozenset(
    "column col field unnamed untitled attribute attr property var variable data item spalte feld "
    "wert champ colonne valeur campo columna valor coluna value header custom misc".split()
)
_FUZZY = 0.62
_DESCRIPTION_WEIGHT = 0.72


@dataclass(frozen=True)
class _Phrase:
    """One way to head a field."""

    target: int
    stems: frozenset[str]
    joined: str
    grams: int
    weight: float


@dataclass
class TextIndex:
    """All phrases of a schema, to be asked with headers."""

    schema: TargetSchema
    _phrases: list[_Phrase] = field(default_factory=list)
    _by_stem: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    _by_gram: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    _weight: dict[str, float] = field(default_factory=dict)
    _descriptions: list[frozenset[str]] = field(default_factory=list)
    _described: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self._weigh()
        for number, target in enumerate(self.schema.fields):
            phrases = [(target.name, 1.0), *((synonym, 1.0) for synonym in target.synonyms)]
            for phrase, weight in phrases:
                self._add(number, phrase, weight)
            described = frozenset(map(stem, words_of(target.description).words))
            self._descriptions.append(described)
            for word in described:
                self._described[word].append(number)

    def _weigh(self) -> None:
        """Words that many fields share say little."""
        used: Counter[str] = Counter()
        for target in self.schema.fields:
            texts = (target.name, target.description, *target.synonyms)
            used.update({stem(word) for text in texts for word in words_of(text).words})
        total = len(self.schema.fields)
        for word, count in used.items():
            self._weight[word] = 0.25 + math.log((total + 1) / count) / math.log(total + 1)

    def _add(self, target: int, phrase: str, weight: float) -> None:
        words = words_of(phrase)
        stems = frozenset(map(stem, words.words))
        if not stems:
            return
        number = len(self._phrases)
        grams = trigrams(words.joined)
        self._phrases.append(_Phrase(target, stems, words.joined, len(grams), weight))
        for word in stems:
            self._by_stem[word].append(number)
        for gram in grams:
            self._by_gram[gram].append(number)

    def weight(self, word: str) -> float:
        """How much a word says, by how few fields use it."""
        return self._weight.get(word, 0.3 if word.isdigit() else 1.0)

    def information(self, header: str) -> float:
        """How much a header says: 0 nothing ("Column 7"), 0.5 unknown words, 1 known words."""
        words = words_of(header).words
        if all(word in _EMPTY_WORDS or word.isdigit() or len(word) == 1 for word in words):
            return 0.0
        return 1.0 if any(stem(word) in self._weight for word in words) else 0.5

    def scores(self, header: str) -> dict[int, tuple[float, str]]:
        """Per field number: how well the header fits (0 to 1), and the phrase that fitted."""
        words = words_of(header)
        stems = frozenset(map(stem, words.words))
        best: dict[int, tuple[float, str]] = {}
        if not stems:
            return best

        def offer(target: int, score: float, phrase: str) -> None:
            if score > best.get(target, (0.0, ""))[0]:
                best[target] = (score, phrase)

        shared: set[int] = set()
        for word in stems:
            shared.update(self._by_stem.get(word, ()))
        for number in shared:
            phrase = self._phrases[number]
            offer(phrase.target, self._overlap(stems, phrase, words.joined), phrase.joined)
        grams = trigrams(words.joined)
        counts: Counter[int] = Counter()
        for gram in grams:
            counts.update(self._by_gram.get(gram, ()))
        for number, common in counts.items():
            phrase = self._phrases[number]
            dice = 2 * common / (len(grams) + phrase.grams)
            if dice >= _FUZZY:
                offer(phrase.target, 0.95 * dice * phrase.weight, phrase.joined)
            elif len(phrase.joined) >= _COMPOUND + 1 and phrase.joined in words.joined:
                share = len(phrase.joined) / len(words.joined)
                offer(phrase.target, (0.35 + 0.5 * share) * phrase.weight, phrase.joined)
        self._describe(stems, offer)
        return best

    def _overlap(self, stems: frozenset[str], phrase: _Phrase, joined: str) -> float:
        if stems == phrase.stems:
            same = joined == phrase.joined
            return (1.0 if same else 0.97) * phrase.weight
        common = sum(map(self.weight, stems & phrase.stems))
        union = sum(map(self.weight, stems | phrase.stems))
        return 0.92 * common / union * phrase.weight

    def _describe(self, stems: frozenset[str], offer: Callable[[int, float, str], None]) -> None:
        """Words of the header in a field's description; the whole header has to be there."""
        near: set[int] = set()
        for word in stems:
            near.update(self._described.get(word, ()))
        total = sum(map(self.weight, stems))
        for target in near:
            described = self._descriptions[target]
            common = sum(map(self.weight, stems & described))
            cover = common / total
            precision = common / max(total, 0.5 * sum(map(self.weight, described)))
            offer(target, _DESCRIPTION_WEIGHT * (0.6 * cover + 0.4 * precision), "description")
