"""The guards of what comes from files, models and receivers."""

from __future__ import annotations

from .model import CORE, CREW, OPERATOR, DatabaseGuard, Guard, unless

REFERENCES = "tests/store/test_artefact_references.py"
MOUNTED = "tests/crews/test_mounted.py"
ADDRESSES = (
    "tests/unit/operator/test_addresses.py::test_s13_what_only_looks_like_an_allowed_one_is_refused"
)
WEBHOOKS = "tests/store/test_bad_webhooks.py"
PRINTED = "tests/unit/test_cli_output.py"
STEPS = "tests/crews/test_patterns.py"
APART = "tests/crews/test_reading_apart.py"
MEASURED = "tests/crews/test_workbook_memory.py"
HOME = "tests/crews/test_llm_stays_home.py"
SECRETS = "tests/crews/test_credentials.py"
OBJECTS = "tests/unit/operator/test_any_object.py"
WIRE = "core/discovery_core/wire"

ARTEFACTS = (
    Guard("a result refers to its own flow's artefacts", f"{CORE}/moves/held.py",
          "of_flow(flow_id, digest).with_for_update(",
          "select(Artefact).where(Artefact.digest == digest).with_for_update(",
          f"{REFERENCES}::test_s17_a_result_names_no_artefact_of_another_flow"),
    Guard("only its own flow's artefacts are pinned", f"{CORE}/execution.py",
          "                        await require_artefact(session, flow.flow_id, digest)\n", "",
          f"{REFERENCES}::test_s17_no_artefact_of_another_flow_is_pinned"),
    Guard("the form of artefacts' names", f"{WIRE}/model.py",
          "^[A-Za-z][A-Za-z0-9_-]{0,63}$", "",
          f"{REFERENCES}::test_s17_names_of_artefacts_are_of_a_closed_form[upload/x]"),
    Guard("a result has no name of an input", f"{WIRE}/model.py", "if name in PINNED:", "if False:",
          f"{REFERENCES}::test_s17_names_of_artefacts_are_of_a_closed_form[source]"),
)  # fmt: skip

MOUNTS = (
    Guard("a mounted file is judged as it is open", f"{CREW}/mounted.py",
          "if not where(descriptor).is_relative_to(", "if not path.resolve().is_relative_to(",
          f"{MOUNTED}::test_s21_a_link_that_was_there_for_a_moment_only_is_refused"),
    Guard("a mounted file lies in its volume", f"{CREW}/mounted.py",
          *unless("not where(descriptor).is_relative_to(root.resolve())"),
          f"{MOUNTED}::test_s21_a_folder_of_the_way_that_leads_out_is_refused"),
    Guard("what was opened is what is read", f"{CREW}/mounted.py",
          'with os.fdopen(descriptor, "rb") as stream:', 'with path.open("rb") as stream:',
          f"{MOUNTED}::test_s21_a_link_that_takes_the_files_place_after_the_look_is_not_followed"),
    Guard("no pipe is read", f"{CREW}/mounted.py", *unless("not stat.S_ISREG(kind)"),
          f"{MOUNTED}::test_s21_a_pipe_is_refused_at_once"),
    Guard("a mounted file's size as it is copied", f"{CREW}/mounted.py",
          "min(_PIECE, limit + 1 - copied)", "_PIECE",
          f"{MOUNTED}::test_s21_a_file_that_grows_while_it_is_copied_ends_at_the_limit"),
)  # fmt: skip

