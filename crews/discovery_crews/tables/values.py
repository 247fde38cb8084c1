"""SQL that turns the texts of exports into typed values, and says so where it cannot.

Every function takes a SQL expression of text and gives a SQL expression; NULL means missing or
not convertible, which `… IS NULL AND text IS NOT NULL` tells apart.
"""

from __future__ import annotations

from collections.abc import Iterable

from .engine import literal
from .patterns import FALSE_WORDS, TRUE_WORDS
from .units import convertible, factor, spellings_like

_NUMBER = r"^\s*[~≈]?\s*([-+]?[0-9][0-9.,'\s\x{00A0}\x{202F}]*)\s*([a-zA-Z%][a-zA-Z/%]*)?\s*$"
# words after a count that carry no unit
_COUNT_WORDS = (
    "('', 'core', 'cores', 'cpu', 'cpus', 'vcpu', 'vcpus', 'socket', 'sockets', 'disk', 'disks')"
)
CLEAR_SEPARATORS = r"\s*[;|\n]\s*"
SEPARATORS = CLEAR_SEPARATORS + r"|\s*,\s*"
_TRUE_TOO = ("1", "x", "virtual", "vm", "virtual machine")
_FALSE_TOO = ("0", "physical", "bare metal", "baremetal")
_DATES = ("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%d-%b-%Y", "%d %b %Y", "%d %B %Y")
_MOMENTS = tuple(
    day + time
    for day in ("%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y")
    for time in (" %H:%M", " %H:%M:%S", "T%H:%M:%S", "T%H:%M:%SZ")
)


def digits_of(text: str) -> str:
    """The number's sign, digits, points and commas; '' where a text is no number with a unit."""
    found = f"regexp_extract({text}, '{_quoted(_NUMBER)}', 1)"
    return rf"regexp_replace({found}, '[''\s\x{{00A0}}\x{{202F}}]', '', 'g')"


def _quoted(expression: str) -> str:
    return expression.replace("'", "''")


def unit_text(text: str) -> str:
    """The lower-case word after the number, '' for none."""
    return f"lower(coalesce(regexp_extract({text}, '{_quoted(_NUMBER)}', 2), ''))"


def plain_number(text: str, *, decimal_comma: bool) -> str:
    """A DOUBLE. `decimal_comma` decides the one case that is open: `1,234` and `1.234`.

    Which of both a column means is decided by `tables.numbers`.
    """
    digits = digits_of(text)
    swapped = f"replace(replace({digits}, '.', ''), ',', '.')"
    ungrouped = f"replace({digits}, ',', '')"
    last_comma = f"strpos(reverse({digits}), ',') < strpos(reverse({digits}), '.')"
    grouped_commas, grouped_points = (
        (f"replace({digits}, ',', '.')", f"replace({digits}, '.', '')")
        if decimal_comma
        else (ungrouped, digits)
    )
    return f"""try_cast(CASE
        WHEN {digits} LIKE '%,%' AND {digits} LIKE '%.%' THEN
            CASE WHEN {last_comma} THEN {swapped} ELSE {ungrouped} END
        WHEN regexp_full_match({digits}, '[-+]?[0-9]{{1,3}}(,[0-9]{{3}}){{2,}}') THEN {ungrouped}
        WHEN regexp_full_match({digits}, '[-+]?[0-9]{{1,3}}([.][0-9]{{3}}){{2,}}')
            THEN replace({digits}, '.', '')
        WHEN regexp_full_match({digits}, '[-+]?[1-9][0-9]{{0,2}},[0-9]{{3}}') THEN {grouped_commas}
        WHEN regexp_full_match({digits}, '[-+]?[1-9][0-9]{{0,2}}[.][0-9]{{3}}')
            THEN {grouped_points}
        WHEN regexp_full_match({digits}, '[-+]?[0-9]{{1,2}}(,[0-9]{{2}})+,[0-9]{{3}}')
            THEN {ungrouped}
        ELSE replace({digits}, ',', '.') END AS DOUBLE)"""


