"""The kinds of values that inventories hold, as regular expressions for the engine.

One list serves the profile, the mapping tools and the cleansing rules, so that all of them mean
the same by "an IPv4 address". Expressions are RE2 syntax (https://github.com/google/re2) and
match a whole trimmed value, without case. Patterns that people write run in the same engine: its
time grows with the text and with nothing else, whatever the pattern is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import re2

from .units import FREQUENCY_WORDS, RATE_WORDS, SIZE_WORDS

LONGEST_PATTERN = 1000
# bytes that a pattern of people's may take, compiled
_PATTERN_MEMORY = 1 << 20
_OCTET = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_NUMBER = r"[-+]?[0-9][0-9 .,']*"
SIZE_UNITS = rf"({SIZE_WORDS}|{FREQUENCY_WORDS}|{RATE_WORDS}|iops|cores?|vcpus?|cpus?)"

# yes and no in English, German, French, Spanish, Portuguese, Italian and Dutch
TRUE_WORDS = (
    "true", "yes", "y", "on", "enabled", "ja", "j", "wahr", "oui", "o", "vrai", "si", "s\u00ed",
    "verdadero", "sim", "verdadeiro", "vero", "waar",
)  # fmt: skip
FALSE_WORDS = (
    "false", "no", "n", "off", "disabled", "nein", "falsch", "non", "faux", "falso", "nao",
    "n\u00e3o", "nee", "onwaar",
)  # fmt: skip

PATTERNS: dict[str, str] = {
    "ipv4": rf"{_OCTET}(\.{_OCTET}){{3}}(/[0-9]{{1,2}})?",
    "ipv6": (
        r"(([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}|[0-9a-f:]*::[0-9a-f:.]*)"
        r"(%[a-z0-9]+)?(/[0-9]{1,3})?"
    ),
    "mac": r"([0-9a-f]{2}[:-]){5}[0-9a-f]{2}|([0-9a-f]{4}\.){2}[0-9a-f]{4}",
    "uuid": r"\{?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\}?",
    "fqdn": r"([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z]\.?",
    "hostname": r"[a-z][a-z0-9_-]*[0-9][a-z0-9_-]*|[a-z][a-z0-9]*([_-][a-z0-9]+)+",
    "email": r"[^@\s]+@[^@\s]+\.[a-z]{2,}",
    "url": r"[a-z][a-z0-9+.-]*://\S+",
    "integer": r"[-+]?[0-9]+",
    "decimal": r"[-+]?([0-9]+[.,][0-9]+|[0-9]{1,3}([., '][0-9]{3})+([.,][0-9]+)?)",
    "date": (
        r"[0-9]{4}[-/.][0-9]{1,2}[-/.][0-9]{1,2}|[0-9]{1,2}[-/.][0-9]{1,2}[-/.][0-9]{4}|"
        r"[0-9]{1,2}[- ][a-z]{3}[a-z]*[- ][0-9]{2,4}"
    ),
    "datetime": (
        r"([0-9]{4}[-/.][0-9]{1,2}[-/.][0-9]{1,2}|[0-9]{1,2}[-/.][0-9]{1,2}[-/.][0-9]{4})"
        r"[t ]+[0-9]{1,2}:[0-9]{2}(:[0-9]{2}([.,][0-9]+)?)?( ?[ap]m)?(z|[+-][0-9]{2}:?[0-9]{2})?"
    ),
    "boolean": "|".join((*TRUE_WORDS, *FALSE_WORDS)),
    "percent": r"[-+]?[0-9]+([.,][0-9]+)? ?%",
    "size": rf"{_NUMBER} ?{SIZE_UNITS}",
    "key_value": r"[a-z_][a-z0-9_. -]*=[^=;]*([;,] ?[a-z_][a-z0-9_. -]*=[^=;]*)*;?",
    "list": r"[^;]+(;[^;]+)+;?|[^|]+(\|[^|]+)+\|?|[^,]+(, ?[^,]+)+|\[.*\]",
    "os": (
        r".*\b(windows( server)?|linux|red ?hat|rhel|centos|ubuntu|debian|suse|sles|oracle linux|"
        r"fedora|rocky|alma|aix|solaris|hp-?ux|esxi?|freebsd|macos)\b.*"
    ),
    "version": r"v?[0-9]+(\.[0-9]+){1,4}([-_ ]?[a-z0-9]+)?",
    "placeholder": (
        r"n/?a|n\.a\.|-+|\?+|\.+|unknown|none|null|nil|nan|undefined|tbd|tbc|not available|"
        r"not applicable|not specified|to be determined|to be filled by o\.e\.m\.|default string|"
        r"#n/a|#ref!|#value!|#name\?|unbekannt|keine angabe|k\. ?a\.|inconnue?|"
        r"non renseign[ée]e?|"
        r"desconocid[oa]|sin datos?|s/d|n/d|desconhecid[oa]|sconosciut[oa]|onbekend|nvt|n\.v\.t\."
    ),
}


def matches(value: str, pattern: str) -> str:
    """SQL: whether the expression `value` as a whole has the named pattern."""
    expression = PATTERNS[pattern].replace("'", "''")
    return f"regexp_full_match(trim({value}), '(?is:{expression})')"


@lru_cache(maxsize=1024)
def whole_value(pattern: str) -> Callable[[str], bool]:
    """Whether a value as a whole matches a pattern that somebody has written.

    Raises ValueError naming what RE2 cannot do, such as look-aheads and back-references.
    """
    options = re2.Options()
    options.log_errors = False
    options.dot_nl = True
    options.max_mem = _PATTERN_MEMORY
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0] if error.args else ""
        problem = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise ValueError(
            f"{pattern!r} cannot be used: {problem}. Patterns are regular expressions of RE2 "
            "(https://github.com/google/re2/wiki/Syntax), which has no look-around and no "
            "back-references"
        ) from error
    return lambda value: compiled.fullmatch(value) is not None
