"""Gathers `Observed`: cache first, then the row, then a GET wherever an absence would matter.

The order is part of the proof that no result is overlooked: Jobs are looked at before the row is
read. A pod commits its result before it exits, so a row that is read after its Job was seen to
have ended shows that result.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from discovery_core.resource_base import ConfigMapKey
from discovery_core.snapshots import FlowSnapshot
from discovery_core.states import FlowState, RunState, is_ended
from discovery_core.store import OperatorStore
from discovery_core.store.operator import Look

from .cache import ObjectCache
from .kube import Cluster
from .observed import (
    Guard,
    JobState,
    JobView,
    Observed,
    PodView,
    Policies,
    Presence,
    ResourceView,
    Rules,
)
from .slim import Kind
from .views import job_view, pod_view, resource_view

Raw = Mapping[str, Any]
_JOB_IS_RECORDED = (RunState.LAUNCHED, RunState.RUNNING)
# seconds for which the policy of crew pods counts as there once it was seen
GUARD_REMEMBERED = 5.0
_NO_ROOM = "room for one more open flow: this namespace has as many as it may"
_LOOKS_AT_REFERENCES = (FlowState.PENDING, FlowState.QUEUED, FlowState.WAITING)


class Observer:
    """Makes the picture of one flow. Reads only."""

    def __init__(
        self,
        store: OperatorStore,
        cluster: Cluster,
        cache: ObjectCache,
        *,
        rules: Rules,
        limits: tuple[int, int],
        policies: Policies,
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._cache = cache
        self._rules = rules
        self._limits = limits
        self._policies = policies
        self._crews_guarded_until = 0.0

    async def observe(
        self, uid: UUID, *, launch_problem: str = "", passed_over: Collection[UUID] = ()
    ) -> Observed:
        """Everything about the flow of that uid. Raises what the store and the cluster raise.

        Other flows that are `passed_over` have no turn in the queue before it.
        """
        cached_jobs = [job_view(raw) for raw in self._cache.jobs(uid)]
        seen_at = time.monotonic()
        row = await self._store.look(uid, self._limits, passed_over)
        flow = row.flow
        resource = self._cached_resource(uid)
        if flow is None:
            return Observed(now=row.now, rules=self._rules, resource=resource, seen_at=seen_at)
        gone = False
        if not flow.deleted and (resource is None or _answer_may_be_newer(flow, row.now)):
            resource = await self._fetched_resource(flow)
            gone = resource is None
        jobs = tuple(
            job for job in cached_jobs if job.owner_uid == str(uid) and job.state is JobState.ACTIVE
        )
        job, presence = await self._job(flow, cached_jobs)
        if presence is Presence.ABSENT or (job is not None and job.state is not JobState.ACTIVE):
            seen_at = time.monotonic()
            again = await self._store.look(uid, self._limits, passed_over)
            if not _same_attempt(flow, again.flow):
                job, presence = None, Presence.UNKNOWN
            row = again
            flow = again.flow or flow
        pod = self._pod(uid, job)
        return Observed(
            now=row.now,
            rules=self._rules,
            resource=resource,
            resource_gone=gone,
            flow=flow,
            job=job,
            job_presence=presence,
            pod=pod,
            jobs=jobs,
            capacity=row.capacity,
            missing=await self._missing(flow, row),
            guard=await self._guard(flow, resource),
            crew_guard=await self._crew_guard(flow, row),
            launch_problem=launch_problem,
            pod_refusal="" if pod else await self._pod_refusal(flow, job, row.now),
            seen_at=seen_at,
        )

    def _cached_resource(self, uid: UUID) -> ResourceView | None:
        raw = self._cache.flow(uid)
        return None if raw is None else resource_view(raw)

    async def _fetched_resource(self, flow: FlowSnapshot) -> ResourceView | None:
        """The resource by name; None where there is none of this uid, so the flow's is gone."""
        raw = await self._cluster.flow(flow.namespace, flow.name)
        if raw is None or raw["metadata"]["uid"] != str(flow.flow_id):
            known = self._cache.flow(flow.flow_id)
            if known is not None:
                self._cache.remove(Kind.FLOW, known)
            return None
        self._cache.put(Kind.FLOW, raw)
        return resource_view(raw)

    async def _job(
        self, flow: FlowSnapshot, cached: list[JobView]
    ) -> tuple[JobView | None, Presence]:
        """The current attempt's Job: from the cache, else by name."""
        run = flow.run
        if run is None or run.state not in _JOB_IS_RECORDED or is_ended(flow.state):
            return None, Presence.UNKNOWN
        for job in cached:
            if job.name == run.job_name and job.uid == run.job_uid:
                return job, Presence.PRESENT
        raw = await self._cluster.job(flow.namespace, run.job_name)
        if raw is None:
            return None, Presence.ABSENT
        self._cache.put(Kind.JOB, raw)
        return job_view(raw), Presence.PRESENT

    def _pod(self, uid: UUID, job: JobView | None) -> PodView | None:
        if job is None:
            return None
        mine = [
            raw
            for raw in self._cache.pods(uid)
            if any(o.get("uid") == job.uid for o in raw["metadata"].get("ownerReferences") or [])
        ]
        return pod_view(mine[-1]) if mine else None

    async def _pod_refusal(self, flow: FlowSnapshot, job: JobView | None, now: datetime) -> str:
        """Why the current Job has no pod, once it could have had one."""
        if flow.state is not FlowState.RUNNING or job is None or job.made_pod:
            return ""
        if flow.run is None or flow.run.state is not RunState.LAUNCHED:
            return ""
        if (now - flow.state_since).total_seconds() < self._rules.pod_grace:
            return ""
        return await self._cluster.pod_refusal(flow.namespace, job.uid)

    async def _guard(self, flow: FlowSnapshot, resource: ResourceView | None) -> Guard | None:
        """The policy of answers, looked at only when one to the open request is there."""
        if flow.state is not FlowState.AWAITING_APPROVAL or flow.request is None:
            return None
        answer = resource.spec.approval if resource is not None and resource.spec else None
        if answer is None or answer.request_id != flow.request.request_id:
            return None
        name = self._policies.answers
        return Guard(name, await self._cluster.admission_policy(name))

    async def _crew_guard(self, flow: FlowSnapshot, look: Look) -> Guard | None:
        """The policy of crew pods, looked at when a Job is about to be created."""
        starts = look.capacity is not None and look.capacity.free
        created = flow.run is not None and flow.run.state is RunState.CREATED
        if not starts and not (created and flow.state is FlowState.RUNNING):
            return None
        name = self._policies.crews
        if time.monotonic() >= self._crews_guarded_until:
            presence = await self._cluster.admission_policy(name)
            if presence is not Presence.PRESENT:
                return Guard(name, presence)
            self._crews_guarded_until = time.monotonic() + GUARD_REMEMBERED
        return Guard(name, Presence.PRESENT)

    async def _missing(self, flow: FlowSnapshot, row: Look) -> tuple[str, ...] | None:
        """What the spec names and is not there; None where that does not matter now."""
        if flow.state not in _LOOKS_AT_REFERENCES or flow.deleted:
            return None
        if flow.state is FlowState.QUEUED and not _is_due(flow, row.now):
            return None
        missing = _missing_budget(flow) + self._missing_room(flow, row.admitted)
        if flow.source_pinned:
            return tuple(missing)
        spec = flow.spec
        if spec.source.artefact is not None and flow.upload_missing:
            missing.append(
                f"the uploaded file {spec.source.artefact.name!r} ({spec.source.artefact.digest}); "
                "upload it to this namespace again"
            )
        if spec.source.config_map is not None:
            missing += await self._missing_key(flow.namespace, spec.source.config_map)
        if spec.source.persistent_volume_claim is not None:
            claim = spec.source.persistent_volume_claim.claim_name
            if await self._cluster.volume_claim(flow.namespace, claim) is None:
                missing.append(f"PersistentVolumeClaim {claim!r}")
        if spec.target_schema is not None:
            missing += await self._missing_key(flow.namespace, spec.target_schema.config_map)
        return tuple(missing)

    def _missing_room(self, flow: FlowSnapshot, admitted: int) -> list[str]:
        """What a flow lacks that has yet to begin, where its namespace has enough of them open.

        One that has begun and stalls for something else goes on as soon as that is there.
        """
        most = self._rules.most_open_flows
        words = (
            f"{_NO_ROOM}, {most} (Helm value tenants.maxOpenFlows); it begins when one of them "
            "has ended"
        )
        begins = flow.state is FlowState.PENDING or any(
            told.startswith(_NO_ROOM) for told in flow.missing
        )
        return [words] if begins and admitted >= most else []

    async def _missing_key(self, namespace: str, reference: ConfigMapKey) -> list[str]:
        found = await self._cluster.config_map(namespace, reference.name)
        if found is None:
            return [f"ConfigMap {reference.name!r}"]
        if reference.key in {**(found.get("data") or {}), **(found.get("binaryData") or {})}:
            return []
        return [f"key {reference.key!r} of ConfigMap {reference.name!r}"]


