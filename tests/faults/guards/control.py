"""The guards of steps, leaders, answers and tenants."""

from __future__ import annotations

from discovery_core.store.schema import TENANT_TABLES

from .model import API, CORE, OPERATOR, DatabaseGuard, Guard, unless

FENCES = "tests/store/test_fences.py"
KEYS = "tests/faults/test_keys_and_fences.py"
GATE = "tests/store/test_gate.py"
ROUNDS = "tests/store/test_rounds.py"
FLOWS = "tests/store/test_operator_flow.py"
OPERATOR_JOBS = "tests/store/test_operator_jobs.py"
OPERATOR_PEOPLE = "tests/store/test_operator_people.py"
ISOLATION = "tests/store/test_isolation.py"
EXECUTION = "tests/api/test_execution_api.py"
USERS = "tests/api/test_user_api.py"
SESSIONS = "tests/faults/test_sessions.py"
POLICY_TESTS = "tests/cluster/test_admission.py"
ONE_MOMENT = "tests/store/test_one_moment.py"


READS = (
    Guard("nothing is compiled", f"{CORE}/database.py",
          '            "-c jit=off"\n', "",
          "tests/store/test_one_moment.py::test_no_statement_is_compiled[operator]"),
    Guard("a read sees one moment", f"{CORE}/database.py",
          'return await self._again(scope, work, reading=True)',
          'return await self._again(scope, work, reading=False)',
          f"{ONE_MOMENT}::test_a_gate_that_opens_between_two_questions_is_not_half_seen"),
    Guard("what reads cannot write", f"{CORE}/database.py", ', "postgresql_readonly": True', "",
          f"{ONE_MOMENT}::test_what_reads_cannot_write"),
)  # fmt: skip

CREWS = (
    Guard("fence of an attempt", f"{CORE}/moves/held.py",
          "PhaseRun.pod_uid == pod_uid, PhaseRun.fence == fence", "PhaseRun.pod_uid == pod_uid",
          f"{FENCES}::test_a_guessed_fence_is_refused"),
    Guard("the pod that holds the fence", f"{CORE}/moves/held.py",
          "PhaseRun.pod_uid == pod_uid, PhaseRun.fence == fence", "PhaseRun.fence == fence",
          f"{FENCES}::test_a_guessed_fence_is_refused"),
    Guard("only a live attempt may go on", f"{CORE}/moves/held.py", *unless("not ended"),
          f"{FENCES}::test_a_superseded_attempts_late_result_is_refused"),
    Guard("only a live attempt's heart beats", f"{CORE}/execution.py",
          ".where(holds(pod_uid, beat.fence), PhaseRun.state == RunState.RUNNING)",
          ".where(holds(pod_uid, beat.fence))",
          f"{FENCES}::test_a_superseded_attempt_is_told_so_at_its_next_heartbeat"),
    Guard("a result is taken of a running attempt only", f"{CORE}/execution.py",
          """            if run.state != RunState.RUNNING:
                raise SupersededError(f"attempt {run.attempt} of {run.phase} has ended")
            for digest""", "            for digest",
          f"{FENCES}::test_a_superseded_attempts_late_result_is_refused"),
    Guard("the attempt is read again under the flow's lock", f"{CORE}/execution.py",
          """            await session.refresh(run)
            if run.state == RunState.SUCCEEDED:""",
          "            if run.state == RunState.SUCCEEDED:",
          f"{FENCES}::test_concurrent_results_of_one_attempt_are_accepted_once"),
    Guard("a failure is taken of a running attempt only", f"{CORE}/execution.py",
          """            if run.state != RunState.RUNNING:
                raise SupersededError(f"attempt {run.attempt} of {run.phase} has ended")
            run.state = RunState.FAILED""", "            run.state = RunState.FAILED",
          f"{EXECUTION}::test_a_stopped_attempt_is_told_superseded"),
    Guard("no claim before the Job is recorded", f"{CORE}/execution.py",
          *unless("run.job_uid is None"), f"{FENCES}::test_only_the_recorded_job_may_claim"),
    Guard("the Job's uid at the claim", f"{CORE}/execution.py",
          *unless("run.job_uid != job_uid"), f"{FENCES}::test_only_the_recorded_job_may_claim"),
    Guard("the claim is bound to one pod", f"{CORE}/execution.py",
          *unless("run.pod_uid not in (None, pod_uid)"),
          f"{FENCES}::test_only_the_recorded_job_may_claim"),
    Guard("no claim of an attempt that has ended", f"{CORE}/execution.py",
          *unless("run.state not in LIVE_RUN_STATES"),
          f"{KEYS}::test_an_attempt_that_has_ended_cannot_be_claimed"),
    Guard("a claim gets a fence of its own", f"{CORE}/execution.py", "flow.last_fence += 1",
          "flow.last_fence = 1", f"{FENCES}::test_a_superseded_attempts_late_result_is_refused"),
    Guard("artefacts of a result exist", f"{CORE}/moves/held.py",
          """    if found is None:
        raise DiscoveryError(""", """    if False:
        raise DiscoveryError(""", f"{FENCES}::test_a_result_of_another_phase_is_refused"),
    Guard("a result is of its attempt's phase", f"{CORE}/moves/accept.py",
          *unless("result.kind != run.phase"),
          f"{KEYS}::test_the_wrong_phases_result_is_no_result"),
    Guard("artefacts are read by their own flow only", f"{CORE}/moves/held.py",
          "select(Artefact).where(Artefact.digest == digest, referred | named)",
          "select(Artefact).where(Artefact.digest == digest)",
          f"{EXECUTION}::test_an_artefact_of_another_flow_is_not_found"),
    Guard("staged rows of other attempts do not count", f"{CORE}/inventory/assets.py",
          "r.phase = 'asset_inventory' AND r.state = 'Succeeded'", "r.phase = 'asset_inventory'",
          f"{FENCES}::test_staged_rows_count_only_when_accepted"),
)  # fmt: skip

