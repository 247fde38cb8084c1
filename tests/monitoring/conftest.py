"""A database behind a door, and an API server in memory, for one module's processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy.engine import URL

from tests.monitoring.background import Background
from tests.monitoring.kubernetes import FakeApiServer
from tests.monitoring.proxy import DatabaseProxy


@dataclass
class Installation:
    """What the processes are started on."""

    background: Background
    kubernetes: FakeApiServer
    proxy: DatabaseProxy
    postgres: URL
    database: str

    def url(self, role: str) -> str:
        """The database's address through the door, for one of the product's roles."""
        return self.proxy.url(f"discovery_{role}", self.database)

    def direct(self) -> str:
        """Its address beside the door, as superuser."""
        url = self.postgres.set(drivername="postgresql", database=self.database)
        return url.render_as_string(hide_password=False)

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Runs a statement as superuser."""
        with psycopg.connect(self.direct(), autocommit=True) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def shut_database(self) -> None:
        """No process reaches the database any more."""
        self.background.run(self.proxy.shut())

    def open_database(self) -> None:
        """It is back."""
        self.background.run(self.proxy.open())

    def apply(self, name: str, namespace: str = "team-a", **spec: Any) -> UUID:
        """Creates or changes a DiscoveryFlow; returns its uid."""
        whole = {"source": {"configMap": {"name": "servers", "key": "servers.csv"}}} | spec
        raw = self.background.run(
            self.kubernetes.put("discoveryflows", namespace, name, spec=whole)
        )
        return UUID(raw["metadata"]["uid"])


@pytest.fixture(scope="module")
def installation(postgres: URL, template: str) -> Iterator[Installation]:
    """An empty one: a migrated database, an API server with two namespaces."""
    database = f"monitoring_{uuid4().hex[:12]}"
    superuser = postgres.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(superuser, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {database} TEMPLATE {template}")
    background = Background()
    kubernetes, proxy = FakeApiServer(), DatabaseProxy(postgres)
    background.run(kubernetes.start())
    background.run(proxy.open())
    made = Installation(background, kubernetes, proxy, postgres, database)
    for namespace in ("kube-system", "team-a", "team-b"):
        background.run(kubernetes.put("namespaces", "", namespace))
    for namespace in ("team-a", "team-b"):
        data = {"servers.csv": "name\nweb01\n"}
        background.run(kubernetes.put("configmaps", namespace, "servers", data=data))
    for kind in ("validatingadmissionpolicies", "validatingadmissionpolicybindings"):
        for name in ("discoveryflow-approval", "discoveryflow-crews"):
            background.run(kubernetes.put(kind, "", name, spec={"validationActions": ["Deny"]}))
    yield made
    background.run(kubernetes.stop())
    background.close()
    with psycopg.connect(superuser, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {database} WITH (FORCE)")
