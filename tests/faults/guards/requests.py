"""The guards of what a request may cost, and what a browser is told."""

from __future__ import annotations

from .model import API, CORE, OPERATOR, DatabaseGuard, Guard, unless

LIMITS = "tests/api/test_limits.py"
QUOTA = "tests/api/test_quota.py"
BROWSERS = "tests/api/test_browsers.py"
HOSTILE = "tests/api/test_hostile_requests.py"
GUARDS = "tests/api/test_guards.py"
LIVE = "tests/api/test_live.py"
OIDC = "tests/api/test_oidc.py"
STRANGERS = "tests/api/test_strangers.py"
ADMISSION = "tests/unit/test_admission_limits.py"

CALLERS = (
    Guard("who calls is asked before a body", f"{API}/callers.py",
          "= await self._counted(connection)", '= ""',
          f"{GUARDS}::test_s02_a_stranger_s_form_is_not_even_read"),
    Guard("who calls is asked before a body of the execution API", f"{API}/callers.py",
          "= await self._counted(connection)", '= ""',
          f"{STRANGERS}::test_the_execution_api_asks_who_calls_before_it_takes_a_byte"),
    Guard("who sends a body has a token", f"{API}/callers.py",
          "or not _has_body(connection)", "or not self._token_of(connection)",
          f"{LIMITS}::test_s02_a_body_without_a_token_is_refused_before_it_is_read"),
    Guard("a token is asked about anew before each body", f"{API}/callers.py",
          "return name if unasked else await self._identified(connection, key, address)",
          "return name",
          f"{LIMITS}::test_s02_a_token_that_was_accepted_is_asked_about_before_each_body"),
    Guard("requests of a caller are counted", f"{API}/callers.py",
          """        found = await self._identified(connection, key, address)
        self._requests.count(f"caller {found}")""",
          "        found = await self._identified(connection, key, address)",
          f"{LIMITS}::test_s07_a_caller_is_counted_whatever_token_it_comes_with"),
    Guard("requests of a known caller are counted", f"{API}/callers.py",
          """            self._requests.count(f"caller {name}")
            return""", "            return",
          f"{LIMITS}::test_s07_sockets_are_counted_too"),
    Guard("strangers are counted by address", f"{API}/callers.py",
          """            self._requests.count(f"address {address}")
            return "" if unasked""", """            return "" if unasked""",
          f"{LIMITS}::test_s07_strangers_are_counted_by_address"),
    Guard("tokens that are not asked about are counted by address", f"{API}/callers.py",
          """            self._requests.count(f"address {address}")
            return ""
""", """            return ""
""",
          f"{LIMITS}::test_s07_where_nobody_need_be_known_an_unknown_token_counts_for_its_address"),
    Guard("failed tokens are counted by address", f"{API}/limits.py",
          *unless("len(failed) >= self._most"),
          f"{LIMITS}::test_s07_rotating_tokens_are_refused_before_kubernetes_is_asked"),
    Guard("a token that has failed is counted again", f"{API}/callers.py",
          *unless("self._failures.count(address, key)"),
          f"{LIMITS}::test_s07_a_failed_token_counts_once_and_its_requests_for_the_address"),
    Guard("a token that is accepted has not failed", f"{API}/callers.py",
          """        self._failures.forgive(address, key)
        self._known[key]""", "        self._known[key]",
          f"{LIMITS}::test_s07_nobody_is_locked_out_by_successes_or_an_api_server_that_is_away"),
    Guard("tokens cannot be tried out at the sign-in", f"{API}/web/account.py",
          "    failures.count(*attempt)\n", "",
          f"{GUARDS}::test_s19_tokens_cannot_be_tried_out_by_the_hundred"),
    Guard("callers are forgotten", f"{API}/limits.py",
          *unless("len(self._buckets) > _MOST_CALLERS"),
          f"{LIMITS}::test_s07_callers_are_forgotten_and_cost_no_memory_without_end"),
    Guard("the execution API counts requests", f"{API}/execution/app.py",
          "Requests(settings.requests_per_second, settings.request_burst)", "Requests(0, 1)",
          f"{LIMITS}::test_s07_the_execution_api_has_limits_too"),
    Guard("a probe's query is remembered", f"{API}/server.py",
          "monitor.recent()", "monitor.problem()",
          f"{LIMITS}::test_s19_a_probe_costs_at_most_a_query_a_second"),
)  # fmt: skip

