"""Carries out actions; each may come again.

What only touches the database is the store's. What is here touches Kubernetes as well.

A Job is made in three steps that survive a crash between any two of them: the intent is
committed, the Job is created under a name that follows from the intent, its uid is recorded.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from discovery_core import actions as act
from discovery_core.errors import InvalidAnswerError
from discovery_core.logging import get_logger
from discovery_core.phases import Phase
from discovery_core.snapshots import FlowSnapshot
from discovery_core.store import OperatorStore

from . import metrics
from .cache import ObjectCache
from .failures import no_room
from .kube import Cluster, KubernetesError
from .manifests.job import AttemptSpec, JobSettings, build_job
from .manifests.likeness import difference
from .manifests.serviceaccount import build_service_account
from .observed import Observed
from .slim import Kind
from .views import job_view

log = get_logger(__name__)
# by which the clocks of the API server and of the database may differ
CLOCKS_APART = timedelta(minutes=5)


class LaunchRefusedError(Exception):
    """The API server does not take the Job (now). `message` is its reason."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Executor:
    """Does what `decide` asked for. Raises what the store and the cluster raise."""

    def __init__(
        self,
        store: OperatorStore,
        cluster: Cluster,
        cache: ObjectCache,
        *,
        job_settings: JobSettings,
        limits: tuple[int, int],
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._cache = cache
        self._job_settings = job_settings
        self._limits = limits

    async def execute(self, action: act.Action, uid: UUID, observed: Observed) -> None:
        """Carries out one action that was decided on `observed`."""
        log.info("action", action=type(action).__name__, **_details(action))
        match action:
            case act.Register():
                await self._register(action, uid, observed)
            case act.StartAttempt():
                await self._start_attempt(action, uid, observed)
            case act.LaunchJob():
                await self._launch_job(action, uid, observed)
            case act.DeleteJob():
                await self._delete_job(action, uid, observed)
            case act.TakeAnswer():
                await self._take_answer(action, uid)
            case _:
                await self._store.apply(uid, action)
        if isinstance(action, act.FailAttempt):
            metrics.ATTEMPTS_FAILED.labels(code=str(action.code)).inc()

    async def _register(self, action: act.Register, uid: UUID, observed: Observed) -> None:
        resource = observed.resource
        if resource is None:
            return
        tenant = await self._cluster.namespace_uid(resource.namespace)
        if tenant is None:
            log.info("namespace is gone", namespace=resource.namespace)
            return
        await self._store.register(
            action,
            flow_id=uid,
            tenant_id=tenant,
            namespace=resource.namespace,
            name=resource.name,
            created_at=resource.created_at,
        )

    async def _start_attempt(self, action: act.StartAttempt, uid: UUID, observed: Observed) -> None:
        flow = observed.flow
        if flow is None:
            return
        run_id = await self._store.start_attempt(uid, action, self._limits)
        if run_id is None:
            return
        job_uid = await self._create_job(
            flow, action.round, action.phase, action.attempt, since=observed.now
        )
        if flow.not_before is None:
            waited = (observed.now - flow.state_since).total_seconds()
            since = time.monotonic() - observed.seen_at
            metrics.TRANSITION_SECONDS.observe(max(0.0, waited) + since)
        await self._store.mark_launched(run_id, uid, job_uid)

    async def _launch_job(self, action: act.LaunchJob, uid: UUID, observed: Observed) -> None:
        flow = observed.flow
        if flow is None:
            return
        allowance = timedelta(seconds=observed.rules.launch_timeout)
        since = flow.run.deadline - allowance if flow.run is not None else observed.now
        job_uid = await self._create_job(
            flow, action.round, action.phase, action.attempt, since=since
        )
        await self._store.mark_launched(action.run_id, uid, job_uid)

    async def _create_job(
        self,
        flow: FlowSnapshot,
        round: int,  # noqa: A002 - the field's own word
        phase: Phase,
        attempt: int,
        *,
        since: datetime,
    ) -> str:
        """Creates the attempt's Job, or finds it created; returns its uid.

        The attempt was decided `since` then.
        """
        manifest = build_job(
            AttemptSpec(
                flow_uid=flow.flow_id,
                flow_name=flow.name,
                namespace=flow.namespace,
                spec=flow.spec,
                round=round,
                phase=phase,
                attempt=attempt,
                source_pinned=flow.source_pinned,
            ),
            self._job_settings,
        )
        try:
            # each time: the namespace may be another one of that name, or somebody deleted it
            await self._cluster.create_service_account(build_service_account(flow.namespace))
            job = await self._cluster.create_job(manifest)
        except KubernetesError as error:
            if error.status == 429 or error.status >= 500:
                raise
            # a quota is checked before the name: a Job whose creation was not heard of may fill it
            taken = error.reason == "AlreadyExists" or no_room(error.message) is not None
            adopted = await self._adopted(manifest, since) if taken else None
            if adopted is None:
                raise LaunchRefusedError(error.message) from error
            job = adopted
        self._cache.put(Kind.JOB, job)
        return str(job["metadata"]["uid"])

    async def _adopted(self, manifest: dict[str, Any], since: datetime) -> dict[str, Any] | None:
        """The Job of that name, if it is this very attempt's; a namesake is not.

        One that passes for the attempt's and would do something else, or was there before the
        attempt, is removed, so that the next try makes the right one. Raises LaunchRefusedError
        then.
        """
        meta = manifest["metadata"]
        found = await self._cluster.job(meta["namespace"], meta["name"])
        if found is None:
            return None
        theirs, ours = job_view(found), job_view({**manifest, "metadata": {**meta, "uid": ""}})
        if (theirs.owner_uid, theirs.attempt_key) != (ours.owner_uid, ours.attempt_key):
            return None
        different = difference(manifest, found)
        if not different and theirs.created_at and theirs.created_at < since - CLOCKS_APART:
            different = "metadata.creationTimestamp"
        if not different:
            return found
        log.warning("a Job in the place of an attempt's is removed", job=theirs.name, at=different)
        await self._cluster.delete_job(meta["namespace"], theirs.name, theirs.uid)
        raise LaunchRefusedError(
            f"a Job {theirs.name} was there already that the operator would not make ({different} "
            "differs); it was removed, and the right one is made"
        )

    async def _delete_job(self, action: act.DeleteJob, uid: UUID, observed: Observed) -> None:
        flow = observed.flow
        if flow is None:
            return
        await self._cluster.delete_job(flow.namespace, action.name, action.uid)
        for raw in self._cache.jobs(uid):
            if raw["metadata"]["uid"] == action.uid:
                self._cache.remove(Kind.JOB, raw)

    async def _take_answer(self, action: act.TakeAnswer, uid: UUID) -> None:
        """Decides the open request; a bad answer is refused as a whole, and asked for again."""
        try:
            await self._store.apply(uid, action)
        except InvalidAnswerError as error:
            answer = action.approval
            await self._store.apply(
                uid,
                act.RefuseAnswer(answer.request_id, tuple(error.problems), answer.decided_by),
            )


def _details(action: act.Action) -> dict[str, str | int]:
    """The fields of an action that belong into a log line."""
    names = ("round", "phase", "attempt", "job_name", "code", "name", "missing", "retry_delay")
    found = {name: getattr(action, name, None) for name in names}
    return {
        name: value if isinstance(value, int) else str(value)
        for name, value in found.items()
        if value is not None
    }