PODS = (
    Guard("the token's audience", f"{API}/execution/identity.py",
          " or TOKEN_AUDIENCE not in (status.audiences or [])", "",
          f"{EXECUTION}::test_who_is_not_a_crew_pod_gets_nothing[other-audience]"),
    Guard("the pod of the token still is that pod", f"{API}/execution/identity.py",
          *unless("pod.metadata.uid != pod_uid"),
          f"{EXECUTION}::test_who_is_not_a_crew_pod_gets_nothing[pod-was-replaced]"),
    Guard("the pod's Job still is that Job", f"{API}/execution/identity.py",
          *unless("job.metadata.uid != job_uid"),
          f"{EXECUTION}::test_who_is_not_a_crew_pod_gets_nothing[job-was-replaced]"),
    Guard("a controller, not a mere owner", f"{API}/execution/identity.py",
          "owner.controller and owner.kind == kind", "owner.kind == kind",
          f"{EXECUTION}::test_who_is_not_a_crew_pod_gets_nothing[pod-of-a-mere-owner]"),
    Guard("the owner's API group", f"{API}/execution/identity.py",
          " and owner.api_version.startswith(group)", "",
          f"{EXECUTION}::test_who_is_not_a_crew_pod_gets_nothing[job-of-another-group]"),
    Guard("the owner's kind", f"{API}/execution/identity.py",
          "owner.controller and owner.kind == kind", "owner.controller",
          f"{EXECUTION}::test_who_is_not_a_crew_pod_gets_nothing[job-of-another-kind]"),
    Guard("the token is a ServiceAccount's", f"{API}/execution/identity.py",
          "not status.user.username.startswith(_PREFIX) or ", "",
          f"{EXECUTION}::test_who_is_not_a_crew_pod_gets_nothing[a-person-named-like-it]"),
    Guard("what is remembered of a pod goes by its uid", f"{API}/execution/identity.py",
          "self._pods.get(reference) or",
          "next((i for r, i in self._pods.items() if r.name == reference.name), None) or",
          f"{EXECUTION}::test_a_pods_way_to_its_flow_is_walked_once_but_its_token_is_reviewed_again"),
)  # fmt: skip

