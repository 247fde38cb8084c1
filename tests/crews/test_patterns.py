"""No pattern takes more than linear time, whoever has written it and whatever it meets."""

from __future__ import annotations

import ast
import importlib
import itertools
import pkgutil
import random
import re
from collections.abc import Iterator
from pathlib import Path

import discovery_core
import discovery_crews
import pytest
from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_crews.mapping.tokens import _phrases
from discovery_crews.readers import credentials, json_faults, layout
from discovery_crews.systems import catalogue
from discovery_crews.tables.patterns import LONGEST_PATTERN, PATTERNS, whole_value
from discovery_crews.target_schema import load_schema

from tests.crews.regex_steps import TooManyError, signs_of, steps

SHORT, LONG = 24, 48
# twice the text is twice the work; a quadratic pattern takes four times as much
MOST = 2.5
SIGNS = 7


def modules() -> Iterator[str]:
    yield "discovery_core.mapping_edits"
    yield "discovery_core.credentials"
    assert discovery_core.__path__
    for found in pkgutil.walk_packages(discovery_crews.__path__, "discovery_crews."):
        if not found.name.endswith("__main__"):
            yield found.name


def in_source(module: str) -> Iterator[tuple[str, int]]:
    """Patterns that are written where they are used: `re.sub("…", …)`."""
    tree = ast.parse(Path(str(importlib.import_module(module).__file__)).read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("re.") and node.args:
            pattern = node.args[0]
            if isinstance(pattern, ast.Constant) and isinstance(pattern.value, str):
                yield pattern.value, re.IGNORECASE if "IGNORECASE" in ast.unparse(node) else 0


def patterns() -> dict[tuple[str, int], str]:
    """All patterns of the package that `re` runs, and where they are."""
    found: dict[tuple[str, int], str] = {}
    for module in modules():
        for name, value in vars(importlib.import_module(module)).items():
            if isinstance(value, re.Pattern) and isinstance(value.pattern, str):
                found.setdefault((value.pattern, value.flags), f"{module}.{name}")
        for pattern, flags in in_source(module):
            found.setdefault((pattern, flags), f"{module}: {pattern[:40]}")
    for product in catalogue()["products"]:
        for number, compiled in enumerate(product["match"]):
            found.setdefault(
                (compiled.pattern, compiled.flags), f"systems.{product['id']}.{number}"
            )
    phrases = _phrases()[0]
    found.setdefault((phrases.pattern, phrases.flags), "mapping.tokens._phrases")
    return found


def texts(pattern: str, flags: int, length: int) -> Iterator[str]:
    """What makes a matcher try again: runs and mixtures of signs, and then no match."""
    signs = signs_of(pattern, flags)
    if len(signs) > SIGNS:
        signs = random.Random(pattern).sample(signs, SIGNS)
    half = length // 2
    for sign in signs:
        yield sign * length + "\x01"
    for one, other in itertools.permutations([*signs, " "], 2):
        yield (one + other) * half + "\x01"
        yield one * half + other * half + "\x01"
        yield one + other * length + "\x01"


ALL = patterns()


@pytest.mark.slow
@pytest.mark.parametrize(("pattern", "flags"), ALL, ids=ALL.values())
def test_s10_twice_the_text_takes_twice_the_steps(pattern: str, flags: int) -> None:
    pairs = zip(texts(pattern, flags, SHORT), texts(pattern, flags, LONG), strict=True)
    for short, long in pairs:
        ratio = steps(pattern, flags, long) / steps(pattern, flags, short)
        assert ratio < MOST, long


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pattern", "sign"),
    [("a+a+$", "a"), (r"\s*:?\s*$", " "), (r"(a|b)*a+c", "a"),
     (r"\d+/", "1"), (r"(?:\s+|x)*[{]", " ")],
)  # fmt: skip
def test_s10_the_count_notices_what_is_not_linear(pattern: str, sign: str) -> None:
    """The test above would be worth nothing if it did not."""

    def counted(length: int) -> float:
        try:
            return steps(pattern, 0, sign * length + "\x01")
        except TooManyError:
            return float("inf")

    assert counted(LONG) / min(counted(SHORT), 1e6) > MOST


def test_s10_patterns_are_found_where_they_are() -> None:
    assert len(ALL) > 100
    assert {"discovery_crews.readers.layout._VALUE", "systems.rhel.0"} <= set(ALL.values())


@pytest.mark.parametrize("name", PATTERNS)
def test_s10_the_kinds_of_values_run_in_re2(name: str) -> None:
    assert whole_value(f"(?is:{PATTERNS[name]})") is not None


def test_s10_keys_in_a_text_are_looked_for_in_re2() -> None:
    """A refused row is searched whole, however long; this one took seconds."""
    assert type(credentials._KEY_HERE).__module__ == "re2"
    assert credentials.mask_keys("eyJ-" * 50_000 + " AKIA" + "A" * 16).endswith(credentials.MASK)


def test_s10_remarks_before_a_document_are_gone_through_once() -> None:
    pattern = json_faults._LIKE_JSON
    few, many = (steps(pattern.pattern, pattern.flags, "/* */ " * n + "x") for n in (6, 12))
    assert many / few < MOST


@pytest.mark.parametrize("text", [" " * 60 + "x", "\t" * 5000 + "x", "/* */ " * 2000 + "x"])
def test_s10_a_file_that_begins_with_blanks_is_looked_at_once(text: str) -> None:
    """Such a file took for ever; now it ends, as JSON or not."""
    assert not json_faults.begins_like_json(text)
    assert json_faults.begins_like_json(text.replace("x", "{}"))


@pytest.mark.parametrize(
    "pattern", [r"(a+)+$", r"(a|a)*b", r"(\w+\s?)*$", r"(x+x+)+y", r"([a-z]+)*=", r"(.*)*,(.*)*;"]
)
def test_s10_a_pattern_of_peoples_is_linear_too(pattern: str) -> None:
    """The steps of `re` would outlast the test's time limit by years."""
    assert not whole_value(pattern)("a" * 50_000 + "!\x00")


def test_s10_what_people_cannot_write_is_named(tmp_path: Path) -> None:
    path = tmp_path / "fields.yaml"
    for pattern, named in ((r"(?=a)b", r"(?="), (r"(a)\1", r"\1"), ("[", "missing ]"),
                           ("a{1000}{1000}", "{1000}")):  # fmt: skip
        path.write_text(f"- name: host\n  pattern: '{pattern}'\n")
        with pytest.raises(DiscoveryError) as refused:
            load_schema(path)
        assert refused.value.code is ErrorCode.INVALID_TARGET_SCHEMA
        assert "field 1: pattern" in refused.value.message
        assert named in refused.value.message
        assert "RE2" in refused.value.message
    path.write_text(f"- name: host\n  pattern: '{'a' * (LONGEST_PATTERN + 1)}'\n")
    with pytest.raises(DiscoveryError, match=f"at most {LONGEST_PATTERN} characters"):
        load_schema(path)


def test_s10_only_the_beginning_of_a_cell_tells_what_it_is() -> None:
    assert len(layout._cut(" " + "x" * 5000)) == layout._TELLING


def test_s10_a_pattern_matches_whole_values_over_lines() -> None:
    assert whole_value("a.b")("a\nb")
    assert not whole_value("a")("ab")
    assert whole_value("[ä-ü]+")("öü")
