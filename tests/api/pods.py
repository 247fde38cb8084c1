"""The objects that a crew pod's token leads to, as the fake API server has them."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from discovery_core.wire.protocol import TOKEN_AUDIENCE

from tests.api.kubernetes import FakeKubernetes
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
        return {"metadata": {"name": name, "uid": uid, "ownerReferences": [owner]}}

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
