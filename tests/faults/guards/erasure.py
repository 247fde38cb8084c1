"""The guards of what is forgotten and what stays, of who decides, and of what is kept in memory."""

from __future__ import annotations

from .model import API, CORE, OPERATOR, DatabaseGuard, Guard

ADMISSION = "charts/discoveryflow/templates/admission.yaml"
RULES = "tests/unit/test_admission_rules.py"
ACCOUNTS = "tests/api/test_accounts.py"
ERASED = "tests/store/test_erasure.py"
MANY = "tests/unit/operator/test_many_objects.py"
IN_BATCHES = f"{ERASED}::test_s06_no_transaction_removes_more_than_a_batch"
LISTED = f"{MANY}::test_s08_lists_come_in_pages_of_which_only_what_is_looked_at_is_kept"
WATCHED = f"{MANY}::test_s08_what_watches_deliver_comes_in_pages_and_is_kept_light_too"


def _without(function: str, old: str, new: str) -> str:
    """SQL that replaces a piece of a function's text."""
    definition = f"pg_get_functiondef('{function}'::regprocedure)"
    return f"DO $d$ BEGIN EXECUTE replace({definition}, '{old}', '{new}'); END $d$"


DECIDERS = (
    Guard("no ServiceAccount decides in Kubernetes", ADMISSION,
          "{{ .Values.approval.allowServiceAccounts }} || !variables.account",
          "true || !variables.account",
          f"{RULES}::test_s11_a_serviceaccount_decides_nothing_unless_the_installation_lets_it"),
    Guard("no ServiceAccount decides by the user API", f"{API}/caller.py",
          "if self._accounts_decide or verb not in _DECISIONS:", "if True:",
          f"{ACCOUNTS}::test_s11_a_serviceaccount_decides_nothing_unless_the_installation_lets_it"),
    Guard("an unread answer is taken back by who may answer", ADMISSION,
          "!variables.withdrawing || (variables.listed && variables.separate &&",
          "true || (variables.listed && variables.separate &&",
          f"{RULES}::test_s16_only_who_may_answer_takes_an_unread_answer_back"),
    Guard("an unread answer is not replaced either", ADMISSION,
          "(!has(object.spec.approval) || object.spec.approval != oldObject.spec.approval)",
          "!has(object.spec.approval)",
          f"{RULES}::test_s16_an_answer_is_unread_while_its_request_is_the_open_one"),
    Guard("how long data stays needs the verb purge", ADMISSION,
          "\"!variables.retaining || authorizer.requestResource.check('purge').allowed()\"",
          '"true"', f"{RULES}::test_s06_only_who_may_purge_says_how_long_data_stays"),
)  # fmt: skip

FORGOTTEN = (
    Guard("a deleted flow's rows do not count", f"{CORE}/inventory/assets.py",
          "          AND (m.deleted_at IS NULL OR m.retired_at IS NOT NULL)\n", "",
          f"{ERASED}::test_s06_deleting_a_flow_takes_its_rows_out_of_the_inventory"),
    Guard("a flow that went by age counts on", f"{CORE}/inventory/assets.py",
          " OR m.retired_at IS NOT NULL", "",
          f"{ERASED}::test_s06_a_flow_that_goes_by_age_stays_in_the_inventory"),
    Guard("who deletes a resource is remembered", f"{OPERATOR}/retention.py",
          "            await self._store.mark_retired(flow.flow_id)\n", "",
          f"{ERASED}::test_s06_a_flow_that_goes_by_age_stays_in_the_inventory"),
    Guard("a deletion causes the inventory to be derived anew", f"{OPERATOR}/retention.py",
          "                    await self._rebuild(inventory, counted)\n",
          "                    pass\n",
          f"{ERASED}::test_s06_deleting_a_flow_takes_its_rows_out_of_the_inventory"),
    Guard("a purge that has begun ends all rounds", f"{CORE}/schema/flows.py",
          "return self.purging or self.purged_at is not None", "return self.purged_at is not None",
          f"{ERASED}::test_s06_a_flow_whose_purge_has_begun_begins_no_new_round"),
    Guard("an artefact is hidden before its pieces go", f"{CORE}/artefacts/blobs.py",
          ".values(digest=None, sealed_at=None)", ".values(sealed_at=Artefact.sealed_at)",
          f"{ERASED}::test_s06_an_artefact_of_which_some_is_gone_cannot_be_found"),
    DatabaseGuard("no flow goes within an hour of its end", "retire_flow",
                  _without("retire_flow(uuid, uuid, bigint, float8)", "secs => 3600", "secs => 0"),
                  f"{ERASED}::test_s06_no_time_is_over_before_an_export_was_possible"),
)  # fmt: skip

BATCHES = (
    DatabaseGuard("purges go in batches", "remove_rows",
                  _without("remove_rows(purges, uuid, text[], bigint)", "LIMIT $4", ""),
                  f"{IN_BATCHES}[namespace]"),
    Guard("a deleted flow's rows go in batches", f"{CORE}/inventory/records.py",
          "run_id = ANY (CAST(:runs AS uuid[])) LIMIT :most))",
          "run_id = ANY (CAST(:runs AS uuid[])) AND :most > 0))", f"{IN_BATCHES}[deletion]"),
    Guard("a deleted flow's assets go in batches", f"{CORE}/inventory/assets.py",
          "ORDER BY identity LIMIT :most", "AND :most > 0", f"{IN_BATCHES}[deletion]"),
    Guard("pieces of artefacts go in batches", f"{CORE}/artefacts/blobs.py",
          ".limit(_PIECES_AT_ONCE)", "", f"{IN_BATCHES}[garbage]"),
)  # fmt: skip

MEMORY = (
    Guard("the operator's lists come in pages", f"{OPERATOR}/kube.py",
          'query = [("limit", str(PAGE))] + ', "query = ", LISTED),
    Guard("of a page only what is looked at is kept", f"{OPERATOR}/kube.py",
          '[slim(kind, raw) for raw in page.get("items") or []]', 'page.get("items") or []',
          LISTED),
    Guard("kopf's lists come in pages", f"{OPERATOR}/main.py",
          "settings.watching.chunk_size = PAGE", "settings.watching.chunk_size = None", WATCHED),
    Guard("of an event only what is looked at is kept", f"{OPERATOR}/intake.py",
          'slim_in_place(kind, event["object"])', 'event["object"]', WATCHED),
    Guard("of our own writes only what is looked at is kept", f"{OPERATOR}/cache.py",
          "self._store(kind, flow, uid, slim(kind, raw))", "self._store(kind, flow, uid, raw)",
          f"{MANY}::test_s08_what_the_api_server_answers_is_kept_light"),
)  # fmt: skip

ERASURE: tuple[Guard | DatabaseGuard, ...] = (*DECIDERS, *FORGOTTEN, *BATCHES, *MEMORY)