def number(text: str, target: str | None, source: str | None, *, decimal_comma: bool) -> str:
    """A DOUBLE in the unit `target`, from texts in `source` or with a unit of their own.

    Without a target unit a number may be followed by a word of counting (`4 cores`).
    """
    value = plain_number(text, decimal_comma=decimal_comma)
    word = unit_text(text)
    if target is None:
        return _finite(f"CASE WHEN {word} IN {_COUNT_WORDS} THEN {value} END")
    if source and not convertible(source, target):
        # a percentage is no amount: bare numbers are not the field's, but one with a unit may be
        own = "NULL"
    else:
        own = repr(factor(source, target) if source else 1.0)
    cases = " ".join(
        f"WHEN {literal(spelling)} THEN {factor(unit, target)!r}"
        for spelling, unit in sorted(spellings_like(target).items())
    )
    scale = f"CASE {word} WHEN '' THEN {own} {cases} END"
    return _finite(f"round(({value}) * ({scale}), 6)")


def _finite(value: str) -> str:
    """SQL: the number, or NULL where it is beyond all sizes, which nothing can reckon with."""
    return f"nullif(nullif({value}, 'inf'::DOUBLE), '-inf'::DOUBLE)"


def unit_read(text: str, target: str, source: str | None) -> str:
    """The unit in which `number` read a text: its own, else `source`, else the target's."""
    cases = " ".join(
        f"WHEN {literal(spelling)} THEN {literal(unit)}"
        for spelling, unit in sorted(spellings_like(target).items())
    )
    return f"CASE {unit_text(text)} WHEN '' THEN {literal(source or target)} {cases} END"


def whole_number(text: str, *, decimal_comma: bool) -> str:
    """A BIGINT; a text with a fraction is not convertible."""
    value = number(text, None, None, decimal_comma=decimal_comma)
    return f"CASE WHEN ({value}) = floor({value}) THEN try_cast({value} AS BIGINT) END"


def words(listed: Iterable[str]) -> str:
    """A SQL list of texts, for `IN`."""
    return f"({', '.join(map(literal, listed))})"


def boolean(text: str) -> str:
    """A BOOLEAN from yes/no in several languages, true/false, on/off, 1/0, virtual/physical."""
    word = f"lower(trim({text}))"
    true, false = words((*TRUE_WORDS, *_TRUE_TOO)), words((*FALSE_WORDS, *_FALSE_TOO))
    return f"CASE WHEN {word} IN {true} THEN true WHEN {word} IN {false} THEN false END"


def date(text: str) -> str:
    """An ISO 8601 date or moment as text; only forms that can be read in one way."""
    days = ", ".join(literal(form) for form in _DATES)
    moments = ", ".join(literal(form) for form in _MOMENTS)
    trimmed = f"trim({text})"
    return (
        f"coalesce(strftime(try_strptime({trimmed}, [{days}]), '%Y-%m-%d'), "
        f"strftime(try_strptime({trimmed}, [{moments}]), '%Y-%m-%dT%H:%M:%S'))"
    )


def text_list(text: str, separators: str = SEPARATORS) -> str:
    """A VARCHAR[] of the distinct parts of `a; b | c, d` or of a JSON array, in order.

    JSON objects stay whole, also where cleansing has written them one after another.
    """
    split = f"string_split_regex(trim({text}), '{separators}')"
    parsed = f"try_cast(try_cast({text} AS JSON) AS VARCHAR[])"
    listed = rf"'[' || regexp_replace({text}, '\}}\s*[;|\n]\s*\{{', '}},{{', 'g') || ']'"
    objects = f"coalesce(try_cast(try_cast({listed} AS JSON) AS VARCHAR[]), [{text}])"
    parts = (
        f"CASE WHEN trim({text}) LIKE '[%' THEN coalesce({parsed}, {split}) "
        f"WHEN trim({text}) LIKE '{{%}}' THEN {objects} ELSE {split} END"
    )
    filled = f"list_filter({parts}, lambda part: trim(part) <> '')"
    unique = f"list_filter({filled}, lambda part, spot: list_position({filled}, part) = spot)"
    return f"CASE WHEN len({filled}) > 0 THEN {unique} END"


def string(text: str) -> str:
    """The trimmed text, NULL when nothing is left."""
    return f"nullif(trim({text}), '')"
