"""The system that the state machine plays with: two operators, pods, an API server in memory.

Everything that decides is the product's: store on a real PostgreSQL, observe, decide, execute.
Operators can be killed before or after any write, lose its answer, or be paused in front of it.
Time is moved by moving every time in the database back, so that the real clock does not matter.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar
from uuid import UUID

import psycopg
from discovery_core.errors import StoreError
from discovery_core.store import OperatorStore
from discovery_core.store.schema import Base
from discovery_core.wire.protocol import Claim
from discovery_operator.cache import ObjectCache
from discovery_operator.execute import LaunchRefusedError
from discovery_operator.intake import Intake
from discovery_operator.kube import KubernetesError
from discovery_operator.observed import Rules
from discovery_operator.queue import KeyedQueue
from discovery_operator.slim import Kind
from discovery_operator.views import job_view
from sqlalchemy import DateTime
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from tests.postgres import Stores
from tests.store.fake_cluster import FakeCluster
from tests.store.flows import Pod
from tests.store.operator_world import controller_of

T = TypeVar("T")
Raw = dict[str, Any]
FaultKind = Literal["before", "after", "lost answer", "twice", "pause"]

LIMITS = (2, 1)
NAMESPACES = ("team-a", "team-b")
TOLD = (StoreError, KubernetesError, LaunchRefusedError, OperationalError)


class KilledError(BaseException):
    """The operator's process is gone; no handler of its own may see that."""


@dataclass(frozen=True)
class Fault:
    """What happens at the write number `at` (from 0) of a reconciliation."""

    kind: FaultKind
    at: int


class Effects:
    """Stands around every external write of one operator."""

    def __init__(self) -> None:
        self.plan: Fault | None = None
        self.writes = 0
        self.resume = asyncio.Event()
        self.paused = asyncio.Event()

    def begin(self, plan: Fault | None) -> None:
        """For the reconciliation that starts now."""
        self.plan, self.writes = plan, 0
        self.resume, self.paused = asyncio.Event(), asyncio.Event()

    async def around(self, write: Callable[[], Awaitable[T]], lost: Exception) -> T:
        """Does the write, and what the plan has for it."""
        plan, number = self.plan, self.writes
        self.writes += 1
        if plan is None or number != plan.at:
            return await write()
        if plan.kind == "before":
            raise KilledError
        if plan.kind == "pause":
            self.paused.set()
            await self.resume.wait()
            return await write()
        await write()
        if plan.kind == "after":
            raise KilledError
        if plan.kind == "twice":
            # what `Database.run` does where the answer to a COMMIT was lost
            return await write()
        raise lost


class FaultyStore(OperatorStore):
    """The operator's store with faults at its writes."""

    def __init__(self, stores: Stores, effects: Effects) -> None:
        super().__init__(stores.operator.db, stores.cluster_id)
        self.effects = effects

    async def _write(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        write = super()._write
        gone = OperationalError("COMMIT", None, Exception("connection lost"))
        return await self.effects.around(lambda: write(work), gone)


class FaultyCluster:
    """One operator's connection to the API server that all share."""

    def __init__(self, shared: SharedCluster, effects: Effects) -> None:
        self._shared = shared
        self._effects = effects

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._shared, name)
        if name not in (
            "create_job",
            "delete_job",
            "patch_flow_status",
            "create_service_account",
        ):
            return method

        async def call(*args: Any) -> Any:
            timeout = KubernetesError(504, "Timeout", "the answer was lost")
            return await self._effects.around(lambda: method(*args), timeout)

        return call