LEADERS = (
    Guard("epoch of every write", f"{CORE}/database.py", *unless("held.first() is None"),
          f"{FENCES}::test_an_old_leader_changes_nothing"),
    Guard("a write without an epoch is none", f"{CORE}/operator.py",
          "ClusterScope(self.cluster_id, epoch), work)", "ClusterScope(self.cluster_id), work)",
          f"{FENCES}::test_an_old_leader_changes_nothing"),
    Guard("a write holds the epoch until it ends", f"{CORE}/database.py",
          '''epoch = :epoch "
                    "FOR KEY SHARE"''', '''epoch = :epoch "
                    ""''', f"{KEYS}::test_a_takeover_waits_for_the_old_leaders_transaction"),
    Guard("a lease that has not run out", f"{CORE}/leadership.py",
          "    WHERE l.expires_at <= clock_timestamp()\n", "",
          f"{FENCES}::test_an_old_leader_changes_nothing"),
    Guard("a takeover raises the epoch", f"{CORE}/leadership.py",
          "epoch = l.epoch + 1", "epoch = l.epoch",
          f"{FENCES}::test_an_old_leader_changes_nothing"),
    Guard("a leader that was succeeded meanwhile looks at everything", f"{OPERATOR}/leader.py",
          "if self.leads.is_set() and before <= epoch <= before + 1:", "if self.leads.is_set():",
          "tests/store/test_operator_leader.py"
          "::test_a_leader_that_another_one_succeeded_looks_at_everything"),
    Guard("a frozen leader's transaction is ended", f"{CORE}/database.py",
          '_LEADER_IDLE = "5s"', '_LEADER_IDLE = "60s"',
          "tests/store/test_operator_leader.py::test_a_frozen_leader_is_succeeded_in_seconds"),
    DatabaseGuard("the epoch is part of a key", "leader",
                  "ALTER TABLE leader DROP CONSTRAINT uq_leader_cluster_id_epoch",
                  f"{KEYS}::test_a_takeover_waits_for_the_old_leaders_transaction"),
)  # fmt: skip

STEPS = (
    Guard("the state table", f"{CORE}/ledger/transition.py", "    if target is None:\n",
          "    target = target or source\n    if False:\n",
          "tests/store/test_flow_life.py::test_an_illegal_step_is_refused"),
    Guard("the flow's row is locked", f"{CORE}/ledger/transition.py",
          "        .with_for_update()\n", "",
          f"{FENCES}::test_two_writers_race_for_one_flow"),
    Guard("caps are checked again under the lock", f"{CORE}/moves/attempts.py",
          *unless("running >= limits[0] or mine >= limits[1]"),
          f"{FENCES}::test_slots_are_never_oversold"),
    Guard("slots are handed out one at a time", f"{CORE}/moves/attempts.py",
          "pg_advisory_xact_lock(hashtextextended(:key, 1))", "hashtextextended(:key, 1)",
          f"{FENCES}::test_slots_are_never_oversold"),
    Guard("the same intent is one attempt", f"{CORE}/moves/attempts.py",
          *unless("known is not None"),
          f"{FENCES}::test_concurrent_starts_make_one_attempt"),
    Guard("a Job is recorded once", f"{CORE}/moves/attempts.py",
          "if run is not None and run.state == RunState.CREATED:", "if run is not None:",
          f"{KEYS}::test_a_job_is_recorded_once"),
    Guard("only the newest attempt fails", f"{CORE}/moves/attempts.py",
          *unless("await _newest(session, flow) != failure.run_id"),
          f"{KEYS}::test_a_late_failure_of_an_older_attempt_is_not_written[failed]"),
    Guard("a pod at work lacks nothing", f"{CORE}/moves/steps.py",
          *unless("run is not None and run.state == RunState.RUNNING"),
          f"{KEYS}::test_a_pod_that_works_lacks_nothing"),
    Guard("an older generation is not stored", f"{CORE}/moves/steps.py",
          *unless("flow.generation >= generation"),
          f"{KEYS}::test_an_older_spec_is_not_stored_over_a_newer_one"),
    Guard("what cannot be reconciled is passed over", f"{OPERATOR}/controller.py",
          "passed_over=self.queue.failing", "passed_over=()",
          f"{FLOWS}::test_a_queued_flow_that_cannot_be_reconciled_keeps_nobody_waiting"),
    Guard("what is passed over has no turn", f"{CORE}/moves/queue.py",
          "      AND flow_id <> ALL(:passed_over)", "      AND :passed_over IS NOT NULL",
          "tests/store/test_queue_order.py::"
          "test_a_flow_that_cannot_be_reconciled_loses_its_turn_until_it_can[a]"),
    Guard("who is passed over sees its own turn", f"{CORE}/moves/queue.py",
          "[flow for flow in passed_over if flow != flow_id]", "list(passed_over)",
          "tests/store/test_queue_order.py::"
          "test_a_flow_that_was_passed_over_still_sees_its_own_turn"),
    Guard("nobody starts out of turn", f"{CORE}/moves/queue.py",
          "enough_for_all or flow_id in await startable(session, limits, others)", "True",
          "tests/store/test_queue_order.py::"
          "test_one_flow_does_not_wait_for_the_many_of_another_tenant[1]"),
    Guard("a slot that was given up is handed on", f"{OPERATOR}/dispatch.py",
          "            self._wake.set()\n", "",
          "tests/unit/operator/test_dispatch.py::"
          "test_a_slot_that_was_given_up_is_handed_on_at_once[True]"),
    Guard("what is gone is forgotten", f"{OPERATOR}/controller.py",
          "if flow is None or flow.deleted:", "if flow is None:",
          f"{FLOWS}::test_deletion_ends_the_flow_and_its_job"),
    Guard("registering finds what is registered", f"{CORE}/moves/steps.py",
          *unless("existing is not None"),
          "tests/store/test_flow_life.py::test_registering_twice_finds_the_same_flow"),
    Guard("permanent errors are not tried again", f"{OPERATOR}/retries.py",
          "not is_retryable(code) or ", "",
          f"{OPERATOR_JOBS}::test_a_permanent_failure_ends_the_flow_with_its_words"),
    Guard("attempts are used up", f"{OPERATOR}/retries.py", " or failures >= retries.max_attempts",
          "", f"{OPERATOR_JOBS}::test_a_crashed_pod_is_tried_again_until_attempts_are_used_up"),
)  # fmt: skip

