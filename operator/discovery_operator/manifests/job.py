"""The Job of one attempt: a pure function of the flow, the attempt and the installation.

The pod meets Pod Security "restricted", has no rights in the cluster, and its only credential
is a short-lived token for the execution API. Nothing of the pod can be overridden from the
resource, on purpose: whoever may create a flow must not thereby be able to run anything else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from discovery_core.durations import parse_duration
from discovery_core.mounts import (
    SCHEMA_FOLDER,
    SOURCE_FOLDER,
    TOKEN_FOLDER,
    VOLUME_FOLDER,
)
from discovery_core.phases import FIRST_PHASE, Phase, phase_spec
from discovery_core.resource import API_VERSION, KIND, DiscoveryFlowSpec
from discovery_core.resource_base import ConfigMapKey
from discovery_core.wire.protocol import CREW_ACCOUNT, TOKEN_AUDIENCE

from .names import CONTAINER, attempt_labels, job_name

USER_ID = 65532
TOKEN_SECONDS = 3600
COMMAND = ("python", "-m", "discovery_crews.runner")
# CrewAI's opt-outs; they stand here too so that no image and no import order can miss them
QUIET_CREWAI = {
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "CREWAI_DISABLE_VERSION_CHECK": "true",
    "CREWAI_TESTING": "true",
    "OTEL_SDK_DISABLED": "true",
}


@dataclass(frozen=True)
class JobSettings:
    """What the installation decides about crew pods. Times are seconds.

    `resources` is a container's `resources`; `execution_ca` is PEM text.
    """

    image: str
    execution_url: str
    execution_ca: str = ""
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    resources: dict[str, Any] = field(default_factory=dict)
    pending_allowance: int = 600
    keep_finished: int = 3600
    scratch_limit: str = "2Gi"


@dataclass(frozen=True)
class AttemptSpec:
    """What the attempt decides: which flow, which phase, and whether its inputs are stored."""

    flow_uid: UUID
    flow_name: str
    namespace: str
    spec: DiscoveryFlowSpec
    round: int
    phase: Phase
    attempt: int
    source_pinned: bool


def build_job(attempt: AttemptSpec, settings: JobSettings) -> dict[str, Any]:
    """The Job. The same arguments always give the same manifest."""
    labels = attempt_labels(
        attempt.flow_name,
        attempt.flow_uid,
        round=attempt.round,
        phase=attempt.phase,
        attempt=attempt.attempt,
    )
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(
                attempt.flow_name,
                attempt.flow_uid,
                round=attempt.round,
                phase=attempt.phase,
                attempt=attempt.attempt,
            ),
            "namespace": attempt.namespace,
            "labels": labels,
            "ownerReferences": [_owner(attempt)],
        },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": int(parse_duration(attempt.spec.phase_timeout))
            + settings.pending_allowance,
            "ttlSecondsAfterFinished": settings.keep_finished,
            "template": {
                "metadata": {"labels": labels},
                "spec": _pod(attempt, settings),
            },
        },
    }


def _owner(attempt: AttemptSpec) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": attempt.flow_name,
        "uid": str(attempt.flow_uid),
        "controller": True,
        "blockOwnerDeletion": False,
    }


def _pod(attempt: AttemptSpec, settings: JobSettings) -> dict[str, Any]:
    volumes, mounts = _volumes(attempt, settings)
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": list(COMMAND),
        "env": _environment(attempt, settings),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": mounts,
    }
    if settings.resources:
        container["resources"] = settings.resources
    pod: dict[str, Any] = {
        "serviceAccountName": CREW_ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 10,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }
    if settings.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    return pod


def _environment(attempt: AttemptSpec, settings: JobSettings) -> list[dict[str, Any]]:
    plain = {
        "DISCOVERY_EXECUTION_URL": settings.execution_url,
        "DISCOVERY_EXECUTION_CA": settings.execution_ca,
        "HOME": "/tmp",  # noqa: S108 - the pod's own emptyDir
        **QUIET_CREWAI,
    }
    environment: list[dict[str, Any]] = [
        {"name": name, "value": value} for name, value in plain.items() if value
    ]
    llm = attempt.spec.llm
    secret = llm.api_key_secret if phase_spec(attempt.phase).asks_model else None
    if secret is not None and llm.provider != "builtin":
        environment.append(
            {
                "name": "DISCOVERY_LLM_API_KEY",
                "valueFrom": {"secretKeyRef": {"name": secret.name, "key": secret.key}},
            }
        )
    return environment


def _volumes(
    attempt: AttemptSpec, settings: JobSettings
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Volumes and mounts. The user's objects are mounted only until their bytes are stored."""
    volumes: list[dict[str, Any]] = [
        {"name": "tmp", "emptyDir": {"sizeLimit": settings.scratch_limit}},
        {
            "name": "token",
            "projected": {
                "sources": [
                    {
                        "serviceAccountToken": {
                            "audience": TOKEN_AUDIENCE,
                            "expirationSeconds": TOKEN_SECONDS,
                            "path": "token",
                        }
                    }
                ]
            },
        },
    ]
    mounts: list[dict[str, Any]] = [
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own emptyDir
        {"name": "token", "mountPath": TOKEN_FOLDER, "readOnly": True},
    ]
    if attempt.phase is not FIRST_PHASE or attempt.source_pinned:
        return volumes, mounts
    source = attempt.spec.source
    if source.config_map is not None:
        volumes.append(_config_map("source", source.config_map))
        mounts.append({"name": "source", "mountPath": SOURCE_FOLDER, "readOnly": True})
    if source.persistent_volume_claim is not None:
        claim = source.persistent_volume_claim.claim_name
        # readOnly on the claim, so that fsGroup does not change the owner of the user's files
        volumes.append(
            {"name": "source", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        )
        mounts.append({"name": "source", "mountPath": VOLUME_FOLDER, "readOnly": True})
    if attempt.spec.target_schema is not None:
        volumes.append(_config_map("schema", attempt.spec.target_schema.config_map))
        mounts.append({"name": "schema", "mountPath": SCHEMA_FOLDER, "readOnly": True})
    return volumes, mounts


def _config_map(volume: str, reference: ConfigMapKey) -> dict[str, Any]:
    return {
        "name": volume,
        "configMap": {
            "name": reference.name,
            "items": [{"key": reference.key, "path": reference.key}],
        },
    }
