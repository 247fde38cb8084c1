"""An API server in memory, as far as the operator uses one, for tests on a real database."""

from __future__ import annotations

import copy
from typing import Any
from uuid import UUID, uuid4

from discovery_operator.kube import KubernetesError
from discovery_operator.observed import Presence

Raw = dict[str, Any]


def _missing(name: str) -> KubernetesError:
    return KubernetesError(404, "NotFound", f'"{name}" not found', missing=name)


class FakeCluster:
    """Objects by kind, namespace and name; every write gets a new resourceVersion.

    `refuse` holds an error for the next call of a method, by the method's name, `pod_refusals`
    what a Job's events say about the pod that it cannot make, by the Job's uid.
    """

    def __init__(self) -> None:
        self.version = 100
        self.namespaces: dict[str, UUID] = {"team-a": uuid4()}
        self.flows: dict[tuple[str, str], Raw] = {}
        self.jobs: dict[tuple[str, str], Raw] = {}
        self.config_maps: dict[tuple[str, str], Raw] = {}
        self.claims: set[tuple[str, str]] = set()
        self.accounts: set[str] = set()
        self.policy = Presence.PRESENT
        self.refuse: dict[str, list[KubernetesError]] = {}
        self.status_writes = 0
        self.created_jobs: list[str] = []
        self.pods: list[Raw] = []
        self.pod_refusals: dict[str, str] = {}

    # -- what people and controllers do --------------------------------------------------------

    def apply(self, namespace: str, name: str, spec: Raw) -> UUID:
        """Creates a DiscoveryFlow."""
        uid = uuid4()
        self.flows[namespace, name] = {
            "metadata": {
                "uid": str(uid),
                "namespace": namespace,
                "name": name,
                "generation": 1,
                "resourceVersion": self._next(),
            },
            "spec": copy.deepcopy(spec),
        }
        return uid

    def edit(self, namespace: str, name: str, **changes: Any) -> None:
        """Changes fields of the spec."""
        raw = self.flows[namespace, name]
        raw["spec"].update(copy.deepcopy(changes))
        raw["metadata"]["generation"] += 1
        raw["metadata"]["resourceVersion"] = self._next()

    def job_ends(self, name: str, condition: str, reason: str = "") -> None:
        """The Job controller gives its verdict: Complete or Failed."""
        (raw,) = [job for (_, known), job in self.jobs.items() if known == name]
        raw["status"] = {"conditions": [{"type": condition, "status": "True", "reason": reason}]}
        raw["metadata"]["resourceVersion"] = self._next()

    def status(self, namespace: str, name: str) -> Raw:
        """The status as last written."""
        return dict(self.flows[namespace, name].get("status") or {})

    # -- what the operator calls ---------------------------------------------------------------

    async def namespace_uid(self, name: str) -> UUID | None:
        self._refused("namespace_uid")
        return self.namespaces.get(name)

    async def list_namespaces(self) -> set[UUID]:
        self._refused("list_namespaces")
        return set(self.namespaces.values())

    async def delete_flow(self, namespace: str, name: str, uid: str) -> None:
        known = self.flows.get((namespace, name))
        if known is not None and known["metadata"]["uid"] == uid:
            del self.flows[namespace, name]

    async def flow(self, namespace: str, name: str) -> Raw | None:
        return self._copy(self.flows.get((namespace, name)))

    async def job(self, namespace: str, name: str) -> Raw | None:
        return self._copy(self.jobs.get((namespace, name)))

    async def config_map(self, namespace: str, name: str) -> Raw | None:
        return self._copy(self.config_maps.get((namespace, name)))

    async def volume_claim(self, namespace: str, name: str) -> Raw | None:
        return {} if (namespace, name) in self.claims else None

    async def list_flows(self) -> tuple[list[Raw], int]:
        return [copy.deepcopy(raw) for raw in self.flows.values()], self.version

    async def list_jobs(self) -> tuple[list[Raw], int]:
        return [copy.deepcopy(raw) for raw in self.jobs.values()], self.version

    async def list_pods(self) -> tuple[list[Raw], int]:
        return [copy.deepcopy(raw) for raw in self.pods], self.version

    async def create_job(self, manifest: Raw) -> Raw:
        self._refused("create_job")
        meta = manifest["metadata"]
        key = (meta["namespace"], meta["name"])
        if key in self.jobs:
            raise KubernetesError(409, "AlreadyExists", f'jobs "{meta["name"]}" already exists')
        raw = copy.deepcopy(manifest)
        raw["metadata"].update(uid=str(uuid4()), resourceVersion=self._next())
        self.jobs[key] = raw
        self.created_jobs.append(meta["name"])
        return copy.deepcopy(raw)

    async def create_service_account(self, manifest: Raw) -> None:
        self.accounts.add(manifest["metadata"]["namespace"])

    async def delete_job(self, namespace: str, name: str, uid: str) -> None:
        known = self.jobs.get((namespace, name))
        if known is not None and known["metadata"]["uid"] == uid:
            del self.jobs[namespace, name]

    async def pod_refusal(self, namespace: str, job_uid: str) -> str:
        assert namespace
        return self.pod_refusals.get(job_uid, "")

    async def patch_flow_status(self, namespace: str, name: str, patch: Raw) -> Raw:
        self._refused("patch_flow_status")
        raw = self.flows.get((namespace, name))
        if raw is None:
            raise _missing(name)
        if patch["metadata"]["resourceVersion"] != raw["metadata"]["resourceVersion"]:
            raise KubernetesError(409, "Conflict", "the object has been modified")
        status = {**(raw.get("status") or {}), **copy.deepcopy(patch["status"])}
        raw["status"] = {key: value for key, value in status.items() if value is not None}
        raw["metadata"]["resourceVersion"] = self._next()
        self.status_writes += 1
        return copy.deepcopy(raw)

    async def admission_policy(self, name: str) -> Presence:
        assert name
        return self.policy

    def _next(self) -> str:
        self.version += 1
        return str(self.version)

    def _refused(self, method: str) -> None:
        if self.refuse.get(method):
            raise self.refuse[method].pop(0)

    @staticmethod
    def _copy(raw: Raw | None) -> Raw | None:
        return None if raw is None else copy.deepcopy(raw)