APPROVALS = (
    Guard("digest of what is answered", f"{CORE}/moves/gate.py",
          *unless("request.artefact_digest != given.artefact_digest"),
          f"{GATE}::test_a_stale_digest_is_refused"),
    Guard("id of what is answered", f"{CORE}/moves/gate.py",
          "if request is None or request.id != request_id or flow.state != "
          "FlowState.AWAITING_APPROVAL:\n        raise",
          "if request is None or flow.state != FlowState.AWAITING_APPROVAL:\n        raise",
          f"{ROUNDS}::test_the_answer_to_the_first_question_is_late"),
    Guard("a request expires at its time", f"{CORE}/moves/gate.py",
          " or request.expires_at > now", "",
          f"{KEYS}::test_a_request_does_not_expire_before_its_time"),
    Guard("the policy is the one of the request", f"{CORE}/moves/gate.py",
          "    policy = ApprovalPolicy.model_validate(request.policy)\n    details",
          "    from ..ledger.snapshot import spec_of\n"
          "    policy = spec_of(flow).approval_policy\n"
          "    details",
          f"{KEYS}::test_a_request_ends_by_the_policy_that_it_was_opened_with"),
    Guard("the policy is frozen when a request opens", f"{CORE}/ledger/snapshot.py",
          "policy=ApprovalPolicy.model_validate(request.policy),",
          "policy=spec_of(await session.get_one(DiscoveryFlowRow, (request.tenant_id, "
          "request.flow_id))).approval_policy,",
          f"{GATE}::test_the_policy_is_frozen_when_the_request_opens"),
    Guard("a policy that asks a person never approves", f"{CORE}/moves/gate.py",
          *unless('policy.mode != "AutoApprove"'),
          f"{ROUNDS}::test_a_policy_that_asks_a_person_never_approves"),
    Guard("who asked again is asked", f"{CORE}/ledger/requests.py",
          'policy.model_copy(update={"mode": "Always"}) if asked else policy', "policy",
          f"{ROUNDS}::test_who_asked_again_is_asked_whatever_the_policy"),
    Guard("bad edits are refused as a whole", "core/discovery_core/mapping_edits.py",
          "    if problems:\n        raise InvalidAnswerError(problems)", "    pass",
          f"{GATE}::test_a_bad_answer_is_refused_as_a_whole_and_asked_again"),
    Guard("a rerun is followed once", f"{CORE}/moves/rounds.py",
          "wanted.id in flow.rerun_ids or ", "",
          f"{ROUNDS}::test_an_id_is_followed_once"),
    Guard("a rerun cannot skip the gate", f"{CORE}/moves/rounds.py",
          *unless("phase == Phase.FIELD_MAPPING and not await _is_approved(session, flow)"),
          f"{ROUNDS}::test_mappings_that_were_rejected_cannot_be_skipped"),
    Guard("cancelled is final", "core/discovery_core/states.py",
          "(_S.PENDING, _S.SUSPENDED, _S.CANCELLED)", "(_S.PENDING, _S.SUSPENDED)",
          f"{ROUNDS}::test_a_cancelled_flow_stays_cancelled"),
    Guard("no answer without the admission policy", f"{OPERATOR}/decide_gate.py",
          "if guard.presence is Presence.PRESENT:", "if True:",
          f"{OPERATOR_PEOPLE}::test_an_answer_without_the_admission_policy_never_counts"),
    Guard("an answer in time beats the clock", f"{OPERATOR}/observe.py",
          "(resource is None or _answer_may_be_newer(flow, row.now))", "resource is None",
          f"{OPERATOR_PEOPLE}::test_an_answer_that_no_watch_has_delivered_beats_the_deadline"),
    Guard("approving by policy needs the installation", f"{OPERATOR}/decide_gate.py",
          "        rules.allow_automatic_approval\n        and policy.mode",
          "        policy.mode",
          f"{KEYS}::test_a_policy_approves_only_with_everything[installation]"),
    Guard("approving by the clock needs the installation", f"{OPERATOR}/decide_gate.py",
          'request.policy.on_timeout != "Approve" or rules.allow_automatic_approval', "True",
          "tests/unit/operator/test_decide.py::test_automatic_approval_needs_the_installation"),
    Guard("approving by policy needs its confidence", f"{OPERATOR}/decide_gate.py",
          "        and request.lowest_confidence >= policy.min_confidence\n", "",
          f"{KEYS}::test_a_policy_approves_only_with_everything[confidence]"),
    Guard("approving by policy needs the required fields", f"{OPERATOR}/decide_gate.py",
          "        and not request.required_unmapped\n", "",
          f"{KEYS}::test_a_policy_approves_only_with_everything[required-field]"),
    DatabaseGuard("decisions are somebody's", "approval_requests",
                  "ALTER TABLE approval_requests DROP CONSTRAINT ck_approval_requests_attributable",
                  f"{GATE}::test_an_anonymous_decision_cannot_be_stored"),
)  # fmt: skip