class SharedCluster(FakeCluster):
    """Also has pods, a quota, and a garbage collector that takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.namespaces = {name: UUID(int=number) for number, name in enumerate(NAMESPACES, 1)}
        self.crew_pods: dict[str, Raw] = {}
        self.full = False
        for name in NAMESPACES:
            self.config_maps[name, "servers"] = {"data": {"servers.csv": "name\nweb01\n"}}

    async def create_job(self, manifest: Raw) -> Raw:
        if self.full:
            raise KubernetesError(403, "Forbidden", "exceeded quota: jobs")
        return await super().create_job(manifest)

    async def list_pods(self) -> tuple[list[Raw], int]:
        return [copy.deepcopy(raw) for raw in self.crew_pods.values()], self.version

    def pod_waits(self, job: Raw, reason: str) -> None:
        """The Job's pod cannot start for a reason; without one it has started."""
        uid = f"pod-of-{job['metadata']['uid']}"
        state = {"waiting": {"reason": reason, "message": "it is bad"}} if reason else {}
        self.crew_pods[uid] = {
            "metadata": {
                "name": uid,
                "namespace": job["metadata"]["namespace"],
                "uid": uid,
                "labels": job["metadata"]["labels"],
                "ownerReferences": [{"uid": job["metadata"]["uid"]}],
                "resourceVersion": self._next(),
            },
            "status": {
                "phase": "Pending" if reason else "Running",
                "containerStatuses": [{"name": "crew", "state": state}],
            },
        }

    def collect(self) -> None:
        """Jobs whose owner is gone go, and pods whose Job is."""
        owners = {raw["metadata"]["uid"] for raw in self.flows.values()}
        for key, raw in list(self.jobs.items()):
            if job_view(raw).owner_uid not in owners:
                del self.jobs[key]
        jobs = {raw["metadata"]["uid"] for raw in self.jobs.values()}
        for uid, pod in list(self.crew_pods.items()):
            if pod["metadata"]["ownerReferences"][0]["uid"] not in jobs:
                del self.crew_pods[uid]

    def active_jobs(self) -> list[Raw]:
        """Jobs without a verdict, in the order of their names."""
        return [raw for _, raw in sorted(self.jobs.items()) if not raw.get("status")]


