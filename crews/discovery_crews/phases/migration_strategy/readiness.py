"""How much of what a migration is decided by is known of an asset: 22 critical attributes.

Infrastructure, application, business and technical debt, as assessment methods of migration
programmes list them. Some can hardly stand in an inventory (how complex the business logic is, how
good the code): they are known where the source has a column for them that is mapped to a field of
the attribute's name, and else they are what people have to be asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

from .facts import Facts

WORKLOADS = ("server", "database", "application")
_MACHINES = ("server", "database")


@dataclass(frozen=True)
class Attribute:
    """A fact that decides: known where one of `fields`, or a field of its name, has a value.

    `all_of` are fields that are needed together; `kinds` the asset types that it is asked of.
    """

    name: str
    category: str
    fields: tuple[str, ...] = ()
    all_of: tuple[str, ...] = ()
    kinds: tuple[str, ...] = WORKLOADS


ATTRIBUTES = (
    Attribute("operating_system", "infrastructure", all_of=("os_name",), kinds=_MACHINES),
    Attribute("sizing", "infrastructure", all_of=("cpu_cores", "memory_gb", "storage_gb"),
              kinds=_MACHINES),
    Attribute("network", "infrastructure", ("ip_address", "subnet", "fqdn"), kinds=_MACHINES),
    Attribute("virtualization", "infrastructure", ("is_virtual", "hypervisor_host", "cluster"),
              kinds=_MACHINES),
    Attribute("performance_baseline", "infrastructure",
              ("cpu_utilization_avg", "cpu_utilization_max", "memory_utilization_avg",
               "memory_utilization_max"), kinds=_MACHINES),
    Attribute("availability", "infrastructure", ("dr_class", "backup_policy")),
    Attribute("technology_stack", "application", ("software", "database_version")),
    Attribute("architecture", "application", ("application_tier",)),
    Attribute("integrations", "application", ("depends_on",)),
    Attribute("data_volume", "application", ("storage_used_gb", "database_count")),
    Attribute("user_load", "application"),
    Attribute("business_logic_complexity", "application"),
    Attribute("configuration_complexity", "application"),
    Attribute("security", "application", ("encryption", "external_access")),
    Attribute("criticality", "business", ("business_criticality",)),
    Attribute("change_tolerance", "business", ("maintenance_window",)),
    Attribute("compliance", "business", ("compliance",)),
    Attribute("stakeholders", "business", ("owner", "business_unit")),
    Attribute("code_quality", "technical_debt"),
    Attribute("vulnerabilities", "technical_debt"),
    Attribute("end_of_life", "technical_debt", ("warranty_end",)),
    Attribute("documentation", "technical_debt", ("description",)),
)  # fmt: skip


def unknown_sql(facts: Facts) -> str:
    """SQL over assets `a` and facts `f`: the attributes of an asset that nothing says."""
    told = ", ".join(
        f"CASE WHEN {_asked(attribute)} AND NOT ({_known(facts, attribute)}) "
        f"THEN '{attribute.name}' END"
        for attribute in ATTRIBUTES
    )
    return f"list_filter([{told}], lambda part: part IS NOT NULL)"


def asked_sql() -> str:
    """SQL over assets `a`: how many attributes are asked of an asset; 0 for no workload."""
    cases = " ".join(
        f"WHEN '{kind}' THEN {sum(kind in attribute.kinds for attribute in ATTRIBUTES)}"
        for kind in WORKLOADS
    )
    return f"CASE a.asset_type {cases} ELSE 0 END"


def _asked(attribute: Attribute) -> str:
    kinds = ", ".join(f"'{kind}'" for kind in attribute.kinds)
    return f"a.asset_type IN ({kinds})"


def _known(facts: Facts, attribute: Attribute) -> str:
    ways = [f"{facts.column(name)} IS NOT NULL" for name in (*attribute.fields, attribute.name)]
    if attribute.all_of:
        ways.append(" AND ".join(f"{facts.column(name)} IS NOT NULL" for name in attribute.all_of))
    if attribute.name == "end_of_life":
        ways.append("f.os_state <> 'unknown' OR f.db_state <> 'unknown'")
    if attribute.name == "integrations":
        ways.append("f.dependents > 0")
    # a comparison with NULL is NULL, and what is not known to be known is unknown
    return "coalesce(" + " OR ".join(f"({way})" for way in ways) + ", false)"