KUBERNETES = (
    Guard("uid precondition of a delete", f"{OPERATOR}/kube.py", ', "preconditions": {"uid": uid}',
          "", "tests/unit/operator/test_kube.py::"
          "test_a_delete_names_the_very_job_and_accepts_that_it_is_gone"),
    Guard("owner of an adopted Job", f"{OPERATOR}/execute.py",
          "(theirs.owner_uid, theirs.attempt_key) != (ours.owner_uid, ours.attempt_key)",
          "theirs.attempt_key != ours.attempt_key",
          f"{KEYS}::test_only_the_attempts_own_job_is_adopted[owner]"),
    Guard("attempt of an adopted Job", f"{OPERATOR}/execute.py",
          "(theirs.owner_uid, theirs.attempt_key) != (ours.owner_uid, ours.attempt_key)",
          "theirs.owner_uid != ours.owner_uid",
          f"{KEYS}::test_only_the_attempts_own_job_is_adopted[attempt]"),
    Guard("a Job is the flow's by its owner", f"{OPERATOR}/observe.py",
          "job.owner_uid == str(uid) and ", "",
          f"{KEYS}::test_a_job_that_only_wears_our_label_is_left_alone"),
    Guard("a namesake is another flow", f"{OPERATOR}/observe.py",
          'if raw is None or raw["metadata"]["uid"] != str(flow.flow_id):', "if raw is None:",
          f"{FLOWS}::test_a_namesake_is_another_flow"),
    Guard("a Job is gone only after a GET", f"{OPERATOR}/observe.py",
          "        raw = await self._cluster.job(flow.namespace, run.job_name)\n",
          "        raw = None\n",
          f"{KEYS}::test_a_cache_that_is_empty_proves_no_absence"),
    Guard("a status is never older than what is shown", f"{OPERATOR}/status.py",
          'flow.deleted or flow.version < int(resource.status.get("rowVersion") or 0)',
          "flow.deleted",
          "tests/unit/operator/test_status.py::"
          "test_an_older_row_is_never_written_over_a_newer_status"),
    Guard("a status carries the version that was seen", f"{OPERATOR}/status.py",
          '"metadata": {"resourceVersion": resource.resource_version},', '"metadata": {},',
          f"{FLOWS}::test_a_conflict_on_the_status_is_looked_at_again"),
    Guard("an older object never replaces a newer one", f"{OPERATOR}/cache.py",
          *unless("known is not None and version_of(known) >= version"),
          "tests/unit/operator/test_cache.py::test_an_older_version_never_replaces_a_newer_one"),
    Guard("what was deleted does not come back", f"{OPERATOR}/cache.py",
          "if flow is None or uid in self._deleted:\n            return False\n        known",
          "if flow is None:\n            return False\n        known",
          "tests/unit/operator/test_cache.py::test_what_was_deleted_does_not_come_back"),
    Guard("each attempt has a Job of its own", f"{OPERATOR}/manifests/names.py",
          'f"{flow_uid}/{round}/{phase}/{attempt}"', 'f"{flow_uid}/{phase}"',
          "tests/unit/operator/test_manifests.py::test_each_attempt_has_a_name_of_its_own"),
)  # fmt: skip

