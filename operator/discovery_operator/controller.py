"""The reconcile loop: observe, decide, execute, again until there is nothing to do, then status.

One pass makes one step; going round at once is what lets the next phase's Job follow a result
within milliseconds. Only the leader works; on the others keys are dropped, because becoming
leader looks at everything anyway.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from uuid import UUID

from discovery_core.actions import Decision
from discovery_core.logging import begin, bind, get_logger
from discovery_core.states import FlowState, WaitsFor

from . import metrics
from .cache import ObjectCache
from .decide import decide
from .dispatch import Dispatcher
from .execute import Executor, LaunchRefusedError
from .faults import FAULTS
from .kube import Cluster, KubernetesError
from .observe import Observer
from .observed import Observed, ResourceView
from .queue import KeyedQueue
from .slim import Kind
from .status import build_status, status_patch
from .views import resource_view

log = get_logger(__name__)

MAX_PASSES = 10
STATUS_TRIES = 4
LONGEST_TIMER = 300.0


class Controller:
    """Reconciles one flow at a time per key. `reconciled` is each flow's last seen version."""

    def __init__(
        self,
        observer: Observer,
        executor: Executor,
        cluster: Cluster,
        cache: ObjectCache,
        queue: KeyedQueue[UUID],
        dispatcher: Dispatcher,
    ) -> None:
        self._observer = observer
        self._executor = executor
        self._cluster = cluster
        self._cache = cache
        self.queue = queue
        self.reconciled: dict[UUID, int] = {}
        self._launch_problems: dict[UUID, str] = {}
        self.dispatcher = dispatcher

    async def work(self, leads: asyncio.Event) -> None:
        """A worker: takes keys for ever. Keys that come while not leading are dropped."""
        while True:
            uid = await self.queue.get()
            try:
                if leads.is_set():
                    await self._process(uid)
            finally:
                self.queue.done(uid)

    async def _process(self, uid: UUID) -> None:
        """One reconciliation; whatever goes wrong, the flow comes back after a backoff."""
        begin(flow=str(uid))
        try:
            with metrics.RECONCILE_SECONDS.time():
                await self.reconcile(uid)
        except LaunchRefusedError as refused:
            log.warning("the Job cannot be created", reason=refused.message)
            self.queue.failed(uid)
        except FAULTS as error:
            metrics.RECONCILE_ERRORS.inc()
            delay = self.queue.failed(uid)
            log.warning("reconcile again", delay=round(delay, 2), error=str(error))
        except Exception:
            metrics.RECONCILE_ERRORS.inc()
            delay = self.queue.failed(uid)
            log.exception("reconcile failed", delay=round(delay, 2))
        else:
            self.queue.succeeded(uid)

    async def reconcile(self, uid: UUID) -> None:
        """Takes a flow as far as it goes now, writes its status and sets its timer."""
        for _ in range(MAX_PASSES):
            observed = await self._observer.observe(
                uid,
                launch_problem=self._launch_problems.get(uid, ""),
                passed_over=self.queue.failing,
            )
            observed = replace(observed, rules=observed.rules.eased(self.dispatcher.taken))
            _bind_to_log(observed)
            decision = decide(observed)
            self._track(uid, observed)
            if not decision.actions:
                await self._write_status(observed)
                self._set_timer(uid, observed, decision)
                return
            for action in decision.actions:
                try:
                    await self._executor.execute(action, uid, observed)
                except LaunchRefusedError as refused:
                    await self._tell_launch_problem(uid, refused.message)
                    raise
        self.queue.add_after(uid, 1.0)

    async def _tell_launch_problem(self, uid: UUID, message: str) -> None:
        self._launch_problems[uid] = message
        await self._write_status(await self._observer.observe(uid, launch_problem=message))

    def _set_timer(self, uid: UUID, observed: Observed, decision: Decision) -> None:
        """Timers run on the monotonic clock; a long one is cut, so that clocks may be set.

        A request that expires later has none: the sweep finds it in time.
        """
        if decision.requeue_at is None:
            self.queue.set_timer(uid, None)
            return
        elapsed = time.monotonic() - observed.seen_at
        delay = (decision.requeue_at - observed.now).total_seconds() - elapsed
        if delay > LONGEST_TIMER and decision.waits_for is WaitsFor.APPROVAL_DEADLINE:
            self.queue.set_timer(uid, None)
        else:
            self.queue.set_timer(uid, min(LONGEST_TIMER, max(0.0, delay)))

    # -- bookkeeping ---------------------------------------------------------------------------

    def _track(self, uid: UUID, observed: Observed) -> None:
        flow = observed.flow
        if flow is None or flow.deleted:
            self.forget(uid)
            return
        self.reconciled[uid] = flow.version
        if flow.run is None or flow.run.job_uid is not None or flow.state is not FlowState.RUNNING:
            self._launch_problems.pop(uid, None)
        if flow.state is FlowState.RUNNING:
            self.dispatcher.took(uid)
        else:
            self.dispatcher.gave_up(uid)

    def forget(self, uid: UUID) -> None:
        """Drops what is remembered of a flow that has no row, or whose resource is gone."""
        self.reconciled.pop(uid, None)
        self._launch_problems.pop(uid, None)
        self.dispatcher.gave_up(uid)

    # -- status --------------------------------------------------------------------------------

    async def _write_status(self, observed: Observed) -> None:
        """Patches the status where it differs. Raises KubernetesError when it cannot."""
        for _ in range(STATUS_TRIES):
            status = build_status(observed)
            resource = observed.resource
            if status is None or resource is None:
                return
            patch = status_patch(resource, status)
            if patch is None:
                return
            try:
                raw = await self._cluster.patch_flow_status(
                    resource.namespace, resource.name, patch
                )
            except KubernetesError as error:
                fresh = await self._after_refusal(error, resource)
                if fresh is None:
                    return
                observed = replace(observed, resource=fresh)
                continue
            self._cache.put(Kind.FLOW, raw)
            return
        raise KubernetesError(409, "Conflict", "the status keeps changing under the operator")

    async def _after_refusal(
        self, error: KubernetesError, resource: ResourceView
    ) -> ResourceView | None:
        """The resource as it is now, after a conflict; None where it is gone."""
        if error.missing:
            self.queue.add_after(resource.uid, 0.5)
            return None
        if error.status != 409:
            raise error
        raw = await self._cluster.flow(resource.namespace, resource.name)
        if raw is None or raw["metadata"]["uid"] != str(resource.uid):
            self.queue.add_after(resource.uid, 0.5)
            return None
        self._cache.put(Kind.FLOW, raw)
        fresh = resource_view(raw)
        if fresh.generation != resource.generation:
            self.queue.add(resource.uid)
        return fresh


def _bind_to_log(observed: Observed) -> None:
    """Has every line of this reconciliation say what it is about."""
    flow = observed.flow
    if flow is not None:
        bind(
            flow_name=flow.name,
            tenant=str(flow.tenant_id),
            namespace=flow.namespace,
            round=flow.round,
            phase=str(flow.phase),
            attempt=flow.run.attempt if flow.run is not None else flow.last_attempt,
        )
