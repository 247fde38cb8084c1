"""Who a crew pod is, and which attempt it may ask for.

A projected token names namespace and pod. Everything else follows from objects that the API
server vouches for: pod → its controller Job → its controller DiscoveryFlow, and the namespace's
UID as the tenant. Labels are not trusted, because whoever may create Jobs may label them.

What follows from a pod stays true as long as that pod exists, and the API server refuses a pod's
token once the pod (by its UID) is gone. So the token is reviewed time and again, but the way from
the pod to its flow is walked once: with it, a heartbeat would cost the API server four requests.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from discovery_core.resource import GROUP, KIND
from discovery_core.wire.protocol import CREW_ACCOUNT, TOKEN_AUDIENCE
from kubernetes_asyncio.client import (
    ApiClient,
    ApiException,
    AuthenticationV1Api,
    BatchV1Api,
    CoreV1Api,
    V1TokenReview,
    V1TokenReviewSpec,
)

from ..kubernetes import REQUEST_TIMEOUT, UNREACHABLE, message_of
from ..problems import ForbiddenError, UnauthenticatedError, UnavailableError
from ..recent import remember

_POD_NAME = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"
_PREFIX = "system:serviceaccount:"


class PodReference(NamedTuple):
    """A pod as its token names it."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True)
class Identity:
    """A crew pod, its node, and what it was made for. `labels` are good for log lines only."""

    tenant_id: UUID
    namespace: str
    pod_name: str
    pod_uid: str
    node: str
    job_name: str
    job_uid: str
    flow_id: UUID
    labels: Mapping[str, str] = field(default_factory=dict)


class NobodysPodError(ForbiddenError):
    """A pod that no live attempt has made."""

    title = "This pod is nobody's attempt"


class Identifier:
    """Turns bearer tokens into identities, remembered for a few seconds by the token's hash."""

    def __init__(self, client: ApiClient, cache_seconds: float) -> None:
        self._reviews = AuthenticationV1Api(client)
        self._core = CoreV1Api(client)
        self._batch = BatchV1Api(client)
        self._seconds = cache_seconds
        self._cache: OrderedDict[bytes, tuple[float, Identity]] = OrderedDict()
        self._pods: OrderedDict[PodReference, Identity] = OrderedDict()

    async def identify(self, authorization: str | None) -> Identity:
        """The identity behind an `Authorization` header.

        Raises ProblemError 401 for a bad token, 403 for a pod without an attempt, 503 where
        Kubernetes does not answer.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise UnauthenticatedError("send Authorization: Bearer <ServiceAccount token>")
        key = hashlib.sha256(token.encode()).digest()
        known = self._cache.get(key)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        try:
            reference = await self._review(token.strip())
            identity = self._pods.get(reference) or await self._resolve(reference)
        except (ApiException, *UNREACHABLE) as error:
            raise UnavailableError(f"Kubernetes does not answer: {message_of(error)}") from error
        remember(self._pods, reference, identity)
        remember(self._cache, key, (time.monotonic() + self._seconds, identity))
        return identity

    async def _resolve(self, reference: PodReference) -> Identity:
        namespace, pod_name, pod_uid = reference
        pod = await self._get(self._core.read_namespaced_pod, pod_name, namespace)
        if pod.metadata.uid != pod_uid:
            raise NobodysPodError(f"pod {pod_name} was replaced")
        job_name, job_uid = _controller(pod, "batch/", "Job")
        job = await self._get(self._batch.read_namespaced_job, job_name, namespace)
        if job.metadata.uid != job_uid:
            raise NobodysPodError(f"Job {job_name} was replaced")
        # owners of a pod can be written later, when it was made cannot
        if pod.metadata.creation_timestamp < job.metadata.creation_timestamp:
            raise NobodysPodError(f"pod {pod_name} is older than Job {job_name}")
        _, flow_uid = _controller(job, f"{GROUP}/", KIND)
        owner = await self._core.read_namespace(namespace, _request_timeout=REQUEST_TIMEOUT)
        return Identity(
            tenant_id=UUID(owner.metadata.uid),
            namespace=namespace,
            pod_name=pod_name,
            pod_uid=pod_uid,
            node=(pod.spec and pod.spec.node_name) or "",
            job_name=job_name,
            job_uid=job_uid,
            flow_id=UUID(flow_uid),
            labels=job.metadata.labels or {},
        )

    async def _review(self, token: str) -> PodReference:
        review = await self._reviews.create_token_review(
            V1TokenReview(spec=V1TokenReviewSpec(token=token, audiences=[TOKEN_AUDIENCE])),
            _request_timeout=REQUEST_TIMEOUT,
        )
        status = review.status
        if not status.authenticated or TOKEN_AUDIENCE not in (status.audiences or []):
            raise UnauthenticatedError(
                f"the token is not accepted for audience {TOKEN_AUDIENCE}: "
                f"{status.error or 'it may have expired'}"
            )
        extra = status.user.extra or {}
        names, uids = extra.get(_POD_NAME), extra.get(_POD_UID)
        if not status.user.username.startswith(_PREFIX) or not names or not uids:
            raise NobodysPodError("the token is not bound to a pod")
        namespace, _, account = status.user.username.removeprefix(_PREFIX).partition(":")
        if account != CREW_ACCOUNT:
            raise NobodysPodError(f"the token is not of ServiceAccount {CREW_ACCOUNT}")
        return PodReference(namespace, names[0], uids[0])

    @staticmethod
    async def _get(read: Any, name: str, namespace: str) -> Any:
        try:
            return await read(name, namespace, _request_timeout=REQUEST_TIMEOUT)
        except ApiException as error:
            if error.status == 404:
                raise NobodysPodError(f"{name} is gone") from error
            raise


def _controller(item: Any, group: str, kind: str) -> tuple[str, str]:
    for owner in item.metadata.owner_references or []:
        if owner.controller and owner.kind == kind and owner.api_version.startswith(group):
            return owner.name, owner.uid
    raise NobodysPodError(f"{item.metadata.name} is not controlled by a {kind}")
