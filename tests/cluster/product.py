"""The installed product as cluster tests use it: flows, what the database says, the operator."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.kube import Kubectl, Looks, eventually

INSTALLED_IN = "discoveryflow"
DATABASE_POD = "discoveryflow-postgresql-0"
PSQL = ("psql", "-U", "postgres", "-h", "/var/run/postgresql", "-d", "discoveryflow")
SAMPLE = (
    "Name,OS,RAM (MB),CPUs,IP\nweb01,Debian 12,4096,2,10.0.0.1\nweb02,Debian 12,8192,4,10.0.0.2\n"
)
ENDED = ("Succeeded", "Failed", "Rejected", "Cancelled")


@dataclass(frozen=True)
class Product:
    """The release that `provision install` has installed."""

    admin: Kubectl

    @property
    def kubectl(self) -> Kubectl:
        """Runs kubectl in the product's namespace."""
        return self.admin.within(INSTALLED_IN)

    def sql(self, query: str) -> list[list[str]]:
        """Rows of a query or what a change says, as the database's superuser."""
        told = self.kubectl("exec", DATABASE_POD, "--", *PSQL, "-At", "-F", "\t", "-c", query)
        return [line.split("\t") for line in told.splitlines()]

    def empty_database(self) -> None:
        """Takes all that the product has made in PostgreSQL away, as a new server lacks it."""
        roles = "discovery_operator, discovery_execution, discovery_api, discovery_owner"
        psql = (*PSQL[:-1], "postgres", "-v", "ON_ERROR_STOP=1")
        # in this order, or a session would outlive its role, as it cannot on a new server
        for statement in (
            "DROP DATABASE discoveryflow WITH (FORCE)",
            f"DROP ROLE {roles}",
            "CREATE DATABASE discoveryflow",
        ):
            self.kubectl("exec", DATABASE_POD, "--", *psql, "-c", statement)

    def kill_operator(self) -> None:
        """Ends the operator without any chance to tidy up; its Deployment makes another."""
        self.kubectl(
            "delete", "pod", "-l", "app.kubernetes.io/component=operator",
            "--grace-period=0", "--force",
        )  # fmt: skip


_looks = functools.cache(Looks)


@dataclass
class Flow:
    """One DiscoveryFlow in a namespace of its own."""

    kubectl: Kubectl
    product: Product
    name: str = "servers"
    spec: dict[str, Any] = field(default_factory=dict)

    def source(self, content: str | Path = SAMPLE, *, name: str = "servers") -> None:
        """Makes the ConfigMap that the flow reads."""
        if isinstance(content, Path):
            self.kubectl("create", "configmap", name, f"--from-file=servers.csv={content}")
        else:
            self.kubectl("create", "configmap", name, f"--from-literal=servers.csv={content}")

    def create(self) -> None:
        """Applies the DiscoveryFlow."""
        spec = {"source": {"configMap": {"name": "servers", "key": "servers.csv"}}, **self.spec}
        self.kubectl.apply(
            {
                "apiVersion": "discoveryflow.dev/v1alpha1",
                "kind": "DiscoveryFlow",
                "metadata": {"name": self.name},
                "spec": spec,
            }
        )

    def get(self) -> dict[str, Any]:
        """The resource."""
        return _looks(self.kubectl.kubeconfig).flow(str(self.kubectl.namespace), self.name)

    def status(self) -> dict[str, Any]:
        """Its status, empty before the first."""
        return dict(self.get().get("status") or {})

    @property
    def uid(self) -> str:
        """The flow's id."""
        return str(self.get()["metadata"]["uid"])

    def wait(self, *states: str, seconds: float = 90) -> dict[str, Any]:
        """The status once it is in one of these states; fails at once in another end."""

        def probe() -> dict[str, Any] | None:
            status = self.status()
            state = status.get("state")
            assert state in states or state not in ENDED, f"{state}: {status.get('message')}"
            return status if state in states else None

        found = eventually(probe, seconds=seconds, what=f"{self.name} is {' or '.join(states)}")
        assert found is not None
        return found

    def to_gate(self) -> dict[str, Any]:
        """Makes the source and the flow; the status once it waits for approval."""
        self.source()
        self.create()
        return self.wait("AwaitingApproval", seconds=120)

    def wait_for(self, state: str, seconds: float = 60) -> None:
        """Waits for a state, also from an ended one."""
        eventually(
            lambda: self.status().get("state") == state,
            seconds=seconds,
            what=f"{self.name} is {state}",
        )

    def condition(self, kind: str) -> dict[str, Any]:
        """One condition."""
        (found,) = [c for c in self.status()["conditions"] if c["type"] == kind]
        return dict(found)

    def set(self, **fields: Any) -> None:
        """Changes fields of the spec."""
        self.kubectl(
            "patch", "discoveryflow", self.name, "--type=merge", "-p", json.dumps({"spec": fields})
        )

    def jobs(self) -> list[dict[str, Any]]:
        """Jobs in the namespace, oldest first."""
        found = _looks(self.kubectl.kubeconfig).jobs(str(self.kubectl.namespace))
        return sorted(found, key=lambda job: str(job["metadata"]["creationTimestamp"]))

    def history(self, uid: str | None = None) -> list[str]:
        """Triggers of all transitions, oldest first."""
        rows = self.product.sql(
            "SELECT trigger FROM flow_events WHERE from_state IS DISTINCT FROM to_state "
            f"AND flow_id = '{uid or self.uid}' ORDER BY sequence"
        )
        return [row[0] for row in rows]

    def attempts(self, uid: str | None = None) -> list[Sequence[str]]:
        """Phase, attempt and state of all attempts, oldest first."""
        return list(
            self.product.sql(
                "SELECT phase, attempt, state FROM phase_runs "
                f"WHERE flow_id = '{uid or self.uid}' ORDER BY launched_at"
            )
        )
