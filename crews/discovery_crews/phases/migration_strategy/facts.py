"""The facts that a strategy depends on, for every asset, in a table of the engine.

Texts are parsed once per distinct value; everything else is SQL. Missing is missing: a fact that
the inventory does not hold is NULL and never a default.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from pathlib import Path

import duckdb

from discovery_crews.systems import Kind, System, system_of
from discovery_crews.tables.engine import all_columns, identifier, literal
from discovery_crews.tables.meanings import meaning

from .kept import Kept

# Products of which vendors sell the same as a service; words as they stand in inventories.
SERVICE_INSTEAD = (
    "exchange server", "microsoft exchange", "sharepoint", "lotus notes", "lotus domino",
    "hcl domino", "skype for business", "confluence", "jira", "servicenow", "siebel", "peoplesoft",
    "salesforce", "zimbra", "groupwise", "bitbucket", "gitlab", "zendesk", "dynamics crm",
)  # fmt: skip
# Licences and devices that are tied to one machine: they do not move with a copy of it.
_HARDWARE_BOUND = (
    r"\bdongles?\b|\bhardlock\b|\bhasp\b|\bkopierschutzstecker\b|\bnode[ -]?locked\b|"
    r"\busb[ -]?(licen[cs]e|key|token)\b|\bhardware[ -]?key\b|"
    r"\b(mac|host ?id|hardware|cpu)[ -]?(bound|locked)\b|"
    r"\blicen[cs]e[sd]? (is |are )?(bound|locked|tied) to (the |a )?"
    r"(mac|host|hardware|machine|cpu)|"
    r"\blizenz (ist )?(gebunden )?an (die )?(mac|hardware)|"
    r"\b(fax|isdn|modem|serial) (card|karte)\b"
)
_STATED = {
    "rehost": (
        "rehost", "re-host", "rehosting", "lift and shift", "lift & shift", "lift-and-shift",
    ),
    "replatform": ("replatform", "re-platform", "replatforming", "lift and reshape"),
    "refactor": ("refactor", "refactoring", "rearchitect", "re-architect", "rebuild", "modernize"),
    "repurchase": ("repurchase", "replace", "saas", "drop and shop"),
    "retire": (
        "retire", "decommission", "stilllegen", "abschalten", "retirer", "retirar", "dismettere",
        "uitfaseren",
    ),
    "retain": (
        "retain", "revisit", "keep", "behalten", "conserver", "mantener", "manter", "mantenere",
        "behouden",
    ),
}  # fmt: skip


class Facts:
    """Builds the table `facts` in a connection: one row per asset, keyed by identity."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, assets: Path, dependencies: Path
    ) -> None:
        self._connection = connection
        self._assets = f"read_parquet({literal(assets)})"
        self._dependencies = f"read_parquet({literal(dependencies)})"
        self.fields = set(all_columns(connection, assets))
        self.kept = Kept(connection, self._assets, self.fields)

    def column(self, field: str, otherwise: str = "NULL") -> str:
        """The field's column of the inventory `a`, or a NULL where it is not mapped."""
        return f"a.{identifier(field)}" if field in self.fields else otherwise

    def text(self, *fields: str) -> str:
        """Fields as one lower-case text; NULL where all are missing."""
        present = [self._as_text(name) for name in fields if name in self.fields]
        return f"nullif(lower(concat_ws(' ', {', '.join(present)})), '')" if present else "NULL"

    def _as_text(self, field: str) -> str:
        name = self.column(field)
        kind = self._connection.execute(
            f"SELECT typeof({name}) FROM {self._assets} AS a LIMIT 1"  # noqa: S608 - quoted
        ).fetchone()
        is_list = kind is not None and str(kind[0]).endswith("[]")
        return f"array_to_string({name}, ' ')" if is_list else name

    def build(self, today: dt.date) -> None:
        """Create `facts`."""
        self._systems(
            "os_text", self.text("os_name", "os_version"), "os", "operating_systems", today
        )
        database = self.text("database_version")
        if "software" in self.fields:
            database = f"coalesce({database}, {self.text('software')})"
        self._systems("db_text", database, "database", "databases", today)
        self._dependents()
        stated = self._stated()
        words = self.text("application_name", "software", "asset_name", "name")
        service = " OR ".join(f"contains({words}, {literal(name)})" for name in SERVICE_INSTEAD)
        notes = self.text("application_name", "software", "description", "tags", "model")
        bound = f"regexp_matches({notes}, {literal(_HARDWARE_BOUND)})"
        power, status = self.text("power_state"), self.text("lifecycle_status")
        self._connection.execute(
            f"""
            CREATE TEMP TABLE facts AS
            SELECT a.identity, a.name, a.asset_type,
                {stated} AS stated, {self.kept.set_apart} AS set_apart,
                CASE {meaning(power, "power")} WHEN 'off' THEN false WHEN 'on' THEN true END
                    AS powered_on,
                coalesce({meaning(status, "lifecycle")} = 'retired', false) AS retired,
                coalesce({service}, false) AS service_instead,
                coalesce({bound}, false) AS hardware_bound,
                coalesce(d.dependents, 0) AS dependents,
                (SELECT count(*) > 0 FROM {self._dependencies}
                    WHERE kind IN ('depends_on', 'connects_to')) AS dependencies_known,
                os.product AS os_product, os.name AS os, os.state AS os_state,
                os.ends AS os_ends, coalesce(os.native, true) AS os_native,
                db.product AS db_product, db.name AS db, db.state AS db_state,
                db.ends AS db_ends, coalesce(db.managed, false) AS db_managed
            FROM {self._assets} AS a
            LEFT JOIN dependents AS d USING (identity)
            LEFT JOIN os_text AS ot USING (identity)
            LEFT JOIN operating_systems AS os ON os.text = ot.text
            LEFT JOIN db_text AS dt USING (identity)
            LEFT JOIN databases AS db ON db.text = dt.text
            """  # noqa: S608 - identifiers and literals are quoted
        )

    def _stated(self) -> str:
        """SQL: the strategy that the source states; none where its words say two things."""
        said = self.text("migration_strategy")
        found = ", ".join(
            f"CASE WHEN regexp_matches({said}, {literal(_any_of(words))}) "
            f"THEN {literal(strategy)} END"
            for strategy, words in _STATED.items()
        )
        stated = f"list_filter([{found}], lambda part: part IS NOT NULL)"
        return f"CASE WHEN len({stated}) = 1 THEN {stated}[1] END"

    def _systems(self, texts: str, expression: str, kind: Kind, table: str, today: dt.date) -> None:
        """Table `texts` (identity, text), and `table` with what each distinct text means."""
        self._connection.execute(
            f"CREATE TEMP TABLE {texts} AS SELECT a.identity, {expression} AS text "  # noqa: S608 - quoted
            f"FROM {self._assets} AS a"
        )
        distinct = self._connection.execute(
            f"SELECT DISTINCT text FROM {texts} WHERE text IS NOT NULL ORDER BY text"  # noqa: S608 - names
        ).fetchall()
        found = [(text, system_of(text, kind)) for (text,) in distinct]
        _store(self._connection, table, found, today)

    def _dependents(self) -> None:
        self._connection.execute(
            f"""
            CREATE TEMP TABLE dependents AS
            SELECT to_identity AS identity, count(DISTINCT from_identity) AS dependents
            FROM {self._dependencies}
            WHERE to_identity IS NOT NULL AND kind IN ('depends_on', 'connects_to', 'runs_on')
            GROUP BY 1
            """  # noqa: S608 - identifiers and literals are quoted
        )


def _store(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    found: Iterable[tuple[str, System | None]],
    today: dt.date,
) -> None:
    connection.execute(
        f"CREATE TEMP TABLE {table} (text VARCHAR, product VARCHAR, name VARCHAR, version VARCHAR, "
        "state VARCHAR, ends DATE, native BOOLEAN, managed BOOLEAN)"
    )
    rows = [
        (text, s.product, s.name, s.version, s.state(today), s.ends,
         s.native, s.managed)
        for text, s in found if s is not None
    ]  # fmt: skip
    if rows:
        connection.executemany(f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)  # noqa: S608 - a name of ours


def _any_of(words: Iterable[str]) -> str:
    """An expression that finds one of the words, whole."""
    return rf"\b({'|'.join(map(re.escape, words))})\b"
