"""IP addresses as exports write them: several in a cell, with prefix lengths, ports and brackets.

One that is no address must not become the address of a machine, and one that every machine may
have (link-local, loopback) must not stand first, since the first is what other tools match by.
Everything is a SQL expression over text.
"""

from __future__ import annotations

from .engine import literal

_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rf"{_OCTET}(\.{_OCTET}){{3}}"
_IPV6 = rf"[0-9a-f]{{0,4}}(:[0-9a-f]{{0,4}}){{2,7}}(:{_IPV4})?"
# brackets, quotes and separators of lists, PowerShell's braces and JSON
_SEPARATORS = r"[\s,;|<>(){}\[\]\x{22}']+"
# a second address behind a slash is no prefix length
_SLASH = r"/(\d+\.\d+\.|[0-9a-fA-F]*:)"
# behind an address: prefix length, zone, port; a netmask is the other way to write a prefix
_PREFIX, _ZONE, _PORT = r"/\d{1,3}$", r"%[^/]*", rf"^({_IPV4}):\d{{1,5}}$"
_NETMASK = r"^(255|254|252|248|240|224|192|128)\.(255|254|252|248|240|224|192|128|0)(\.(255|254|252|248|240|224|192|128|0)){2}$"  # noqa: E501
_LOCAL = (
    r"^(127\.|169\.254\.|22[4-9]\.|23[0-9]\.|fe[89ab][0-9a-f]:|ff[0-9a-f]{2}:|::1$|0+(:0+)*:0*1$)"
)
_NOWHERE = r"^(0\.0\.0\.0|[:0]+)$"


def _parts(text: str) -> str:
    """The words of a cell, in lower case, without what stands around an address."""
    apart = f"regexp_replace(lower({text}), {literal(_SLASH)}, ' \\1', 'g')"
    parts = f"string_split_regex({apart}, {literal(_SEPARATORS)})"
    bare = f"regexp_replace(regexp_replace(part, {literal(_ZONE)}, ''), {literal(_PREFIX)}, '')"
    bare = f"regexp_replace({bare}, {literal(_PORT)}, '\\1')"
    return f"list_transform({parts}, lambda part: {bare})"


def _is_address(part: str) -> str:
    once = (
        f"length({part}) - length(replace({part}, '::', '')) <= 2 AND NOT contains({part}, ':::')"
    )
    whole = f"(contains({part}, '::') OR length({part}) - length(replace({part}, ':', '')) = 7)"
    return (
        f"(regexp_full_match({part}, {literal(_IPV4)}) OR "
        f"(regexp_full_match({part}, {literal(_IPV6)}) AND {once} AND {whole})) "
        f"AND NOT regexp_matches({part}, {literal(_NOWHERE)})"
    )


def _is_mask(part: str) -> str:
    mask = f"regexp_matches({part}, {literal(_NETMASK)})"
    return f"{mask} AND NOT regexp_matches({part}, '^(192|128)\\.')"


def routable(address: str) -> str:
    """SQL: whether other machines can reach the address; not link-local, loopback or multicast."""
    return f"NOT regexp_matches({address}, {literal(_LOCAL)})"


def addresses(text: str) -> str:
    """SQL: VARCHAR[] of the distinct addresses in a text, routable ones first; NULL for none.

    Prefix lengths, zones and ports are dropped; what is no address is left out (`not_addresses`).
    """
    valid = (
        f"list_filter({_parts(text)}, lambda part: {_is_address('part')} "
        f"AND NOT ({_is_mask('part')}))"
    )
    return ordered(valid)


def ordered(found: str) -> str:
    """SQL: a list of addresses without repetitions, routable ones first; NULL for an empty one."""
    unique = "list_filter(found, lambda part, spot: list_position(found, part) = spot)"
    first = f"list_filter(once, lambda part: {routable('part')})"
    last = f"list_filter(once, lambda part: NOT ({routable('part')}))"
    both = f"CASE WHEN len(once) > 0 THEN list_concat({first}, {last}) END"
    # an expression is bound by a list of one, so that it is reckoned once
    return (
        f"list_transform(list_transform([{found}], lambda found: {unique}), lambda once: {both})[1]"
    )


def not_addresses(text: str) -> str:
    """SQL: whether a text has something that is no address; JSON's own words do not count."""
    odd = (
        f"list_filter({_parts(text)}, lambda part: part NOT IN ('', '/', '-', '\\u2026', '...') "
        f"AND NOT (({_is_address('part')}) OR {_is_mask('part')}))"
    )
    return f"(len({odd}) > 0 AND NOT regexp_matches({text}, '^\\s*[\\[{{].*\\x{{22}}\\s*:'))"
