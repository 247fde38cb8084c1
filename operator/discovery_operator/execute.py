"""Carries out actions, one method each. Every method may be called again for the same action.

A Job is made in three steps that survive a crash between any two of them: the intent is
committed, the Job is created under a name that follows from the intent, its uid is recorded.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from discovery_core.errors import InvalidAnswerError
from discovery_core.logging import get_logger
from discovery_core.phases import Phase
from discovery_core.snapshots import FlowSnapshot
from discovery_core.store import OperatorStore

from . import actions as act
from . import metrics
from .cache import Kind, ObjectCache
from .failures import no_room
from .kube import Cluster, KubernetesError
from .manifests.job import AttemptSpec, JobSettings, build_job
from .manifests.serviceaccount import build_service_account
from .observed import Observed
from .views import job_view

log = get_logger(__name__)

VIA_RESOURCE = "resource"


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
        self._methods: dict[type, Callable[[Any, UUID, Observed], Awaitable[None]]] = {
            act.Register: self._register,
            act.UpdateSpec: self._update_spec,
            act.MarkDeleted: self._mark_deleted,
            act.Admit: self._admit,
            act.ReferenceMissing: self._reference_missing,
            act.ReferenceFound: self._reference_found,
            act.StartAttempt: self._start_attempt,
            act.LaunchJob: self._launch_job,
            act.FailAttempt: self._fail_attempt,
            act.DeleteJob: self._delete_job,
            act.TakeAnswer: self._take_answer,
            act.RefuseAnswer: self._refuse_answer,
            act.Note: self._note,
            act.ExpireRequest: self._expire_request,
            act.ApproveByPolicy: self._approve_by_policy,
            act.StartRound: self._start_round,
            act.Suspend: self._suspend,
            act.Resume: self._resume,
            act.Cancel: self._cancel,
        }

    async def execute(self, action: act.Action, uid: UUID, observed: Observed) -> None:
        """Carries out one action that was decided on `observed`."""
        log.info("action", action=type(action).__name__, **_details(action))
        await self._methods[type(action)](action, uid, observed)

    # -- the flow ------------------------------------------------------------------------------

    async def _register(self, action: act.Register, uid: UUID, observed: Observed) -> None:
        resource = observed.resource
        if resource is None:
            return
        tenant = await self._cluster.namespace_uid(resource.namespace)
        if tenant is None:
            log.info("namespace is gone", namespace=resource.namespace)
            return
        await self._store.register(
            flow_id=uid,
            tenant_id=tenant,
            namespace=resource.namespace,
            name=resource.name,
            spec=action.spec,
            generation=action.generation,
            actor=action.spec.requested_by or "kubernetes",
            created_at=resource.created_at,
        )

    async def _update_spec(self, action: act.UpdateSpec, uid: UUID, observed: Observed) -> None:
        del observed
        await self._store.update_spec(uid, action.spec, action.generation)

    async def _mark_deleted(self, action: act.MarkDeleted, uid: UUID, observed: Observed) -> None:
        del action, observed
        await self._store.mark_deleted(uid)

    async def _admit(self, action: act.Admit, uid: UUID, observed: Observed) -> None:
        del action, observed
        await self._store.admit(uid)

    async def _reference_missing(
        self, action: act.ReferenceMissing, uid: UUID, observed: Observed
    ) -> None:
        del observed
        await self._store.reference_missing(uid, list(action.missing))

    async def _reference_found(
        self, action: act.ReferenceFound, uid: UUID, observed: Observed
    ) -> None:
        del action, observed
        await self._store.reference_found(uid)

    async def _suspend(self, action: act.Suspend, uid: UUID, observed: Observed) -> None:
        del action, observed
        await self._store.suspend(uid)

    async def _resume(self, action: act.Resume, uid: UUID, observed: Observed) -> None:
        del action, observed
        await self._store.resume(uid)

    async def _cancel(self, action: act.Cancel, uid: UUID, observed: Observed) -> None:
        del action, observed
        await self._store.cancel(uid)

    # -- attempts ------------------------------------------------------------------------------

    async def _start_attempt(self, action: act.StartAttempt, uid: UUID, observed: Observed) -> None:
        flow = observed.flow
        if flow is None:
            return
        run_id = await self._store.start_attempt(
            uid,
            round=action.round,
            phase=action.phase,
            attempt=action.attempt,
            job_name=action.job_name,
            launch_timeout=action.launch_timeout,
            limits=self._limits,
        )
        if run_id is None:
            return
        job_uid = await self._create_job(flow, action.round, action.phase, action.attempt)
        if flow.not_before is None:
            waited = (observed.now - flow.state_since).total_seconds()
            since = time.monotonic() - observed.seen_at
            metrics.TRANSITION_SECONDS.observe(max(0.0, waited) + since)
        await self._store.mark_launched(run_id, uid, job_uid)

    async def _launch_job(self, action: act.LaunchJob, uid: UUID, observed: Observed) -> None:
        flow = observed.flow
        if flow is None:
            return
        job_uid = await self._create_job(flow, action.round, action.phase, action.attempt)
        await self._store.mark_launched(action.run_id, uid, job_uid)

    async def _create_job(
        self,
        flow: FlowSnapshot,
        round: int,  # noqa: A002 - the field's own word
        phase: Phase,
        attempt: int,
    ) -> str:
        """Creates the attempt's Job, or finds it created; returns its uid."""
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
            adopted = await self._adopted(manifest) if taken else None
            if adopted is None:
                raise LaunchRefusedError(error.message) from error
            job = adopted
        self._cache.put(Kind.JOB, job)
        return str(job["metadata"]["uid"])

    async def _adopted(self, manifest: dict[str, Any]) -> dict[str, Any] | None:
        """The Job of that name, if it is this very attempt's; a namesake is not."""
        meta = manifest["metadata"]
        found = await self._cluster.job(meta["namespace"], meta["name"])
        if found is None:
            return None
        theirs, ours = job_view(found), job_view({**manifest, "metadata": {**meta, "uid": ""}})
        same = (theirs.owner_uid, theirs.attempt_key) == (ours.owner_uid, ours.attempt_key)
        return found if same else None

    async def _fail_attempt(self, action: act.FailAttempt, uid: UUID, observed: Observed) -> None:
        del observed
        await self._store.fail_attempt(
            uid,
            action.run_id,
            code=action.code,
            message=action.message,
            retry_delay=action.retry_delay,
            counted=action.counted,
        )
        metrics.ATTEMPTS_FAILED.labels(code=str(action.code)).inc()

    async def _delete_job(self, action: act.DeleteJob, uid: UUID, observed: Observed) -> None:
        flow = observed.flow
        if flow is None:
            return
        await self._cluster.delete_job(flow.namespace, action.name, action.uid)
        for raw in self._cache.jobs(uid):
            if raw["metadata"]["uid"] == action.uid:
                self._cache.remove(Kind.JOB, raw)

    # -- the gate ------------------------------------------------------------------------------

    async def _take_answer(self, action: act.TakeAnswer, uid: UUID, observed: Observed) -> None:
        answer = action.approval
        try:
            await self._store.answer(
                uid,
                request_id=answer.request_id,
                artefact_digest=answer.artefact_digest,
                decision=answer.decision,
                edits=list(answer.edits),
                reason=answer.reason,
                decided_by=answer.decided_by,
                via=VIA_RESOURCE,
                hint=answer.hint,
            )
        except InvalidAnswerError as error:
            refusal = act.RefuseAnswer(answer.request_id, tuple(error.problems), answer.decided_by)
            await self._refuse_answer(refusal, uid, observed)

    async def _refuse_answer(self, action: act.RefuseAnswer, uid: UUID, observed: Observed) -> None:
        del observed
        await self._store.refuse_answer(
            uid,
            request_id=action.request_id,
            problems=list(action.problems),
            decided_by=action.decided_by,
        )

    async def _note(self, action: act.Note, uid: UUID, observed: Observed) -> None:
        del observed
        await self._store.note(uid, action.message)

    async def _expire_request(
        self, action: act.ExpireRequest, uid: UUID, observed: Observed
    ) -> None:
        del observed
        await self._store.expire_request(uid, action.request_id)

    async def _approve_by_policy(
        self, action: act.ApproveByPolicy, uid: UUID, observed: Observed
    ) -> None:
        del observed
        await self._store.approve_by_policy(uid, action.request_id)

    async def _start_round(self, action: act.StartRound, uid: UUID, observed: Observed) -> None:
        del observed
        await self._store.rerun(uid, action.rerun)


def _details(action: act.Action) -> dict[str, str | int]:
    """The fields of an action that belong into a log line."""
    names = ("round", "phase", "attempt", "job_name", "code", "name", "missing", "retry_delay")
    found = {name: getattr(action, name, None) for name in names}
    return {
        name: value if isinstance(value, int) else str(value)
        for name, value in found.items()
        if value is not None
    }