BODIES = (
    Guard("fields of a form are so many bytes", f"{API}/multipart.py",
          *unless("self._fields_bytes > FIELDS_BYTES"),
          f"{GUARDS}::test_s02_a_form_has_so_many_fields_and_no_more"),
    Guard("fields of a form are so many", f"{API}/multipart.py",
          *unless("found > MOST_FIELDS"),
          f"{GUARDS}::test_s02_a_form_has_so_many_fields_and_no_more"),
    Guard("headers of a part are so many", f"{API}/multipart.py",
          "            max_header_count=MOST_HEADERS,\n", "            max_header_count=10**9,\n",
          f"{GUARDS}::test_s02_a_part_has_so_many_headers_and_no_more"),
    Guard("a sign-in is short", f"{API}/server.py",
          "Bounds(SMALL_BYTES, settings.body_seconds)", "Bounds(None, settings.body_seconds)",
          f"{HOSTILE}::test_s02_no_request_costs_the_user_api_memory"),
    Guard("a body is counted as it comes", f"{API}/middleware.py",
          *unless("limit is not None and received > limit"),
          f"{HOSTILE}::test_s02_no_request_costs_the_user_api_memory"),
    Guard("a body that drips is cut off", f"{API}/middleware.py",
          "min(ends, began + self._stall, too_slow)", "min(ends, began + 5.0)",
          f"{LIMITS}::test_s02_a_body_that_drips_is_not_waited_for_on_any_route"),
    Guard("only waiting for a body counts", f"{API}/middleware.py",
          "waited += clock() - began", "waited = clock() - ends + bounds.seconds",
          f"{LIMITS}::test_s02_what_the_server_does_in_between_counts_for_nobody"),
    Guard("the memory of a burst is given back", f"{API}/__main__.py",
          "    give_memory_back()\n", "",
          f"{HOSTILE}::test_s07_the_memory_of_a_burst_comes_back"),
    Guard("nobody says from where it comes", f"{API}/server.py",
          """        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
""", "",
          f"{STRANGERS}::test_s07_nobody_says_from_where_it_comes"),
    Guard("connections are so many", f"{API}/connections.py",
          *unless("len(self.connections) > self.most"),
          f"{STRANGERS}::test_s02_connections_are_so_many_and_no_more"),
    Guard("what is shown is so large", f"{API}/routes/files.py",
          *unless("found.size > MOST_BYTES"),
          f"{BROWSERS}::test_s07_what_is_shown_is_not_read_into_memory_whatever_its_size"),
)  # fmt: skip

TENANTS = (
    Guard("a namespace's bytes, at each piece", f"{CORE}/artefacts/streams.py",
          "await require_room(session, scope.tenant_id, tenant_bytes, len(chunk.data))", "pass",
          f"{QUOTA}::test_s04_a_namespace_stores_so_many_bytes_and_no_more"),
    Guard("a namespace's bytes, at the beginning", f"{CORE}/artefacts/uploads.py",
          "        await require_room(session, tenant_id, tenant_bytes, declared)\n", "",
          f"{QUOTA}::test_s04_a_file_that_is_said_to_be_too_large_is_refused_at_once"),
    Guard("a namespace's bytes, at the beginning of a crew's file", f"{CORE}/execution.py",
          "            await require_room(session, tenant_id, tenant_bytes, declared)\n", "",
          f"{QUOTA}::test_s04_a_crew_s_file_that_is_said_to_be_too_large_is_refused_at_once"),
    Guard("a namespace's bytes of what is still being stored", f"{CORE}/artefacts/streams.py",
          ".values(size=size)", ".values(size=0)",
          f"{QUOTA}::test_s04_files_that_come_side_by_side_see_each_other"),
    Guard("uploads of a namespace at a time", f"{API}/routes/create.py",
          "    with uploads.one(str(tenant_id)):", "    if uploads:",
          f"{QUOTA}::test_s04_so_many_uploads_of_a_namespace_at_a_time"),
    Guard("files of a pod at a time", f"{API}/limits.py",
          *unless("self._held[holder] >= self._most"),
          f"{QUOTA}::test_s04_a_pod_stores_so_many_files_at_a_time"),
    Guard("streams of a person at a time", f"{API}/routes/live.py",
          "    streams.require(person)\n", "",
          f"{LIVE}::test_s07_a_person_has_so_many_streams"),
    Guard("open flows of a namespace", f"{OPERATOR}/observe.py",
          "if begins and admitted >= most else []", "if False else []",
          "tests/store/test_operator_flow.py::test_s04_a_namespace_has_so_many_open_flows"),
    Guard("the longest phase", "charts/discoveryflow/templates/admission.yaml",
          "duration(object.spec.phaseTimeout) <= duration('{{ .Values.crews.maxPhaseTimeout }}')",
          "true", f"{ADMISSION}::test_s04_a_phase_may_take_so_long"),
)  # fmt: skip