PEOPLE = (
    Guard("the page's token (CSRF)", f"{API}/sessions.py",
          *unless('not hmac.compare_digest((given or "").encode(), session.csrf.encode())'),
          f"{SESSIONS}::test_without_the_pages_token"),
    Guard("the Origin header", f"{API}/sessions.py", "if foreign or site not in", "if site not in",
          f"{SESSIONS}::test_from_another_site[origin]"),
    Guard("the Sec-Fetch-Site header", f"{API}/sessions.py",
          'if foreign or site not in ("same-origin", "none"):', "if foreign:",
          f"{SESSIONS}::test_from_another_site[fetch-site]"),
    Guard("the cookie is SameSite", f"{API}/sessions.py", 'samesite="strict"', 'samesite="none"',
          f"{SESSIONS}::test_the_cookie_is_out_of_reach_of_scripts_and_other_sites"),
    Guard("the cookie is HttpOnly", f"{API}/sessions.py",
          'httponly=True,\n                    samesite',
          'httponly=False,\n                    samesite',
          f"{SESSIONS}::test_the_cookie_is_out_of_reach_of_scripts_and_other_sites"),
    Guard("Kubernetes decides who sees a flow", f"{API}/context.py",
          "resource = await self.caller.flow(location.namespace, location.name)",
          'resource = {"metadata": {"uid": str(flow_id)}}',
          f"{USERS}::test_no_route_about_a_flow_answers_a_stranger"),
    Guard("the resource still is that flow's", f"{API}/context.py",
          *unless('resource["metadata"]["uid"] != str(flow_id)'),
          f"{USERS}::test_a_replaced_resource_of_the_same_name_is_another_flow"),
    Guard("a verb for what does not go through the resource", f"{API}/routes/lessons.py",
          "    await visited.require(VERB)\n", "",
          "tests/api/test_lessons_and_attempts.py::test_only_approvers_may_unlearn"),
    Guard("a verb for decisions about the inventory", f"{API}/routes/conflicts.py",
          "    await visited.require(VERB)\n", "",
          "tests/api/test_conflicts.py::test_only_approvers_decide"),
    Guard("a stream ends with the right to see", f"{API}/routes/live.py",
          *unless("not await _still_visible(visited)"),
          "tests/api/test_live.py::test_a_stream_ends_when_the_flow_may_not_be_seen_any_more"),
)  # fmt: skip


