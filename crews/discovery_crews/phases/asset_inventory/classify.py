"""SQL for classes and identities of assets.

An asset's class and its identity must come out the same for the same rows whoever chose the
rules, because rows of later imports merge by the identity. So both are expressions over the
converted fields, and only their selection is open.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from discovery_crews.tables.addresses import routable
from discovery_crews.tables.engine import identifier, literal
from discovery_crews.tables.patterns import matches

from .plan import CLASS_RULES, IDENTITY_KEYS, NAME_AND_IP
from .worthless import IDENTIFIERS, is_no_identifier, is_no_name

KEY = "__key."
_MAX_KEY = 400
NAME_FIELDS = ("hostname", "fqdn", "asset_name")
_MACHINE = r"\b(server|servers|vm|vms|virtual machine|virtual|host|hypervisor|physical|instance|blade|esxi?|node|workstation|desktop|laptop|computer|compute)\b"  # noqa: E501
_NETWORK = r"\b(switch|router|firewall|load ?balancer|network|access point|gateway|nexus|catalyst|netscaler|big-?ip|fortigate|vpn)\b"  # noqa: E501
_STORAGE = r"\b(storage|san|nas|filer|disk array|array|tape|netapp|vnx|powerstore|isilon|3par)\b"
_DATABASE = r"\b(database|db|dbms|rdbms|sql|schema)\b"
_APPLICATION = r"\b(application|app|service|software|business service|web service|website)\b"
_WORD_FIELDS = ("asset_type", "model", "manufacturer")


def _has(fields: Collection[str], *names: str) -> str:
    present = [f"{identifier(name)} IS NOT NULL" for name in names if name in fields]
    return "(" + " OR ".join(present or ["false"]) + ")"


def _words(fields: Collection[str], *names: str) -> str:
    present = [f"coalesce({identifier(name)}, '')" for name in names if name in fields]
    return "lower(" + " || ' ' || ".join(present or ["''"]) + ")"


def _found(text: str, expression: str) -> str:
    return f"regexp_matches({text}, {literal(expression)})"


def usable_fields(fields: dict[str, bool]) -> list[str]:
    """Fields (name to "is a list") for class rules: a list has presence, but no words."""
    return [name for name, is_list in fields.items() if not is_list or name not in _WORD_FIELDS]


def class_rule(rule: str, fields: Collection[str]) -> str:
    """The class that one rule gives a row, NULL where it does not apply."""
    if rule == "by_type_column":
        text = _words(fields, "asset_type")
        return (
            f"CASE WHEN {_found(text, _MACHINE)} THEN 'server' "
            f"WHEN {_found(text, _DATABASE)} THEN 'database' "
            f"WHEN {_found(text, _NETWORK)} THEN 'network' "
            f"WHEN {_found(text, _STORAGE)} THEN 'storage' "
            f"WHEN {_found(text, _APPLICATION)} THEN 'application' END"
        )
    if rule == "by_model":
        text = _words(fields, "model", "manufacturer")
        return (
            f"CASE WHEN {_found(text, _NETWORK)} THEN 'network' "
            f"WHEN {_found(text, _STORAGE)} THEN 'storage' END"
        )
    hardware = _has(fields, "os_name", "cpu_cores", "memory_gb", "os_version")
    address = _has(fields, "ip_address", "mac_address", "hostname", "fqdn", "serial_number")
    if rule == "by_database":
        database = _has(fields, "database_version", "database_count")
        return f"CASE WHEN {database} AND NOT {hardware} THEN 'database' END"
    if rule == "by_application":
        application = _has(fields, "application_name")
        return (
            f"CASE WHEN {application} AND NOT {hardware} AND NOT {address} THEN 'application' END"
        )
    power = _has(fields, "power_state", "hypervisor_host", "is_virtual")
    return f"CASE WHEN {hardware} OR {address} OR {power} THEN 'server' END"


def asset_type(rules: Sequence[str], default: str, fields: Collection[str]) -> str:
    """The class of a row: the first chosen rule that applies, in the order of the closed list."""
    chosen = [class_rule(rule, fields) for rule in CLASS_RULES if rule in rules]
    return f"coalesce({', '.join([*chosen, literal(default)])})"


def class_rule_of(rules: Sequence[str], fields: Collection[str]) -> str:
    """The rule that gave a row its class, `default` where none did."""
    cases = " ".join(
        f"WHEN ({class_rule(rule, fields)}) IS NOT NULL THEN {literal(rule)}"
        for rule in CLASS_RULES
        if rule in rules
    )
    return f"CASE {cases} ELSE 'default' END" if cases else "'default'"


def key_value(key: str, fields: Mapping[str, bool]) -> str:
    """The comparable form of a key: lower case, no spaces, nothing that means nothing.

    `fields` are the mapped ones, and whether each is a list.
    """
    if key == NAME_AND_IP:
        address = f"left({_field_value('ip_address', is_list=fields['ip_address'])}, 60)"
        return f"left({short_name(fields)}, {_MAX_KEY}) || ' ' || {address}"
    return _field_value(key, is_list=fields[key])


def short_name(fields: Mapping[str, bool], names: Sequence[str] = NAME_FIELDS) -> str:
    """The name of a row without its domain, comparable; NULL where none of `names` is mapped."""
    return f"coalesce({', '.join([*short_names(fields, names), 'NULL'])})"


def short_names(fields: Mapping[str, bool], names: Sequence[str] = NAME_FIELDS) -> list[str]:
    """The same of every name of a row, those that say most first."""
    return [
        rf"CASE WHEN {matches(value, 'ipv4')} THEN {value} "
        rf"ELSE regexp_replace({value}, '^([a-z0-9_-]+)(\.[a-z0-9_-]+)+$', '\1') END"
        for name in NAME_FIELDS
        if name in names and name in fields
        for value in [_field_value(name, is_list=fields[name])]
    ]


def _field_value(field: str, *, is_list: bool) -> str:
    name = identifier(field)
    text = f"{name}[1]" if is_list else name
    folded = f"lower(trim({text}))"
    if field == "fqdn":
        folded = f"rtrim({folded}, '.')"
    if field == "asset_id":
        folded = f"trim({folded}, '{{}}')"
    # a link-local address is that of many
    local = f"NOT ({routable(folded)}) OR " if field == "ip_address" else ""
    nothing = is_no_identifier(folded) if field in IDENTIFIERS else is_no_name(folded)
    return (
        f"CASE WHEN {local}{folded} = '' OR {nothing} THEN NULL "
        f"WHEN length({folded}) > {_MAX_KEY} THEN left({folded}, {_MAX_KEY}) || md5({folded}) "
        f"ELSE {folded} END"
    )


def available_keys(fields: Collection[str]) -> list[str]:
    """The identity keys that are mapped, strongest first."""
    combined = "ip_address" in fields and any(name in fields for name in NAME_FIELDS)
    return [name for name in IDENTITY_KEYS if name in fields or (name == NAME_AND_IP and combined)]
