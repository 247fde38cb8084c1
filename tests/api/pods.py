"""The execution API, and what a crew pod's token leads to, as the fake API server has it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
from discovery_api.execution.app import create_app
from discovery_api.execution.identity import Identifier
from discovery_api.kubernetes import client_as
from discovery_api.settings import ExecutionSettings
from discovery_core.wire.protocol import TOKEN_AUDIENCE

from tests.api.kubernetes import FakeKubernetes
from tests.postgres import Stores
from tests.store.flows import Flow

POD = {"Authorization": "Bearer pod-token"}
NAMESPACE = "migration"


async def launch(flow: Flow, kubernetes: FakeKubernetes, token: str = "pod-token") -> None:
    """Starts the next attempt and makes the objects that a real Job would have."""
    await flow.start()
    run = (await flow.load()).run
    assert run is not None
    pod_uid = str(uuid4())
    crew_pod(kubernetes, token, flow, run.job_name, f"uid-{run.job_name}", pod_uid)


def crew_pod(
    kubernetes: FakeKubernetes, token: str, flow: Flow, job: str, job_uid: str, pod_uid: str
) -> None:
    name = f"pod-{pod_uid[:8]}"
    kubernetes.reviews[token] = {
        "authenticated": True,
        "audiences": [TOKEN_AUDIENCE],
        "user": {
            "username": f"system:serviceaccount:{NAMESPACE}:discoveryflow-crew",
            "extra": {
                "authentication.kubernetes.io/pod-name": [name],
                "authentication.kubernetes.io/pod-uid": [pod_uid],
            },
        },
    }

    def owned(uid: str, owner: dict[str, Any]) -> dict[str, Any]:
        made = "2026-06-01T00:00:00Z"
        return {
            "metadata": {
                "name": name,
                "uid": uid,
                "creationTimestamp": made,
                "ownerReferences": [owner],
            }
        }

    kubernetes.objects[f"/api/v1/namespaces/{NAMESPACE}/pods/{name}"] = owned(
        pod_uid,
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": job,
            "uid": job_uid,
            "controller": True,
        },
    )
    kubernetes.objects[f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{job}"] = owned(
        job_uid,
        {
            "apiVersion": "discoveryflow.dev/v1alpha1",
            "kind": "DiscoveryFlow",
            "name": flow.name,
            "uid": str(flow.flow_id),
            "controller": True,
        },
    )
    kubernetes.objects[f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{job}"]["metadata"][
        "labels"
    ] = {"discoveryflow.dev/phase": "data_import", "discoveryflow.dev/attempt": "1"}
    kubernetes.objects[f"/api/v1/namespaces/{NAMESPACE}"] = {
        "metadata": {"name": NAMESPACE, "uid": str(flow.tenant_id)}
    }


@asynccontextmanager
async def executing(
    stores: Stores, kubernetes: FakeKubernetes, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the execution API."""
    configured = ExecutionSettings(
        host="127.0.0.1",
        database_url=stores.urls.execution,
        kubernetes_url=await kubernetes.start(),
        **settings,
    )
    kube = client_as(configured, "own-token")
    identifier = Identifier(kube, configured.identity_cache_seconds)
    app = create_app(stores.execution.db, configured, identifier)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        yield client
    await kube.close()
    await kubernetes.stop()