@dataclass
class Operator:
    """One process: what it remembers is lost when it is killed."""

    name: str
    stores: Stores
    shared: SharedCluster
    rules: Rules = field(default_factory=Rules)
    task: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """A fresh process: nothing remembered, no leadership."""
        self.effects = Effects()
        self.store = FaultyStore(self.stores, self.effects)
        self.cache = ObjectCache()
        self.queue: KeyedQueue[UUID] = KeyedQueue()
        self.intake = Intake(self.cache, self.queue, lambda kind: None)
        api: Any = FaultyCluster(self.shared, self.effects)
        self.controller = controller_of(
            self.store, api, self.cache, self.queue, limits=LIMITS, rules=self.rules
        )

    async def lead(self) -> bool:
        """Asks for leadership as the loop does three times per lease."""
        return await self.store.acquire_leadership(self.name, 1e6) is not None

    async def see(self) -> None:
        """A complete list arrives."""
        for kind, lister in (
            (Kind.FLOW, self.shared.list_flows),
            (Kind.JOB, self.shared.list_jobs),
            (Kind.POD, self.shared.list_pods),
        ):
            listed, version = await lister()
            self.cache.replace(kind, listed, version)

    async def reconcile(self, uid: UUID, fault: Fault | None = None) -> Exception | None:
        """One reconciliation. Returns what a worker would have logged and tried again after."""
        self.effects.begin(fault)
        if fault is not None and fault.kind == "pause":
            return await self._until_paused(uid)
        try:
            await self.controller.reconcile(uid)
        except KilledError:
            self.die()
        except TOLD as error:
            return error
        return None

    async def _until_paused(self, uid: UUID) -> Exception | None:
        task = asyncio.create_task(self.controller.reconcile(uid))
        stopped = asyncio.create_task(self.effects.paused.wait())
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not task.done():
            self.task = task
            return None
        return _told(task)

    async def wake(self) -> Exception | None:
        """Goes on where it was paused, whatever has happened since."""
        task, self.task = self.task, None
        assert task is not None
        self.effects.plan = None
        self.effects.resume.set()
        await asyncio.wait({task})
        return _told(task)

    def die(self) -> None:
        """SIGKILL, and the Deployment starts it anew."""
        self.queue.close()
        self.start()

    async def end(self) -> None:
        """For the end of an example."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        self.queue.close()


def _told(task: asyncio.Task[None]) -> Exception | None:
    error = task.exception()
    if error is None or isinstance(error, TOLD):
        return error
    raise error


@dataclass
class World:
    """Everything of one example."""

    stores: Stores
    admin: psycopg.Connection[Any]
    cluster: SharedCluster
    operators: list[Operator]
    uids: list[UUID] = field(default_factory=list)
    pods: list[Pod] = field(default_factory=list)
    past: list[Raw] = field(default_factory=list)
    answers: set[tuple[str, str, str, str]] = field(default_factory=set)

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """As superuser, behind everybody's back."""
        cursor = self.admin.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []

    def pass_time(self, seconds: float) -> None:
        """Every time in the database is that much longer ago."""
        self.sql(_BACK.replace(":seconds", repr(float(seconds))))

    def next_timer(self) -> float | None:
        """Seconds until the next thing that the database's clock decides."""
        ((seconds,),) = self.sql(_NEXT)
        return None if seconds is None else max(0.0, float(seconds))

    def present(self, uid: UUID) -> tuple[str, str] | None:
        """Namespace and name of a flow's resource, where it exists."""
        for key, raw in self.cluster.flows.items():
            if raw["metadata"]["uid"] == str(uid):
                return key
        return None

    def edit(self, uid: UUID, **changes: Any) -> None:
        """Somebody edits the resource; the old one may turn up again in a watch."""
        key = self.present(uid)
        if key is not None:
            self.past.append(copy.deepcopy(self.cluster.flows[key]))
            self.cluster.edit(*key, **changes)

    def delete(self, uid: UUID) -> None:
        """Somebody deletes the resource."""
        key = self.present(uid)
        if key is not None:
            self.past.append(self.cluster.flows.pop(key))

    async def claim(self, job: Raw, pod_uid: str) -> Claim:
        """A pod of the Job reports for work."""
        view, meta = job_view(job), job["metadata"]
        tenant = self.cluster.namespaces[meta["namespace"]]
        claim = await self.stores.execution.claim(
            tenant_id=tenant,
            flow_id=UUID(view.owner_uid),
            job_name=view.name,
            job_uid=view.uid,
            pod_uid=pod_uid,
            pod_name=pod_uid,
        )
        self.cluster.pod_waits(job, "")
        self.pods.append(Pod(self.stores, tenant, claim, pod_uid))
        return claim

    def run_of(self, pod: Pod) -> tuple[str, str, str]:
        """State of the pod's attempt and flow, and the flow's id."""
        ((run, flow, flow_id),) = self.sql(
            "SELECT r.state, f.state, f.flow_id::text FROM phase_runs r "
            "JOIN discovery_flows f USING (tenant_id, flow_id) "
            "WHERE r.pod_uid = %s AND r.fence = %s AND r.tenant_id = %s",
            pod.pod_uid, pod.claim.fence, pod.tenant_id,
        )  # fmt: skip
        return str(run), str(flow), str(flow_id)


def _moved_back() -> str:
    statements = []
    for table in Base.metadata.sorted_tables:
        columns = [c.name for c in table.columns if isinstance(c.type, DateTime)]
        if columns and table.name != "leader":
            moved = ", ".join(f"{c} = {c} - make_interval(secs => :seconds)" for c in columns)
            statements.append(f"UPDATE {table.name} SET {moved}")
    return "; ".join(statements)


def cleared() -> str:
    """Empties all tables; cheaper than another database for each example."""
    names = [table.name for table in reversed(Base.metadata.sorted_tables)]
    deletes = "; ".join(f"DELETE FROM {name}" for name in names)
    return f"SET session_replication_role = replica; {deletes}"


_BACK = _moved_back()
_NEXT = """
SELECT extract(epoch FROM min(at) - clock_timestamp())::float FROM (
    SELECT not_before AS at FROM discovery_flows WHERE state = 'Queued'
    UNION ALL SELECT deadline FROM phase_runs WHERE state IN ('Created', 'Launched', 'Running')
    UNION ALL SELECT heartbeat_at + interval '60 seconds' FROM phase_runs WHERE state = 'Running'
    UNION ALL SELECT expires_at FROM approval_requests WHERE state = 'Open'
) timers WHERE at > clock_timestamp()
"""