RECEIVERS = (
    Guard("an address has no signs that are read differently", f"{OPERATOR}/addresses.py",
          "if _SIGNS.search(text) or ", "if ",
          f"{ADDRESSES}[https://root.example/a#b]"),
    Guard("an address has no encoded dots and slashes", f"{OPERATOR}/addresses.py",
          " or _ENCODED.search(place)", "",
          f"{ADDRESSES}[https://hooks.example.org/team-a/..%2fteam-b]"),
    Guard("an address names no person", f"{OPERATOR}/addresses.py",
          'if "@" in authority or any(', "if any(",
          f"{ADDRESSES}[https://user:pw@hooks.example.org/team-a]"),
    Guard("an address has no dots with parameters", f"{OPERATOR}/addresses.py",
          ' or any(_leads_out(segment) for segment in path.split("/"))', "",
          f"{ADDRESSES}[https://hooks.example.org/team-a/..;x=1/team-b]"),
    Guard("scheme, host and port of a webhook", f"{OPERATOR}/addresses.py",
          " or _server(endpoint) != _server(url)", "",
          f"{ADDRESSES}[https://hooks.example.org:8443/team-a]"),
    Guard("paths of webhooks by whole segments", f"{OPERATOR}/addresses.py",
          'url.raw_path.startswith(f"{base}/")', "url.raw_path.startswith(base)",
          f"{ADDRESSES}[https://hooks.example.org/team-ab]"),
    Guard("a webhook's address is an allowed one", f"{OPERATOR}/webhook.py",
          "if url is None or not is_allowed(url, self._endpoints):", "if url is None:",
          f"{WEBHOOKS}::test_s13_an_address_that_is_not_allowed_is_told_nothing"),
    Guard("a webhook is of the very namespace", f"{OPERATOR}/webhook.py",
          "return secret if found == message.tenant_id else None", "return secret",
          f"{WEBHOOKS}::test_s14_a_namespace_made_anew_is_not_told_of_the_old_one"),
    Guard("a webhook's redirect is not followed", f"{OPERATOR}/webhook.py",
          "allow_redirects=False, ", "",
          f"{WEBHOOKS}::test_s05_a_receiver_leads_nowhere"),
    Guard("webhooks go through no proxy of the environment", f"{OPERATOR}/webhook.py",
          "aiohttp.ClientSession(timeout=self._timeout)",
          "aiohttp.ClientSession(timeout=self._timeout, trust_env=True)",
          f"{WEBHOOKS}::test_s05_a_receiver_leads_nowhere"),
    Guard("what a receiver says is not told on", f"{OPERATOR}/webhook.py",
          "UndeliverableError(_network(error))", "UndeliverableError(str(error))",
          f"{WEBHOOKS}::test_s05_what_a_receiver_has_sent_is_not_told_on"),
)  # fmt: skip

CLI = "cli/discovery_cli"
TERMINALS = (
    Guard("lines on a terminal", f"{CLI}/output.py",
          'sys.stdout.write(plain(text) + "\\n")', 'sys.stdout.write(text + "\\n")',
          f"{PRINTED}::test_s15_what_is_printed_is_seen_as_it_is[mappings servers -o name-0]"),
    Guard("errors on a terminal", f"{CLI}/output.py",
          'sys.stderr.write(plain(text) + "\\n")', 'sys.stderr.write(text + "\\n")',
          f"{PRINTED}::test_s15_what_is_printed_is_seen_as_it_is[export servers --format x-3]"),
    Guard("JSON on a terminal", f"{CLI}/output.py",
          'if text.replace("\\n", "").isprintable():', "if True:",
          f"{PRINTED}::test_s15_programs_get_the_same_values_without_a_sign_that_is_obeyed[json]"),
    Guard("YAML on a terminal", f"{CLI}/output.py",
          'if all(_is_plain(sign) or sign == "\\n" for sign in text):', "if True:",
          f"{PRINTED}::test_s15_programs_get_the_same_values_without_a_sign_that_is_obeyed[yaml]"),
    Guard("a file on a terminal", f"{CLI}/output.py", *unless("sys.stdout.isatty()"),
          f"{PRINTED}::test_s15_a_file_on_a_terminal_is_plain_text"),
    Guard("a sample in the editor ends no remark", f"{CLI}/edit.py",
          'plain(", ".join(_one_line(text)[:30] for text in mapping["samples"][:3]))',
          '", ".join(text[:30] for text in mapping["samples"][:3])',
          f"{PRINTED}::test_s15_what_an_editor_shows_says_nothing_by_itself"),
)  # fmt: skip