_HEADERS = (
    '"Content-Security-Policy": CONTENT_POLICY,', '"X-Content-Type-Options": "nosniff",',
    '"X-Frame-Options": "DENY",', '"Referrer-Policy": "same-origin",',
    '"Cross-Origin-Opener-Policy": "same-origin",',
    '"Cross-Origin-Resource-Policy": "same-origin",',
    '"Permissions-Policy": "camera=(), geolocation=(), microphone=()",',
)  # fmt: skip

BROWSER = (
    *(
        Guard(f"header {line.split(chr(34))[1]}", f"{API}/headers.py", f"    {line}\n", "",
              f"{BROWSERS}::test_every_answer_has_the_headers")
        for line in _HEADERS
    ),
    Guard("no script of elsewhere or inline", f"{API}/headers.py", "script-src 'self'",
          "script-src 'self' 'unsafe-inline'",
          f"{BROWSERS}::test_the_policy_lets_nothing_in_from_elsewhere_and_nothing_inline"),
    Guard("state of a sign-in by OpenID Connect", f"{API}/web/oidc.py",
          """if "state" not in kept or request.query_params.get("state") != kept["state"]:""",
          """if "state" not in kept:""",
          f"{OIDC}::test_another_sign_in_s_answer_is_not_taken"),
    Guard("nonce of a sign-in by OpenID Connect", f"{API}/web/oidc.py",
          *unless("""claims_of(token).get("nonce") != kept["nonce"]"""),
          f"{OIDC}::test_a_token_without_our_nonce_begins_no_session"),
    Guard("PKCE: the challenge", f"{API}/web/oidc.py",
          "        code_challenge_method=\"S256\",\n", "",
          f"{BROWSERS}::test_the_issuer_is_given_a_challenge_whose_answer_only_we_know"),
    Guard("PKCE: the verifier", f"{API}/web/oidc.py",
          ", code_verifier=verifier\n", "\n",
          f"{OIDC}::test_the_code_is_exchanged_with_the_verifier_of_the_challenge"),
    Guard("signing in leads to no other site", f"{API}/web/account.py",
          "RedirectResponse(safe_target(target), status_code=303)",
          "RedirectResponse(target, status_code=303)",
          f"{BROWSERS}::test_signing_in_leads_to_no_other_site"),
    Guard("a session's own end", f"{API}/sessions.py",
          "if now >= session.expires or now >= session.seen + self._idle:",
          "if now >= session.seen + self._idle:", f"{BROWSERS}::test_a_session_ends"),
    Guard("a session that nobody uses", f"{API}/sessions.py",
          "if now >= session.expires or now >= session.seen + self._idle:",
          "if now >= session.expires:", f"{BROWSERS}::test_a_session_ends"),
    Guard("a session that was ended", f"{API}/sessions.py",
          "return None if key_of(session) in self._ended else session", "return session",
          f"{BROWSERS}::test_s19_a_session_that_was_ended_is_of_no_use_to_whoever_kept_it"),
    Guard("a session that was ended elsewhere", f"{API}/web/account.py",
          "        await store.end_session(key_of(session), session.expires)\n", "",
          f"{BROWSERS}::test_s19_a_session_that_was_ended_is_of_no_use_to_whoever_kept_it"),
    Guard("no socket for another site's page", f"{API}/sessions.py",
          *unless("foreign or site not in (\"same-origin\", \"none\")"),
          f"{LIVE}::test_another_site_s_page_opens_no_socket_with_a_session"),
    Guard("cells are text", f"{API}/web/templating.py", "autoescape=True", "autoescape=False",
          f"{BROWSERS}::test_cells_are_text_wherever_they_are_shown"),
    Guard("a crew's file has a type of a closed list", f"{API}/routes/files.py",
          "found.media_type if known else UNKNOWN", "found.media_type",
          f"{BROWSERS}::test_s18_a_crew_s_file_is_never_a_page_of_ours"),
    Guard("a crew's file is sandboxed", f"{API}/routes/files.py",
          "            \"Content-Security-Policy\": \"default-src 'none'; sandbox\",\n", "",
          f"{BROWSERS}::test_s18_a_crew_s_file_is_never_a_page_of_ours"),
)  # fmt: skip

REQUESTS: tuple[Guard | DatabaseGuard, ...] = (*CALLERS, *BODIES, *TENANTS, *BROWSER)
