"""What a migration plan needs to know of an asset, and which assets do not say it.

Azure Migrate requires name, cores, memory and operating system; AWS needs one key of several; the
rest is what a planner asks for before a wave is fixed.
"""

from __future__ import annotations

from .facts import Facts

NEEDED: dict[str, tuple[str, ...]] = {
    "server": (
        "os_name", "cpu_cores", "memory_gb", "storage_gb", "ip_address", "environment",
        "application_name", "owner", "business_criticality",
    ),
    "database": (
        "database_version", "storage_gb", "environment", "application_name", "owner",
        "business_criticality", "backup_policy",
    ),
    "application": ("owner", "business_criticality", "environment", "business_unit"),
}  # fmt: skip


def gaps_sql(facts: Facts) -> str:
    """SQL: the fields that an asset lacks, as a list of names."""
    cases = []
    for kind, fields in NEEDED.items():
        told = ", ".join(
            f"CASE WHEN {facts.column(name)} IS NULL THEN '{name}' END"
            if name in facts.fields
            else f"'{name}'"
            for name in fields
        )
        cases.append(f"WHEN '{kind}' THEN list_filter([{told}], lambda part: part IS NOT NULL)")
    return f"CASE a.asset_type {' '.join(cases)} ELSE []::VARCHAR[] END"