TIME = (
    Guard("a pattern over cells is linear", f"{CREW}/readers/layout.py",
          r"[a-z][a-z-]*\d{2,}[a-z]*|", r"[a-z]+[a-z-]*\d{2,}[a-z]*|",
          f"{STEPS}::test_s10_twice_the_text_takes_twice_the_steps"
          "[discovery_crews.readers.layout._VALUE]"),
    Guard("a remark is gone through once", f"{CREW}/readers/json_faults.py",
          r"(?:\*/|\Z))*+", r"(?:\*/|\Z))*",
          f"{STEPS}::test_s10_remarks_before_a_document_are_gone_through_once"),
    Guard("cells are cut before they are matched", f"{CREW}/readers/layout.py",
          "return cell.strip()[:_TELLING]", "return cell.strip()",
          f"{STEPS}::test_s10_only_the_beginning_of_a_cell_tells_what_it_is"),
    Guard("people's patterns run in RE2", f"{CREW}/tables/patterns.py",
          "re2.compile(pattern, options)", '__import__("re").compile(pattern)',
          f"{STEPS}::test_s10_what_people_cannot_write_is_named"),
    Guard("people's patterns take bounded memory", f"{CREW}/target_schema.py",
          "Field(default=None, max_length=LONGEST_PATTERN)", "None",
          f"{STEPS}::test_s10_what_people_cannot_write_is_named"),
)  # fmt: skip

ROOM = (
    Guard("the process that reads has a limit of memory", f"{CREW}/readers/apart.py",
          "    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))\n", "",
          f"{APART}::test_s09_the_process_has_the_limit_before_it_reads"),
    Guard("an end of the process that reads is a refusal", f"{CREW}/readers/apart.py",
          " or (process.exitcode or 0) < 0", "",
          f"{APART}::test_s09_too_much_memory_is_a_refusal_that_is_not_tried_again[aborts]"),
    Guard("too little memory to read is a refusal", f"{CREW}/readers/apart.py",
          "if answer is MemoryError or ", "if ",
          f"{APART}::test_s09_too_much_memory_is_a_refusal_that_is_not_tried_again[takes_all]"),
    Guard("the pod has room beside the process that reads", f"{CREW}/readers/apart.py",
          "return min(wanted, int(pod * _MOST_OF_POD))", "return wanted",
          f"{APART}::test_s09_the_pod_has_room_for_the_rest"),
    Guard("the import reads in a process of its own", f"{CREW}/phases/data_import/phase.py",
          "table = read_apart(request,", "from discovery_crews.readers import read_source\n"
          "    table = read_source(request,",
          f"{APART}::test_s09_the_import_reads_apart"),
    Guard("a far cell of a workbook is measured", f"{CREW}/readers/measure.py",
          *unless("self.last_row * self.last_column > limit or self.cells > limit"),
          f"{MEASURED}::test_a_far_cell_is_refused_however_it_is_written"),
    Guard("cells of a workbook by any prefix", f"{CREW}/readers/measure.py",
          """    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        if ":" in name:
            name = name.rpartition(":")[2]""",
          "    def _start(self, name: str, attributes: Mapping[str, str]) -> None:",
          f"{MEASURED}::test_a_far_cell_is_refused_however_it_is_written"),
    Guard("a cell's place is one", f"{CREW}/readers/measure.py", *unless("not found"),
          f"{MEASURED}::test_places_that_are_none_are_refused"),
    Guard("a workbook has no DOCTYPE", f"{CREW}/readers/measure.py",
          "        self.parser.StartDoctypeDeclHandler = _no_doctype\n", "",
          f"{MEASURED}::test_places_that_are_none_are_refused"),
)  # fmt: skip

MODELS = (
    Guard("a model's redirect is not followed", f"{CREW}/llm/provider.py",
          '        "interceptor": Direct(),\n', "",
          f"{HOME}::test_s05_a_redirect_is_not_followed[307]"),
    Guard("the environment's proxies are not asked for a model", f"{CREW}/llm/provider.py",
          '        "interceptor": Direct(),\n', "",
          f"{HOME}::test_s05_no_proxy_of_the_environment_is_asked"),
    Guard("what a model's endpoint says is not told on", f"{CREW}/llm/errors.py",
          'return f"status {status}" + (f", {code}" if code in _KNOWN_CODES else "")',
          'return f"status {status}: {cause}"',
          f"{HOME}::test_s05_what_stands_at_the_endpoint_is_not_told_on[json-400]"),
    Guard("the provider's address is not the environment's", f"{CREW}/llm/provider.py",
          'options["client_params"] = {"base_url": OPENAI_URL}', "pass",
          f"{HOME}::test_the_provider_s_address_is_not_the_environment_s"),
)  # fmt: skip