def _missing_budget(flow: FlowSnapshot) -> list[str]:
    """What a flow that is to stall lacks when its budget is used up."""
    llm, spent = flow.spec.llm, flow.spent
    if llm.budget is None or spent is None or llm.on_budget != "Stall" or llm.provider == "builtin":
        return []
    budget, missing = llm.budget, []
    if budget.max_tokens is not None and spent.tokens >= budget.max_tokens:
        missing.append(
            f"tokens for the language model ({spent.tokens} used; raise spec.llm.budget.maxTokens, "
            f"which is {budget.max_tokens}, or set spec.llm.onBudget to Builtin)"
        )
    if budget.max_cost is not None and spent.cost >= float(budget.max_cost):
        missing.append(
            f"budget for the language model ({spent.cost:.2f} spent; raise "
            f"spec.llm.budget.maxCost, which is {budget.max_cost}, or set spec.llm.onBudget to "
            "Builtin)"
        )
    return missing


def _is_due(flow: FlowSnapshot, now: datetime) -> bool:
    """Whether the flow is Queued and its retry delay is over."""
    if flow.state is not FlowState.QUEUED:
        return False
    return flow.not_before is None or flow.not_before <= now


def _answer_may_be_newer(flow: FlowSnapshot, now: datetime) -> bool:
    """Before a deadline is applied, the resource is read afresh: an answer may just be there."""
    request = flow.request
    return (
        flow.state is FlowState.AWAITING_APPROVAL
        and request is not None
        and request.expires_at <= now
    )


def _same_attempt(before: FlowSnapshot, after: FlowSnapshot | None) -> bool:
    if after is None or before.run is None or after.run is None:
        return False
    return (before.run.run_id, before.state) == (after.run.run_id, after.state)
