"""Anything may happen at any time, and nothing is lost, done twice or stuck.

Hypothesis plays operators, crews, nodes, people and the clock against the real store, observe,
decide and execute on a real PostgreSQL. After each step the invariants hold of the rows; whenever
the leader has caught up, they hold of statuses and Jobs too; and from wherever an example ends,
once faults stop every flow comes to an end or to a wait that is recorded.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack
from itertools import count
from typing import Any, ClassVar, TypeVar
from unittest.mock import patch
from uuid import UUID, uuid5

import psycopg
import pytest
import structlog
from discovery_core.errors import ErrorCode, NotFoundError, NotLaunchedError, SupersededError
from discovery_core.states import is_ended
from discovery_core.store import execution
from discovery_core.store.artefacts import blobs
from discovery_core.store.ledger import requests
from discovery_core.store.moves import attempts
from discovery_core.wire.protocol import Fail, Heartbeat
from discovery_operator.execute import LaunchRefusedError
from discovery_operator.observed import Presence, Rules
from discovery_operator.slim import Kind
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy.engine import URL

from tests.faults import seeds
from tests.faults.invariants import Expectations, InvariantError, describe, violations
from tests.faults.machine_world import (
    LIMITS,
    NAMESPACES,
    Fault,
    Operator,
    SharedCluster,
    World,
    cleared,
)
from tests.postgres import Stores, close_stores, fresh_database, open_stores
from tests.store import fake_cluster, flows
from tests.store.flows import SPEC, Pod

T = TypeVar("T")
REFUSED = (SupersededError, NotLaunchedError, NotFoundError)
LONG = 1e7
OTHER = UUID(int=99)
FAULTS = st.builds(
    Fault, st.sampled_from(["before", "after", "lost answer", "twice", "pause"]), st.integers(0, 3)
)
CODES = [ErrorCode.LLM_UNAVAILABLE, ErrorCode.LLM_UNAVAILABLE, ErrorCode.EMPTY_FILE]
PHASES = ["data_import", "field_mapping", "asset_inventory", "approval"]


class Life(RuleBasedStateMachine):
    """One database, one API server, two operators, one or two flows."""

    loop: ClassVar[asyncio.AbstractEventLoop]
    stores: ClassVar[Stores]
    admin: ClassVar[psycopg.Connection[Any]]

    def __init__(self) -> None:
        super().__init__()
        self.patches = ExitStack()
        serial = count(1)
        for module in (attempts, requests, blobs, execution, fake_cluster, flows):
            # the same draws have to lead to the same example
            replaced = patch.object(module, "uuid4", lambda: uuid5(OTHER, str(next(serial))))
            self.patches.enter_context(replaced)
        self.world = World(self.stores, self.admin, SharedCluster(), [])
        self.world.sql(cleared())
        self.installation = Rules()
        self.person_answers = True
        self.leader = 0
        self.serial = 0

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize(
        on_timeout=st.sampled_from(["Reject", "Approve", "Hold"]),
        mode=st.sampled_from(["Always", "AutoApprove"]),
        allow=st.booleans(),
        attempts=st.integers(1, 3),
        places=st.sampled_from([(0,), (0, 0), (0, 1)]),
        good_phases=st.integers(0, 4),
        answers=st.booleans(),
    )
    def begin(
        self,
        on_timeout: str,
        mode: str,
        allow: bool,
        attempts: int,
        places: tuple[int, ...],
        good_phases: int,
        answers: bool,
    ) -> None:
        cluster, self.installation = self.world.cluster, Rules(allow_automatic_approval=allow)
        self.person_answers = answers
        self.world.operators = [
            Operator(n, self.stores, cluster, self.installation) for n in ("a", "b")
        ]
        spec = {
            **SPEC,
            "approvalPolicy": {"onTimeout": on_timeout, "mode": mode, "minConfidence": 0.3},
            "retries": {"maxAttempts": attempts, "initialDelay": "5m", "maxDelay": "5m"},
        }
        for number, place in enumerate(places):
            self.world.uids.append(cluster.apply(NAMESPACES[place], f"servers-{number}", spec))
        self.take_over()
        self.catch_up()
        for _ in range(good_phases):
            self.cooperate()
            self.catch_up()

    # -- operators -----------------------------------------------------------------------------

    def flow(self, pick: int) -> UUID:
        return self.world.uids[pick % len(self.world.uids)]

    @rule(which=st.integers(0, 1), pick=st.integers(0, 1), fault=st.none() | FAULTS)
    def an_operator_works(self, which: int, pick: int, fault: Fault | None) -> None:
        """Leader or not: a process that was paused does not know that it leads no more."""
        operator = self.world.operators[which]
        if operator.task is None:
            before = self.history()
            self.run(operator.reconcile(self.flow(pick), fault))
            if which != self.leader:
                assert self.history() == before, "an operator that does not lead has written"

    @precondition(lambda self: any(o.task for o in self.world.operators))
    @rule()
    def a_paused_operator_wakes(self) -> None:
        self.paused_operators_wake()

    @rule(other=st.booleans())
    def leadership_moves(self, other: bool) -> None:
        old = self.world.operators[self.leader]
        if other:
            self.leader = 1 - self.leader
        self.take_over()
        if old.task is None and old is not self.world.operators[self.leader]:
            # it does not know yet, and sees that there is work
            self.run(old.see())
            before = self.history()
            for uid in self.world.uids:
                self.run(old.reconcile(uid))
            assert self.history() == before, "an old leader has written"

    def take_over(self) -> None:
        """The lease has run out, and the next to ask gets it."""
        self.world.sql("UPDATE leader SET expires_at = clock_timestamp()")
        operator = self.world.operators[self.leader]
        if operator.task is not None:
            # it is paused: the other one leads
            self.leader = 1 - self.leader
            operator = self.world.operators[self.leader]
            if operator.task is not None:
                operator.task.cancel()
                operator.task = None
                operator.die()
        assert self.run(operator.lead())

    @rule(which=st.integers(0, 1))
    def a_list_arrives(self, which: int) -> None:
        self.run(self.world.operators[which].see())

    @precondition(lambda self: self.world.past)
    @rule(which=st.integers(0, 1), pick=st.integers(0, 9), event=st.sampled_from(["ADDED", None]))
    def a_watch_replays_the_past(self, which: int, pick: int, event: str | None) -> None:
        old = self.world.past[pick % len(self.world.past)]
        self.world.operators[which].intake.changed(Kind.FLOW, event, old)

    @rule(which=st.integers(0, 1))
    def an_operator_is_killed(self, which: int) -> None:
        operator = self.world.operators[which]
        if operator.task is not None:
            operator.task.cancel()
            operator.task = None
        operator.die()
        if which == self.leader:
            self.take_over()

    @rule()
    def the_leader_catches_up(self) -> None:
        self.catch_up()

    @rule()
    def garbage_is_collected(self) -> None:
        self.run(self.leading().store.collect_garbage())

    def leading(self) -> Operator:
        if self.world.operators[self.leader].task is not None:
            self.take_over()
        operator = self.world.operators[self.leader]
        # it renews; one that was killed has come back
        assert self.run(operator.lead())
        return operator

    def catch_up(self) -> None:
        """The leader sees everything and works until nothing changes."""
        operator = self.leading()
        before: object = None
        for _ in range(8):
            self.run(operator.see())
            for uid in self.world.uids:
                error = self.run(operator.reconcile(uid))
                full = isinstance(error, LaunchRefusedError) and self.world.cluster.full
                assert error is None or full, repr(error)
            after = (self.history(), self.world.cluster.version)
            if after == before:
                break
            before = after
        else:
            raise AssertionError("the flows do not come to rest")
        self.check(settled=True)

    def history(self) -> list[tuple[Any, ...]]:
        return self.world.sql("SELECT flow_id, version FROM discovery_flows ORDER BY 1")

    # -- crews and nodes -----------------------------------------------------------------------

    @precondition(lambda self: self.world.cluster.jobs)
    @rule(pick=st.integers(0, 5))
    def a_pod_claims(self, pick: int) -> None:
        jobs = [raw for _, raw in sorted(self.world.cluster.jobs.items())]
        self.claim(jobs[pick % len(jobs)])

    def claim(self, job: dict[str, Any]) -> None:
        self.serial += 1
        meta = job["metadata"]
        expected = self.world.sql(
            "SELECT 1 FROM phase_runs WHERE job_name = %s AND job_uid = %s AND pod_uid IS NULL "
            "AND state = 'Launched'",
            meta["name"], meta["uid"],
        )  # fmt: skip
        if expected:
            self.run(self.world.claim(job, f"pod-{self.serial}"))
            return
        with pytest.raises(REFUSED):
            self.run(self.world.claim(job, f"pod-{self.serial}"))

    @precondition(lambda self: self.world.pods)
    @rule(pick=st.integers(0, 9), again=st.booleans())
    def a_crew_completes(self, pick: int, again: bool) -> None:
        """Its own attempt or, as a zombie, one that has ended."""
        pod = self.world.pods[-1 - pick % len(self.world.pods)]
        self.complete(pod)
        if again:
            self.complete(pod)

    def complete(self, pod: Pod) -> None:
        """A result is taken once; the same one again may be told so, and changes nothing."""
        state, *_ = self.world.run_of(pod)
        if state == "Running":
            self.run(pod.do_phase())
            assert self.world.run_of(pod)[0] == "Succeeded"
            return
        before = self.history()
        try:
            self.run(pod.do_phase())
        except SupersededError:
            pass
        else:
            assert state == "Succeeded", "a zombie was not told"
        assert self.history() == before, "a zombie has moved a flow"

    @precondition(lambda self: self.world.pods)
    @rule(pick=st.integers(0, 9), code=st.sampled_from(CODES))
    def a_crew_fails(self, pick: int, code: ErrorCode) -> None:
        pod = self.world.pods[-1 - pick % len(self.world.pods)]
        before, live = self.history(), self.world.run_of(pod)[0]
        try:
            self.run(
                self.stores.execution.fail(
                    tenant_id=pod.tenant_id,
                    pod_uid=pod.pod_uid,
                    message=Fail(fence=pod.claim.fence, code=code, message="why"),
                )
            )
        except SupersededError:
            assert live in ("Succeeded", "Superseded")
        assert (self.history() != before) == (live == "Running")

    @precondition(lambda self: self.world.pods)
    @rule(pick=st.integers(0, 9), guess=st.sampled_from([0, 0, 1, -1]))
    def a_crew_beats(self, pick: int, guess: int) -> None:
        pod = self.world.pods[-1 - pick % len(self.world.pods)]
        beat = Heartbeat(fence=max(0, pod.claim.fence + guess))
        work = self.stores.execution.heartbeat(
            tenant_id=pod.tenant_id, pod_uid=pod.pod_uid, beat=beat
        )
        if guess == 0 and self.world.run_of(pod)[0] == "Running":
            self.run(work)
            return
        with pytest.raises(SupersededError):
            self.run(work)

    @precondition(lambda self: self.world.cluster.active_jobs())
    @rule(pick=st.integers(0, 5), kind=st.sampled_from(["Failed", "Failed", "Complete", "gone"]))
    def a_job_ends(self, pick: int, kind: str) -> None:
        jobs = self.world.cluster.active_jobs()
        meta = jobs[pick % len(jobs)]["metadata"]
        if kind == "gone":
            del self.world.cluster.jobs[meta["namespace"], meta["name"]]
        else:
            self.world.cluster.job_ends(meta["name"], kind, "BackoffLimitExceeded")

    @precondition(lambda self: self.world.cluster.active_jobs())
    @rule(
        pick=st.integers(0, 5),
        reason=st.sampled_from(["CreateContainerConfigError", "ImagePullBackOff", ""]),
    )
    def a_pod_has_trouble(self, pick: int, reason: str) -> None:
        jobs = self.world.cluster.active_jobs()
        self.world.cluster.pod_waits(jobs[pick % len(jobs)], reason)

    @rule(full=st.booleans())
    def the_quota_changes(self, full: bool) -> None:
        self.world.cluster.full = full

    @rule()
    def the_garbage_collector_of_kubernetes_works(self) -> None:
        self.world.cluster.collect()

    # -- time ----------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([70, 400, 4000, 300_000]))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule()
    def the_next_timer_fires(self) -> None:
        self.to_next_timer()

    def to_next_timer(self) -> bool:
        seconds = self.world.next_timer()
        if seconds is not None:
            self.world.pass_time(seconds + 1)
        return seconds is not None

    # -- people --------------------------------------------------------------------------------

    @rule(pick=st.integers(0, 1), state=st.sampled_from(["Suspend", "Run", "Run"]))
    def somebody_sets_state(self, pick: int, state: str) -> None:
        key = self.world.present(self.flow(pick))
        if key and self.world.cluster.flows[key]["spec"].get("state") != "Cancel":
            self.world.edit(self.flow(pick), state=state)

    @rule(pick=st.integers(0, 1), really=st.sampled_from([False, False, False, True]))
    def somebody_cancels(self, pick: int, really: bool) -> None:
        if really:
            self.world.edit(self.flow(pick), state="Cancel")

    @rule(pick=st.integers(0, 1), really=st.sampled_from([False, False, False, True]))
    def somebody_deletes(self, pick: int, really: bool) -> None:
        if really:
            self.world.delete(self.flow(pick))

    @precondition(lambda self: len(self.world.uids) < 3)
    @rule(pick=st.integers(0, 1))
    def somebody_creates_a_namesake(self, pick: int) -> None:
        """Under the name of a flow that was deleted; another flow, whatever is left of the old."""
        old = [raw for raw in self.world.past if raw["metadata"]["uid"] == str(self.flow(pick))]
        if old and self.world.present(self.flow(pick)) is None:
            meta = old[-1]["metadata"]
            spec = {key: value for key, value in old[-1]["spec"].items() if key != "state"}
            uid = self.world.cluster.apply(meta["namespace"], meta["name"], spec)
            self.world.uids.append(uid)

    @rule(pick=st.integers(0, 1), phase=st.sampled_from(PHASES))
    def somebody_wants_another_round(self, pick: int, phase: str) -> None:
        self.serial += 1
        self.world.edit(self.flow(pick), rerun={"id": f"rerun-{self.serial}", "fromPhase": phase})

    @rule(
        pick=st.integers(0, 1),
        decision=st.sampled_from(["Approve", "Approve", "Reject", "AskAgain"]),
        how=st.sampled_from(["well", "well", "well", "stale", "forged", "badly"]),
    )
    def somebody_answers(self, pick: int, decision: str, how: str) -> None:
        self.answer(self.flow(pick), decision, how)

    def answer(self, uid: UUID, decision: str = "Approve", how: str = "well") -> None:
        """What the status asks; stale: other bytes; forged: another request; badly: a bad edit."""
        key = self.world.present(uid)
        asked = self.world.cluster.status(*key).get("approvalRequest") if key else None
        if asked is None:
            return
        given: dict[str, Any] = {
            "requestId": str(OTHER) if how == "forged" else asked["requestId"],
            "artefactDigest": "sha256:" + "0" * 64 if how == "stale" else asked["artefactDigest"],
            "decision": "Approve" if how == "badly" else decision,
            "decidedBy": "ann",
            **({"edits": [{"column": "Nmae", "target": "owner"}]} if how == "badly" else {}),
        }
        if how != "badly":
            self.world.answers.add(
                (given["requestId"], given["artefactDigest"], given["decision"], "ann")
            )
        self.world.edit(uid, approval=given)

    @rule(there=st.booleans(), place=st.integers(0, 1))
    def references_change(self, there: bool, place: int) -> None:
        data = {"servers.csv": "name\nweb01\n"} if there else {}
        self.world.cluster.config_maps[NAMESPACES[place], "servers"] = {"data": data}

    @rule(presence=st.sampled_from([Presence.PRESENT, Presence.PRESENT, *Presence]))
    def the_admission_policy_changes(self, presence: Presence) -> None:
        self.world.cluster.policy = presence

    # -- what holds ----------------------------------------------------------------------------

    @invariant()
    def invariants_hold(self) -> None:
        self.check(settled=False)

    def check(self, *, settled: bool) -> None:
        # without the policy of crew pods no Job is made, and the flow says so
        starts = settled and self.world.cluster.policy is Presence.PRESENT
        expected = Expectations(
            grace=30 if settled else LONG,
            stray=60 if settled else LONG,
            jobs=list(self.world.cluster.jobs.values()),
            resources=list(self.world.cluster.flows.values()),
            settled=settled,
            limits=LIMITS if starts else None,
            allow_automatic_approval=self.installation.allow_automatic_approval,
        )
        found = violations(self.admin, expected)
        if found:
            raise InvariantError(describe(found))
        decided = self.world.sql(
            "SELECT id::text, artefact_digest, state, decided_by FROM approval_requests "
            "WHERE decided_via = 'resource'"
        )
        words = {"Approved": "Approve", "Rejected": "Reject", "AskedAgain": "AskAgain"}
        for request, digest, state, by in decided:
            assert (request, digest, words[state], by) in self.world.answers, "nobody said that"
        live = self.world.sql(
            "SELECT count(*) FROM phase_runs WHERE state IN ('Created', 'Launched', 'Running') "
            "GROUP BY tenant_id"
        )
        assert sum(mine for (mine,) in live) <= LIMITS[0]
        assert all(mine <= LIMITS[1] for (mine,) in live)

    def cooperate(self) -> bool:
        """Pods work, and a person answers. Returns whether anybody had something to do."""
        done = False
        for job in self.world.cluster.active_jobs():
            self.world.cluster.pod_waits(job, "")
            ((state,),) = self.world.sql(
                "SELECT coalesce(max(state), '') FROM phase_runs WHERE job_uid = %s",
                job["metadata"]["uid"],
            )
            if state == "Launched":
                self.claim(job)
            holders = [p for p in self.world.pods if self.world.run_of(p)[0] == "Running"]
            for pod in holders:
                self.complete(pod)
                done = True
        for uid in self.world.uids if self.person_answers else ():
            asked = self.world.sql(
                "SELECT 1 FROM discovery_flows WHERE flow_id = %s AND state = 'AwaitingApproval'",
                uid,
            )
            if asked:
                self.answer(uid)
                done = True
        return done

    def teardown(self) -> None:
        try:
            if self.world.operators:
                self.faults_stop()
                self.everything_ends()
        finally:
            for operator in self.world.operators:
                self.run(operator.end())
            self.patches.close()

    def paused_operators_wake(self) -> None:
        for number, operator in enumerate(self.world.operators):
            if operator.task is not None:
                before = self.history()
                self.run(operator.wake())
                assert number == self.leader or self.history() == before, (
                    "an old leader has written"
                )

    def faults_stop(self) -> None:
        self.paused_operators_wake()
        self.world.cluster.full = False
        self.world.cluster.policy = Presence.PRESENT
        for place in (0, 1):
            self.references_change(True, place)
        self.world.cluster.collect()

    def everything_ends(self) -> None:
        for _ in range(60):
            self.catch_up()
            if not self.cooperate() and (not self.open_flows() or not self.to_next_timer()):
                break
        for pod in self.world.pods:
            if self.world.run_of(pod)[0] != "Running":
                self.complete(pod)
        self.catch_up()
        assert not self.open_flows(), f"they go on for ever: {self.open_flows()}"

    def open_flows(self) -> list[tuple[Any, ...]]:
        """Flows that have neither ended nor wait for a person on record."""
        rows = self.world.sql(
            "SELECT f.flow_id::text, f.state, f.spec ->> 'state', f.message, q.policy "
            "->> 'onTimeout' FROM discovery_flows f LEFT JOIN approval_requests q "
            "ON q.flow_id = f.flow_id AND q.state = 'Open'"
        )
        return [row for row in rows if not is_ended(row[1]) and not self.waits_for_a_person(row)]

    def waits_for_a_person(self, row: tuple[Any, ...]) -> bool:
        _, state, wanted, _, on_timeout = row
        if state == "Suspended":
            return bool(wanted == "Suspend")
        if state != "AwaitingApproval" or self.person_answers:
            return False
        forbidden = on_timeout == "Approve" and not self.installation.allow_automatic_approval
        return forbidden or on_timeout == "Hold"


@pytest.fixture
def machine(postgres: URL, template: str) -> Iterator[type[Life]]:
    """The state machine over a database of its own."""
    # thousands of lines that nobody reads
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with fresh_database(postgres, template) as urls, asyncio.Runner() as runner:
        Life.loop = runner.get_loop()
        Life.stores = runner.run(open_stores(urls))
        with psycopg.connect(urls.superuser, autocommit=True) as Life.admin:
            yield Life
        runner.run(close_stores(Life.stores))
    structlog.reset_defaults()


@pytest.mark.slow
def test_nothing_is_lost_twice_or_stuck(machine: type[Life]) -> None:
    size = (400, 50) if seeds.full() else (20, 30)
    print(f"FAULTS_SEED={seeds.seed()}: {size[0]} examples of up to {size[1]} steps")
    run_state_machine_as_test(
        seed(seeds.seed())(machine),
        settings=settings(
            max_examples=size[0],
            stateful_step_count=size[1],
            deadline=None,
            database=None,
            # told as it was found: looking for a shorter example takes minutes
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
