"""The few calls to the Kubernetes API that the operator makes, on plain dictionaries.

Each try has a time limit. "Not there" is a value (None), everything else that goes wrong is an
exception, so that a failed look is never taken for an absence.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any
from uuid import UUID

from discovery_core.logging import get_logger
from discovery_core.resource import GROUP, PLURAL, VERSION
from kubernetes_asyncio import client, config
from kubernetes_asyncio.client.exceptions import ApiException

from .manifests.names import SELECTOR
from .observed import Presence
from .slim import Kind, slim

Raw = dict[str, Any]

# objects in one answer to a list, each of at most 1.5 MB
PAGE = 50
FLOWS = f"/apis/{GROUP}/{VERSION}"
JOBS = "/apis/batch/v1"
CORE = "/api/v1"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
LONGEST_WAIT = 60.0

log = get_logger(__name__)


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
    """One API server. Raises KubernetesError, or aiohttp's and asyncio's network errors.

    A request that is refused with 429 and Retry-After is made again after that time, not before: an
    overloaded server gets worse by callers that come back at once. It gives up where that would
    take longer than LONGEST_WAIT seconds in all.
    """

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

    async def list_namespaces(self) -> set[UUID]:
        """The uids of all namespaces, as they are now: never from the API server's cache."""
        return {
            UUID(raw["metadata"]["uid"])
            async for page in self._pages(f"{CORE}/namespaces")
            for raw in page.get("items") or []
        }

    async def secret(self, namespace: str, name: str) -> dict[str, str] | None:
        """A Secret's data, by name, but for what is no text. Raises KubernetesError."""
        found = await self._get(f"{CORE}/namespaces/{namespace}/secrets/{name}")
        if found is None:
            return None
        data, texts = found.get("data"), {}
        for key, value in data.items() if isinstance(data, dict) else ():
            with contextlib.suppress(ValueError, TypeError):
                texts[key] = base64.b64decode(value).decode()
        return texts

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
        return await self._list(Kind.FLOW, f"{FLOWS}/{PLURAL}")

    async def list_jobs(self) -> tuple[list[Raw], int]:
        """All Jobs of the product."""
        return await self._list(Kind.JOB, f"{JOBS}/jobs", SELECTOR)

    async def list_pods(self) -> tuple[list[Raw], int]:
        """All crew pods."""
        return await self._list(Kind.POD, f"{CORE}/pods", SELECTOR)

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

    async def delete_flow(self, namespace: str, name: str, uid: str) -> None:
        """Deletes that very DiscoveryFlow; one that is gone or replaced is fine."""
        body = {"preconditions": {"uid": uid}}
        try:
            await self._send("DELETE", f"{FLOWS}/namespaces/{namespace}/{PLURAL}/{name}", body)
        except KubernetesError as error:
            if error.status not in (404, 409):
                raise

    async def delete_job(self, namespace: str, name: str, uid: str) -> None:
        """Deletes that very Job and its pod; one that is gone or replaced is fine."""
        body = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            await self._send("DELETE", f"{JOBS}/namespaces/{namespace}/jobs/{name}", body)
        except KubernetesError as error:
            if error.status not in (404, 409):
                raise

    async def pod_refusal(self, namespace: str, job_uid: str) -> str:
        """Why a Job's last try to make a pod was refused, by its events; "" where none tells."""
        selector = f"involvedObject.uid={job_uid},reason=FailedCreate"
        try:
            found = await self._call(
                "GET",
                f"{CORE}/namespaces/{namespace}/events",
                query=[("fieldSelector", selector), ("limit", "100")],
            )
        except KubernetesError as error:
            if error.status == 403:
                return ""
            raise
        events = sorted(found.get("items") or [], key=_told_at)
        return str(events[-1].get("message") or "") if events else ""

    async def patch_flow_status(self, namespace: str, name: str, patch: Raw) -> Raw:
        """Merge-patches the status. KubernetesError 409 where the resource has changed."""
        return await self._send(
            "PATCH",
            f"{FLOWS}/namespaces/{namespace}/{PLURAL}/{name}/status",
            patch,
            content_type="application/merge-patch+json",
        )

    async def admission_policy(self, name: str) -> Presence:
        """Whether policy and binding of that name both exist, and the binding denies."""
        try:
            policy = await self._get(f"{ADMISSION}/validatingadmissionpolicies/{name}")
            binding = await self._get(f"{ADMISSION}/validatingadmissionpolicybindings/{name}")
        except KubernetesError as error:
            if error.status == 403:
                return Presence.UNKNOWN
            raise
        if policy is None or binding is None:
            return Presence.ABSENT
        denies = "Deny" in (binding.get("spec") or {}).get("validationActions", ())
        return Presence.PRESENT if denies else Presence.ABSENT

    async def _get(self, path: str) -> Raw | None:
        try:
            return await self._call("GET", path)
        except KubernetesError as error:
            if error.missing:
                return None
            raise

    async def _list(self, kind: Kind, path: str, selector: str = "") -> tuple[list[Raw], int]:
        """All objects, of each what is looked at (`slim`), and the version that the list is of."""
        items: list[Raw] = []
        version = 0
        async for page in self._pages(path, selector):
            items += [slim(kind, raw) for raw in page.get("items") or []]
            version = int(page["metadata"]["resourceVersion"])
        return items, version

    async def _pages(self, path: str, selector: str = "") -> AsyncIterator[Raw]:
        """A list piece by piece.

        One answer with thousands of objects would hold up the event loop while it is read, and fill
        the memory. All pages are of the version of the first; one that has meanwhile been forgotten
        (410) ends the list, which the next resync tries again.
        """
        query = [("limit", str(PAGE))] + ([("labelSelector", selector)] if selector else [])
        more = ""
        while True:
            page = await self._call(
                "GET", path, query=query + ([("continue", more)] if more else [])
            )
            yield page
            more = (page.get("metadata") or {}).get("continue") or ""
            if not more:
                return

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
        waited = 0.0
        while True:
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
                pause = _asked_to_wait(error)
                if pause is None or waited + pause > LONGEST_WAIT:
                    raise _refusal(error) from error
            else:
                return answer if isinstance(answer, dict) else {}
            log.warning("the API server asks to wait", method=method, path=path, seconds=pause)
            await asyncio.sleep(pause)
            waited += pause


def _asked_to_wait(error: ApiException) -> float | None:
    """The seconds of a 429's Retry-After; None where it names none, or it is another answer."""
    if error.status != HTTPStatus.TOO_MANY_REQUESTS or error.headers is None:
        return None
    try:
        seconds = float(error.headers["Retry-After"])
    except (KeyError, ValueError):
        return None
    return seconds if seconds > 0 else None


def _told_at(event: Raw) -> str:
    """When an event was last told; RFC 3339 in UTC sorts as text."""
    told = event.get("lastTimestamp") or event.get("eventTime")
    return str(told or event["metadata"].get("creationTimestamp") or "")


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
