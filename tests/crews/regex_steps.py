"""Counts what a backtracking matcher does with a pattern, instead of measuring how long it takes.

It walks the tree that Python's own parser makes of a pattern and tries what `re` would try, in the
same order, without its shortcuts: so it never counts less than `re` does, up to a constant.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from re import _constants as sre
from re import _parser as parser
from typing import Any

Then = Callable[[int], bool]
MOST = 1_000_000
sys.setrecursionlimit(max(sys.getrecursionlimit(), 20_000))


class TooManyError(Exception):
    """More steps than anybody should wait for."""


def steps(pattern: str, flags: int, text: str) -> int:
    """How many steps a search takes in the worst case: one that goes on until all is tried.

    The longest way is walked: a match is found and not taken. Raises TooManyError.
    """
    counter = _Matcher(text, flags | parser.parse(pattern, flags).state.flags)
    tree = list(parser.parse(pattern, flags))
    for start in range(len(text) + 1):
        counter.groups.clear()
        if counter.all_of(tree, 0, start, lambda _: True):
            break
    return counter.count


class _Matcher:
    def __init__(self, text: str, flags: int) -> None:
        self.text = text.lower() if flags & re.IGNORECASE else text
        self.fold = bool(flags & re.IGNORECASE)
        self.dotall = bool(flags & re.DOTALL)
        self.multiline = bool(flags & re.MULTILINE)
        self.count = 0
        self.groups: dict[int, tuple[int, int]] = {}

    def step(self) -> None:
        self.count += 1
        if self.count > MOST:
            raise TooManyError

    def all_of(self, nodes: list[Any], index: int, at: int, then: Then) -> bool:
        """Whether the nodes from `index` on match at `at`, and then the rest."""
        if index == len(nodes):
            return then(at)
        return self.one(nodes[index], at, lambda end: self.all_of(nodes, index + 1, end, then))

    def one(self, node: tuple[Any, Any], at: int, then: Then) -> bool:
        self.step()
        kind, value = node
        if kind in _SIGNS:
            return self.sign(node, at) and then(at + 1)
        if kind is sre.AT:
            return self.place(value, at) and then(at)
        if kind is sre.BRANCH:
            return any(self.all_of(list(branch), 0, at, then) for branch in value[1])
        if kind is sre.SUBPATTERN:
            return self.group(value, at, then)
        if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            return self.repeat(kind, value, at, then)
        if kind in (sre.ASSERT, sre.ASSERT_NOT):
            return self.looks(value, at) is (kind is sre.ASSERT) and then(at)
        if kind is sre.ATOMIC_GROUP:
            end = self.first_end(list(value), at)
            return end is not None and then(end)
        if kind is sre.GROUPREF:
            begin, end = self.groups.get(value, (0, 0))
            known = self.text[begin:end]
            return self.text.startswith(known, at) and then(at + len(known))
        raise NotImplementedError(kind)

    def sign(self, node: tuple[Any, Any], at: int) -> bool:
        kind, value = node
        if at >= len(self.text):
            return False
        sign = self.text[at]
        if kind is sre.ANY:
            return self.dotall or sign != "\n"
        if kind is sre.LITERAL:
            return self.folded(value) == sign
        if kind is sre.NOT_LITERAL:
            return self.folded(value) != sign
        return self.among(value, sign)

    def folded(self, code: int) -> str:
        return chr(code).lower() if self.fold else chr(code)

    def among(self, items: list[tuple[Any, Any]], sign: str) -> bool:
        negated = items[0][0] is sre.NEGATE
        forms = {sign, sign.upper(), sign.lower()} if self.fold else {sign}
        found = any(_in(item, form) for item in items for form in forms)
        return found is not negated

    def place(self, where: Any, at: int) -> bool:
        before = self.text[at - 1] if at else ""
        after = self.text[at] if at < len(self.text) else ""
        if where in (sre.AT_BEGINNING, sre.AT_BEGINNING_STRING):
            return not before or (where is sre.AT_BEGINNING and self.multiline and before == "\n")
        if where in (sre.AT_END, sre.AT_END_STRING):
            last = where is sre.AT_END and self.text[at:] == "\n"
            return not after or last or (self.multiline and after == "\n")
        return (_is_word(before) != _is_word(after)) is (where is sre.AT_BOUNDARY)

    def group(self, value: Any, at: int, then: Then) -> bool:
        number, _, _, nodes = value

        def ended(end: int) -> bool:
            old = self.groups.get(number)
            if number is not None:
                self.groups[number] = at, end
            if then(end):
                return True
            if old is not None:
                self.groups[number] = old
            return False

        return self.all_of(list(nodes), 0, at, ended)

    def looks(self, value: tuple[int, Any], at: int) -> bool:
        direction, nodes = value
        if direction > 0:
            return self.all_of(list(nodes), 0, at, lambda _: True)
        low, _ = nodes.getwidth()
        return at >= low and self.all_of(list(nodes), 0, at - low, lambda end: end == at)

    def repeat(self, kind: Any, value: Any, at: int, then: Then) -> bool:
        low, high, nodes = value
        most = len(self.text) + 1 if high is sre.MAXREPEAT else int(high)
        body = list(nodes)
        if len(body) == 1 and body[0][0] in _SIGNS:
            return self.run(kind, body[0], (int(low), most), at, then)

        if kind is sre.POSSESSIVE_REPEAT:
            return self.kept(body, (int(low), most), at, then)

        def again(done: int, position: int) -> bool:
            self.step()

            def once_more(end: int) -> bool:
                return (end > position or done < low) and again(done + 1, end)

            def more() -> bool:
                return done < most and self.all_of(body, 0, position, once_more)

            if done < low:
                return more()
            if kind is sre.MIN_REPEAT:
                return then(position) or more()
            return more() or then(position)

        return again(0, at)

    def first_end(self, nodes: list[Any], at: int) -> int | None:
        """Where the nodes end in the first way that they match."""
        ends: list[int] = []

        def ended(end: int) -> bool:
            ends.append(end)
            return True

        return ends[0] if self.all_of(nodes, 0, at, ended) else None

    def kept(self, body: list[Any], bounds: tuple[int, int], at: int, then: Then) -> bool:
        """A repeat that gives nothing back."""
        done = 0
        while done < bounds[1]:
            self.step()
            end = self.first_end(body, at)
            if end is None or end == at:
                break
            at, done = end, done + 1
        return done >= bounds[0] and then(at)

    def run(
        self, kind: Any, node: tuple[Any, Any], bounds: tuple[int, int], at: int, then: Then
    ) -> bool:
        """A repeat of one sign, without a call for each."""
        low, most = bounds
        if kind is sre.MIN_REPEAT:
            return self.lazy(node, bounds, at, then)
        end = at
        while end - at < most and self.sign(node, end):
            self.step()
            end += 1
        if end - at < low:
            return False
        if kind is sre.POSSESSIVE_REPEAT:
            return then(end)
        return any(self.stepped(then, position) for position in range(end, at + low - 1, -1))

    def lazy(self, node: tuple[Any, Any], bounds: tuple[int, int], at: int, then: Then) -> bool:
        """A repeat of one sign that takes as few as it can."""
        end = at
        while True:
            self.step()
            if end - at >= bounds[0] and then(end):
                return True
            if end - at >= bounds[1] or not self.sign(node, end):
                return False
            end += 1

    def stepped(self, then: Then, position: int) -> bool:
        self.step()
        return then(position)


_SIGNS = (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN)


def _is_word(sign: str) -> bool:
    return bool(sign) and (sign.isalnum() or sign == "_")


def _in(item: tuple[Any, Any], sign: str) -> bool:
    kind, value = item
    if kind is sre.LITERAL:
        return chr(value) == sign
    if kind is sre.RANGE:
        return bool(value[0] <= ord(sign) <= value[1])
    if kind is sre.CATEGORY:
        name = str(value)
        kinds = {"DIGIT": str.isdecimal, "SPACE": str.isspace, "WORD": _is_word}
        test = kinds[name.rpartition("_")[2]]
        return test(sign) is ("_NOT_" not in name)
    return False


def signs_of(pattern: str, flags: int) -> list[str]:
    """Signs that the pattern tells apart: one for each of its literals and sets, and some more."""
    found = set("a0 -\x00")

    def walk(nodes: Any) -> Iterator[str]:
        for kind, value in nodes:
            if kind in (sre.LITERAL, sre.NOT_LITERAL):
                yield chr(value)
            elif kind is sre.IN:
                yield from _members(value)
            elif kind is sre.BRANCH:
                for branch in value[1]:
                    yield from walk(branch)
            elif kind is sre.SUBPATTERN:
                yield from walk(value[3])
            elif kind in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
                yield from walk(value[2])
            elif kind in (sre.ASSERT, sre.ASSERT_NOT):
                yield from walk(value[1])
            elif kind is sre.ATOMIC_GROUP:
                yield from walk(value)

    found |= set(walk(parser.parse(pattern, flags)))
    return sorted(found)


def _members(items: list[tuple[Any, Any]]) -> Iterator[str]:
    known = {"DIGIT": "7", "SPACE": " ", "WORD": "w"}
    for kind, value in items:
        if kind is sre.LITERAL:
            yield chr(value)
        elif kind is sre.RANGE:
            yield chr(value[0])
        elif kind is sre.CATEGORY:
            yield known[str(value).split("_")[-1]]