WITHHELD = (
    Guard("the source is for crews only", f"{CORE}/reads/contents.py",
          "            FlowArtefact.name != _RAW,\n", "",
          "tests/api/test_results.py::test_s22_the_source_is_for_crews_only"),
    Guard("columns of credentials are left out", f"{CREW}/readers/credentials.py",
          "named = [name for name in table.columns if is_credential_header(name)]",
          "named: list[str] = []", f"{SECRETS}::test_csv"),
    Guard("secrets among other values are removed", f"{CREW}/readers/credentials.py",
          "        if name in cleaned\n        else identifier(name)",
          "        if False\n        else identifier(name)",
          f"{SECRETS}::test_s22_a_secret_among_other_values_is_left_out[csv-sql]"),
    Guard("addresses with a password", f"{CREW}/readers/credentials.py",
          r"://[^\s/:@]*:[^\s/@]+@)", "://nothing)",
          f"{SECRETS}::test_s22_a_secret_among_other_values_is_left_out[xlsx-address]"),
    Guard("secrets in rows that are refused", f"{CREW}/readers/table.py",
          *unless("self._keys is not None"),
          f"{SECRETS}::test_s22_a_secret_among_other_values_is_left_out[json-jdbc]"),
)  # fmt: skip

LOOPS = (
    Guard("values of a Secret that are no text", f"{OPERATOR}/kube.py",
          "suppress(ValueError, TypeError):", "suppress(TypeError):",
          f"{OBJECTS}::test_s23_a_secret_is_texts_whatever_it_holds"),
    Guard("notifications that name no flow", f"{CORE}/listener.py",
          'with set_aside("listener", payload=notification.payload[:100], '
          "backend_pid=notification.pid):", "if True:",
          f"{OBJECTS}::test_s23_a_notification_names_a_flow_or_nothing"),
    Guard("a row of the outbox that cannot be told", f"{CORE}/ledger/outbox.py",
          'with set_aside("webhooks", known=(SQLAlchemyError,), flow=str(waiting.flow_id)):',
          "if True:",
          f"{WEBHOOKS}::test_s23_a_row_of_which_nothing_can_be_told_keeps_none_waiting"),
    Guard("one message that cannot be sent", f"{OPERATOR}/webhook.py",
          """        with set_aside("webhooks", **about):
            try:
                sent""", """        if True:
            try:
                sent""",
          f"{WEBHOOKS}::test_s23_one_namespaces_secret_is_no_reason_not_to_tell_another[a-bug]"),
    Guard("one object of a list", f"{OPERATOR}/cache.py",
          'with set_aside("sweep", kind=str(kind)):', "if True:",
          f"{OBJECTS}::test_s23_one_object_of_a_list_hides_no_other"),
    Guard("one tenant that cannot be looked for", f"{OPERATOR}/retention.py",
          """            with set_aside("retention", known=FAULTS, tenant=str(tenant.tenant_id)):
                await self._look_for(""", """            if True:
                await self._look_for(""",
          "tests/unit/operator/test_loops.py"
          "::test_s23_one_tenant_that_cannot_be_looked_for_hides_no_other"),
    Guard("loops go on", "core/discovery_core/loops.py",
          "        with set_aside(loop):\n            await run()", "        await run()",
          "tests/unit/operator/test_loops.py::test_a_loop_goes_on_after_whatever_ends_it"),
)  # fmt: skip

FILES: tuple[Guard | DatabaseGuard, ...] = (
    *ARTEFACTS,
    *MOUNTS,
    *RECEIVERS,
    *TERMINALS,
    *TIME,
    *ROOM,
    *MODELS,
    *WITHHELD,
    *LOOPS,
)
