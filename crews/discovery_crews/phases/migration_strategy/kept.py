"""Source columns that no field has, and what they say: vendors' keys, and what is no machine.

The inventory keeps such columns as they were (`unmapped`). A vendor's file has a place for some of
them, and a template or a platform's agent is told by them; which headers these are is data
(`kept.yaml`).
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from typing import Any

import duckdb
import yaml

from discovery_crews.readers.presets import column_key
from discovery_crews.tables.engine import identifier, literal
from discovery_crews.tables.values import boolean

_MOREF = r"^(?:vim\.|virtualmachine[-:])*(vm-\d+)$"
_UUID = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"


@lru_cache(maxsize=1)
def _listed() -> dict[str, Any]:
    text = (resources.files(__package__) / "kept.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content


class Kept:
    """SQL over assets `a` for what unmapped columns say; NULL where the source has none of them."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, assets: str, fields: set[str]
    ) -> None:
        self._fields = fields
        self.headers: list[str] = []
        if "unmapped" in fields:
            self.headers = [
                str(name)
                for (name,) in connection.execute(
                    f"SELECT DISTINCT unnest(json_keys(unmapped)) AS k FROM {assets} ORDER BY k"  # noqa: S608 - quoted
                ).fetchall()
            ]

    def text(self, what: str) -> str:
        """The text of a kept column, by its name in the list."""
        by_key = {column_key(header): header for header in self.headers}
        found = [
            f"nullif(trim(json_extract_string(a.unmapped, {literal(path(by_key[key]))})), '')"
            for header in _listed()["columns"][what]
            if (key := column_key(header)) in by_key
        ]
        return f"coalesce({', '.join(found)})" if found else "NULL::VARCHAR"

    @property
    def moref_id(self) -> str:
        """A machine's id within its vCenter (`vm-12`)."""
        return f"nullif(regexp_extract(lower({self.text('moref_id')}), {literal(_MOREF)}, 1), '')"

    @property
    def vcenter_id(self) -> str:
        """The vCenter, for machines that have an id in it."""
        return f"CASE WHEN {self.moref_id} IS NOT NULL THEN {self.text('vcenter_id')} END"

    @property
    def smbios_id(self) -> str:
        """The BIOS's UUID of a machine: a column of its own, or the id that VMware gave it."""
        own = self.text("smbios_id")
        if "asset_id" not in self._fields:
            return own
        whole = f"regexp_full_match(a.asset_id::VARCHAR, {literal(_UUID)})"
        given = f"CASE WHEN {self.moref_id} IS NOT NULL AND {whole} THEN a.asset_id END"
        return f"coalesce({own}, {given})"

    @property
    def is_virtual(self) -> str:
        """Whether it is a virtual machine: said, or it has a hypervisor or an id in a vCenter."""
        known = f"coalesce({self.moref_id}, {self.text('hypervisor')})"
        if "hypervisor_host" in self._fields:
            known = f"coalesce({known}, a.hypervisor_host::VARCHAR)"
        runs = f"CASE WHEN {known} IS NOT NULL THEN true END"
        return f"coalesce(a.is_virtual, {runs})" if "is_virtual" in self._fields else runs

    @property
    def set_apart(self) -> str:
        """Why an asset is no machine that anybody migrates; NULL for all others."""
        cases: list[str] = []
        for entry in _listed()["set_apart"]:
            if "flag" in entry:
                condition = f"coalesce({boolean(self.text(entry['flag']))}, false)"
            else:
                ((what, pattern),) = [item for item in entry.items() if item[0] != "reason"]
                said = f"lower({self._said(what)})"
                condition = f"coalesce(regexp_matches({said}, {literal(pattern)}), false)"
            cases.append(f"WHEN {condition} THEN {literal(entry['reason'])}")
        return f"CASE WHEN a.asset_type <> 'server' THEN NULL {' '.join(cases)} END"

    def _said(self, what: str) -> str:
        if what == "folder":
            return self.text(what)
        return f"a.{identifier(what)}::VARCHAR" if what in self._fields else "NULL::VARCHAR"


def path(header: str) -> str:
    """The JSON path of a column in `unmapped`."""
    return f'$."{header}"'