def _keys() -> tuple[DatabaseGuard, ...]:
    guards = []
    for name, drop in {
        "uq_phase_runs_accepted": "DROP INDEX {0}",
        "uq_phase_runs_live": "DROP INDEX {0}",
        "uq_approval_requests_open": "DROP INDEX {0}",
        "uq_phase_runs_tenant_id_flow_id_round_phase_attempt": "ALTER TABLE phase_runs {1}",
        "uq_phase_runs_tenant_id_job_name": "ALTER TABLE phase_runs {1}",
        "uq_master_flows_flow_id": "ALTER TABLE master_flows {1}",
        "pk_flow_events": "ALTER TABLE flow_events {1}",
        "uq_field_mappings_tenant_id_request_id_source_column": "ALTER TABLE field_mappings {1}",
    }.items():
        sql = drop.format(name, f"DROP CONSTRAINT {name} CASCADE")
        test = f"{KEYS}::test_a_row_that_may_exist_once_cannot_be_written_twice[{name}]"
        guards.append(DatabaseGuard(f"unique key {name}", "database", sql, test))
    return tuple(guards)


def _tenants() -> tuple[DatabaseGuard, ...]:
    """Row-level security of every table: each policy, and that it binds the owner too."""
    hidden = f"{ISOLATION}::test_a_missing_or_foreign_tenant_shows_no_row"
    guards = []
    for table in (*TENANT_TABLES, "tenants"):
        role = "execution" if table == "circuit_breakers" else "api"
        guards += [
            DatabaseGuard(f"tenant policy of {table}", table,
                          f"ALTER POLICY tenant ON {table} USING (true)",
                          f"{hidden}[foreign-{role}]"),
            DatabaseGuard(f"cluster policy of {table}", table,
                          f"ALTER POLICY cluster ON {table} USING (true)",
                          f"{hidden}[foreign-operator]"),
            DatabaseGuard(f"FORCE on {table}", table,
                          f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY",
                          f"{hidden}[foreign-owner]"),
        ]  # fmt: skip
    return tuple(guards)


DATABASE: tuple[Guard | DatabaseGuard, ...] = (
    Guard("the tenant ends with the transaction", f"{CORE}/database.py",
          "set_config('discovery.tenant_id', :tenant, true)",
          "set_config('discovery.tenant_id', :tenant, false)",
          f"{ISOLATION}::test_a_pooled_connection_does_not_carry_the_tenant_on"),
    DatabaseGuard("rows for another tenant cannot be written", "artefacts",
                  "ALTER POLICY tenant ON artefacts WITH CHECK (true)",
                  f"{ISOLATION}::test_a_row_for_another_tenant_cannot_be_written"),
    *(
        DatabaseGuard(f"history: no {right} for {role}", "flow_events",
                      f"GRANT {right} ON flow_events TO discovery_{role}",
                      f"{ISOLATION}::test_history_cannot_be_altered")
        for role in ("operator", "execution", "api") for right in ("UPDATE", "DELETE", "TRUNCATE")
    ),
    *(
        DatabaseGuard(f"{function} is for the user API only", "database",
                      f"GRANT EXECUTE ON FUNCTION {function} TO PUBLIC",
                      f"{KEYS}::test_what_looks_over_all_tenants_is_for_the_user_api_only")
        for function in (
            "locate_flow(uuid)", "known_namespaces()", "offer_tenant(uuid, text, uuid)"
        )
    ),
    DatabaseGuard("the user API only reads records", "records",
                  "GRANT DELETE ON records TO discovery_api",
                  f"{ISOLATION}::test_the_api_role_only_reads[records]"),
)  # fmt: skip

CONTROL = (
    *CREWS, *PODS, *LEADERS, *STEPS, *APPROVALS, *KUBERNETES, *PEOPLE, *_keys(), *READS, *DATABASE,
    *_tenants(),
)  # fmt: skip
