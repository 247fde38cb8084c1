"""The few calls to the Kubernetes API that the operator makes, on plain dictionaries.

Each has a time limit. "Not there" is a value (None), everything else that goes wrong is an
exception, so that a failed look is never taken for an absence.
"""

from __future__ import annotations

import base64
import json
from typing import Any
from uuid import UUID

from discovery_core.resource import GROUP, PLURAL, VERSION
from kubernetes_asyncio import client, config
from kubernetes_asyncio.client.exceptions import ApiException

from .manifests.names import SELECTOR
from .observed import Presence

Raw = dict[str, Any]

FLOWS = f"/apis/{GROUP}/{VERSION}"
JOBS = "/apis/batch/v1"
CORE = "/api/v1"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"


class KubernetesError(Exception):
    """The API server refused a request. `status` is the HTTP status.

    `missing` names the object that does not exist; it is empty where the path itself is unknown,
    as while the CRD is not installed or not served yet, which proves nothing about objects.
    """

    def __init__(self, status: int, reason: str, message: str, missing: str = "") -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.missing = missing


class Cluster:
    """One API server. Raises KubernetesError, or aiohttp's and asyncio's network errors."""

    def __init__(self, api: client.ApiClient, *, request_timeout: float) -> None:
        self._api = api
        self._timeout = request_timeout

    @classmethod
    async def connect(cls, *, request_timeout: float) -> Cluster:
        """From the pod's ServiceAccount, else from KUBECONFIG."""
        settings = client.Configuration()
        try:
            config.load_incluster_config(  # type: ignore[no-untyped-call]
                client_configuration=settings
            )
        except config.ConfigException:
            await config.load_kube_config(client_configuration=settings)
        api = client.ApiClient(settings)
        api.user_agent = "discoveryflow-operator"
        return cls(api, request_timeout=request_timeout)

    async def close(self) -> None:
        """Closes the connections."""
        await self._api.close()

    async def namespace_uid(self, name: str) -> UUID | None:
        """The namespace's uid: the tenant. A re-created namespace has another."""
        found = await self._get(f"{CORE}/namespaces/{name}")
        return None if found is None else UUID(found["metadata"]["uid"])

    async def secret(self, namespace: str, name: str) -> dict[str, str] | None:
        """A Secret's data as text, by name. Raises KubernetesError and ValueError."""
        found = await self._get(f"{CORE}/namespaces/{namespace}/secrets/{name}")
        if found is None:
            return None
        return {
            key: base64.b64decode(value).decode()
            for key, value in (found.get("data") or {}).items()
        }

    async def flow(self, namespace: str, name: str) -> Raw | None:
        """A DiscoveryFlow by name."""
        return await self._get(f"{FLOWS}/namespaces/{namespace}/{PLURAL}/{name}")

    async def job(self, namespace: str, name: str) -> Raw | None:
        """A Job by name."""
        return await self._get(f"{JOBS}/namespaces/{namespace}/jobs/{name}")

    async def config_map(self, namespace: str, name: str) -> Raw | None:
        """A ConfigMap by name."""
        return await self._get(f"{CORE}/namespaces/{namespace}/configmaps/{name}")

    async def volume_claim(self, namespace: str, name: str) -> Raw | None:
        """A PersistentVolumeClaim by name."""
        return await self._get(f"{CORE}/namespaces/{namespace}/persistentvolumeclaims/{name}")

    async def list_flows(self) -> tuple[list[Raw], int]:
        """All DiscoveryFlows and the version of the list."""
        return await self._list(f"{FLOWS}/{PLURAL}")

    async def list_jobs(self) -> tuple[list[Raw], int]:
        """All Jobs of the product."""
        return await self._list(f"{JOBS}/jobs", SELECTOR)

    async def list_pods(self) -> tuple[list[Raw], int]:
        """All crew pods."""
        return await self._list(f"{CORE}/pods", SELECTOR)

    async def create_job(self, manifest: Raw) -> Raw:
        """Creates a Job. KubernetesError 409 where the name is taken."""
        namespace = manifest["metadata"]["namespace"]
        return await self._send("POST", f"{JOBS}/namespaces/{namespace}/jobs", manifest)

    async def create_service_account(self, manifest: Raw) -> None:
        """Creates a ServiceAccount; one that exists is fine."""
        namespace = manifest["metadata"]["namespace"]
        try:
            await self._send("POST", f"{CORE}/namespaces/{namespace}/serviceaccounts", manifest)
        except KubernetesError as error:
            if error.reason != "AlreadyExists":
                raise

    async def delete_job(self, namespace: str, name: str, uid: str) -> None:
        """Deletes that very Job and its pod; one that is gone or replaced is fine."""
        body = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            await self._send("DELETE", f"{JOBS}/namespaces/{namespace}/jobs/{name}", body)
        except KubernetesError as error:
            if error.status not in (404, 409):
                raise

    async def patch_flow_status(self, namespace: str, name: str, patch: Raw) -> Raw:
        """Merge-patches the status. KubernetesError 409 where the resource has changed."""
        return await self._send(
            "PATCH",
            f"{FLOWS}/namespaces/{namespace}/{PLURAL}/{name}/status",
            patch,
            content_type="application/merge-patch+json",
        )

    async def admission_policy(self, name: str) -> Presence:
        """Whether the policy and its binding of that name both exist."""
        for kind in ("validatingadmissionpolicies", "validatingadmissionpolicybindings"):
            try:
                if await self._get(f"{ADMISSION}/{kind}/{name}") is None:
                    return Presence.ABSENT
            except KubernetesError as error:
                if error.status == 403:
                    return Presence.UNKNOWN
                raise
        return Presence.PRESENT

    async def _get(self, path: str) -> Raw | None:
        try:
            return await self._call("GET", path)
        except KubernetesError as error:
            if error.missing:
                return None
            raise

    async def _list(self, path: str, selector: str = "") -> tuple[list[Raw], int]:
        query = [("resourceVersion", "0")]
        if selector:
            query.append(("labelSelector", selector))
        found = await self._call("GET", path, query=query)
        return found.get("items") or [], int(found["metadata"]["resourceVersion"])

    async def _send(
        self, method: str, path: str, body: Raw, *, content_type: str = "application/json"
    ) -> Raw:
        return await self._call(method, path, body=body, content_type=content_type)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: list[tuple[str, str]] | None = None,
        body: Raw | None = None,
        content_type: str = "application/json",
    ) -> Raw:
        try:
            answer = await self._api.call_api(
                path,
                method,
                query_params=query or [],
                header_params={"Accept": "application/json", "Content-Type": content_type},
                body=body,
                response_types_map={200: "object", 201: "object", 202: "object"},
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _request_timeout=self._timeout,
            )
        except ApiException as error:
            raise _refusal(error) from error
        return answer if isinstance(answer, dict) else {}


def _refusal(error: ApiException) -> KubernetesError:
    """The API server's own words, from the Status object in the body."""
    try:
        told = json.loads(error.body or "{}")
    except ValueError:
        told = {}
    if not isinstance(told, dict):
        told = {}
    status = int(error.status or 0)
    name = (told.get("details") or {}).get("name") if status == 404 else None
    return KubernetesError(
        status,
        str(told.get("reason") or error.reason or ""),
        str(told.get("message") or error.body or ""),
        missing=str(name or ""),
    )
