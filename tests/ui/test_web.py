"""The pages, as people use them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
from discovery_core.wire.results import InventoryRecord
from playwright.sync_api import Browser, Page, expect

from tests.store.flows import Flow
from tests.ui.browser import accessibility_problems, confirm, open_tab, ready
from tests.ui.desk import Desk, sign_in


def test_signing_in_and_out(window: Page, desk: Desk) -> None:
    window.goto(f"{desk.address}/flows?state=Failed")
    expect(window).to_have_url(re.compile(r"/sign-in\?next=/flows"))
    window.fill("#token", "wrong")
    window.click("button:has-text('Sign in')")
    expect(window.get_by_role("alert")).to_contain_text("does not accept the token")
    window.fill("#token", "  token-\nann ")
    window.click("button:has-text('Sign in')")
    window.wait_for_url(f"{desk.address}/flows?state=Failed")
    expect(window.locator(".who")).to_contain_text("ann")
    (cookie,) = [c for c in window.context.cookies() if c["name"].startswith("discovery")]
    assert cookie["httpOnly"] is True
    assert cookie["sameSite"] == "Strict"
    assert "token-ann" not in cookie["value"]
    window.click("text=Sign out")
    expect(window).to_have_url(re.compile("/sign-in"))
    window.goto(desk.address)
    expect(window).to_have_url(re.compile("/sign-in"))


def test_a_flow_is_reviewed_edited_and_approved(page: Page, desk: Desk) -> None:
    flow = desk.flow()
    page.goto(desk.address)
    page.click("text=Review servers")
    page.wait_for_url(f"**/flows/{flow.flow_id}/review")
    ready(page)
    rows = page.locator("#mappings tbody tr")
    expect(rows).to_have_count(3)
    # the least certain comes first
    expect(rows.first).to_have_attribute("data-column", "Notes")
    notes = page.get_by_label("Target of Notes")
    notes.fill("colour")
    expect(notes).to_have_attribute("aria-invalid", "true")
    notes.fill("owner")
    expect(page.locator("#summary")).to_have_text("1 changed by you. ")
    page.select_option("#show", "changed")
    expect(page.locator("#mappings tbody tr:visible")).to_have_count(1)
    page.select_option("#show", "all")
    page.fill("#reason", "owner it is")
    page.click("button[value=approve]")
    confirm(page, "of servers", "3 of 3 columns are mapped, 0 left out, 1 edited by you")
    page.wait_for_url(f"**/flows/{flow.flow_id}")
    now = desk.do(flow.load())
    assert (str(now.state), str(now.phase)) == ("Queued", "asset_inventory")
    open_tab(page, "History")
    expect(page.locator("main")).to_contain_text("owner it is")


def test_leaving_with_changes_is_asked_about(page: Page, desk: Desk) -> None:
    flow = desk.flow()
    page.goto(f"{desk.address}/flows/{flow.flow_id}/review")
    page.get_by_label("Target of Notes").fill("owner")
    page.on("dialog", lambda dialog: dialog.dismiss())
    with page.expect_event("dialog") as asked:
        page.click(".tabs >> text=History", no_wait_after=True)
    assert asked.value.type == "beforeunload"
    expect(page.get_by_label("Target of Notes")).to_have_value("owner")
    expect(page).to_have_url(re.compile("/review$"))


def test_a_refused_answer_keeps_what_was_typed(page: Page, desk: Desk) -> None:
    flow = desk.flow()
    page.goto(f"{desk.address}/flows/{flow.flow_id}/review")
    page.get_by_label("Target of Notes").fill("owner")
    page.get_by_label("Target of RAM").fill("owner")
    page.click("button[value=approve]")
    confirm(page)
    expect(page.get_by_role("alert").last).to_contain_text("a field has one primary column")
    expect(page.get_by_label("Target of RAM")).to_have_value("owner")
    assert str(desk.do(flow.load()).state) == "AwaitingApproval"


def test_somebody_elses_answer_is_said_at_once(page: Page, desk: Desk, browser: Browser) -> None:
    flow = desk.flow()
    page.goto(f"{desk.address}/flows/{flow.flow_id}/review")
    expect(page.locator("#looked")).to_have_text("0 of 3 looked at")
    desk.do(flow.answer("Reject", by="bob"))
    expect(page.locator("#changed")).to_contain_text("the flow is Rejected now")
    expect(page.locator("button[value=approve]")).to_be_disabled()


def test_the_loser_of_a_race_is_told_who_was_faster(page: Page, desk: Desk) -> None:
    flow = desk.flow()
    page.goto(f"{desk.address}/flows/{flow.flow_id}/review")
    page.route("**/events*", lambda route: route.abort())
    page.reload()
    page.get_by_label("Target of Notes").fill("owner")
    desk.do(flow.answer("Reject", by="bob"))
    page.click("button[value=approve]")
    confirm(page)
    expect(page.get_by_role("alert").last).to_contain_text("rejected by bob")


def test_asking_again(page: Page, desk: Desk) -> None:
    flow = desk.flow()
    page.goto(f"{desk.address}/flows/{flow.flow_id}/review")
    page.click("text=Ask again with a hint")
    page.fill("#hint", "Notes -> owner")
    page.click("button[value=ask-again]")
    confirm(page, "proposed anew")
    page.wait_for_url(f"**/flows/{flow.flow_id}")
    now = desk.do(flow.load())
    assert (now.round, str(now.phase)) == (2, "field_mapping")


def test_without_the_verb_nothing_is_offered(window: Page, desk: Desk) -> None:
    flow = desk.flow()
    sign_in(window, desk.address, "token-bob")
    window.goto(f"{desk.address}/flows/{flow.flow_id}/review")
    expect(window.locator("main")).to_contain_text("You may look, but not answer")
    expect(window.locator("button[value=approve]")).to_have_count(0)
    window.goto(f"{desk.address}/flows/{flow.flow_id}")
    expect(window.locator("text=Suspend")).to_have_count(0)


def test_what_may_not_be_seen_is_not_there(window: Page, desk: Desk) -> None:
    flow = desk.flow()
    sign_in(window, desk.address, "token-eve")
    answer = window.goto(f"{desk.address}/flows/{flow.flow_id}")
    assert answer is not None
    assert answer.status == 404
    expect(window.locator("main")).not_to_contain_text("servers")


def test_the_page_follows_the_flow(page: Page, desk: Desk) -> None:
    flow = desk.flow(to_gate=False)
    page.goto(f"{desk.address}/flows/{flow.flow_id}")
    expect(page.locator(".timeline li").first).to_contain_text("active")
    desk.do(flow.run_phase())
    expect(page.locator(".timeline li").first).to_contain_text("done")
    desk.do(flow.run_phase())
    desk.do(flow.run_phase())
    desk.show(flow)
    expect(page.locator("#standing")).to_contain_text("Review 3 mappings")


def test_what_is_being_typed_outlives_the_flows_moves(page: Page, desk: Desk) -> None:
    flow = desk.flow(to_gate=False)
    desk.do(flow.run_phase())
    # the page asks once more as soon as it listens
    with page.expect_response("**/live"):
        page.goto(f"{desk.address}/flows/{flow.flow_id}")
    hint = page.get_by_label("Hint")
    page.select_option("select[name=fromPhase]", "data_cleansing")
    hint.press_sequentially("dates are diurnal")
    for _ in range(3):
        hint.press("ArrowLeft")
    before = hint.element_handle()
    desk.do(flow.run_phase())
    expect(page.locator(".timeline li").nth(1)).to_contain_text("done")
    assert before is not None
    assert not before.evaluate("e => e.isConnected")
    expect(hint).to_be_focused()
    page.keyboard.type("-")
    expect(hint).to_have_value("dates are diur-nal")
    expect(page.locator("select[name=fromPhase]")).to_have_value("data_cleansing")


def test_the_place_in_a_list_outlives_its_renewal(page: Page, desk: Desk) -> None:
    flow = desk.flow()
    link = page.locator(f"#inbox a[href='/flows/{flow.flow_id}/review']").first
    link.focus()
    before = link.element_handle()
    with page.expect_response("**/"):
        page.evaluate("document.body.dispatchEvent(new CustomEvent('flow-changed'))")
    assert before is not None
    page.wait_for_function("e => !e.isConnected", arg=before)
    expect(link).to_be_focused()


def test_the_inbox_fills_by_itself(page: Page, desk: Desk) -> None:
    expect(page.locator("#inbox")).to_contain_text("Nothing waits for approval")
    flow = desk.flow(to_gate=False)
    for _ in range(3):
        desk.do(flow.run_phase())
    desk.show(flow)
    expect(page.locator("#inbox")).to_contain_text("servers", timeout=15_000)


def test_by_keyboard(page: Page, desk: Desk) -> None:
    flow = desk.flow()
    page.goto(f"{desk.address}/flows/{flow.flow_id}/review")
    expect(page.locator("#looked")).to_have_text("0 of 3 looked at")
    page.locator("main").focus()
    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(page.locator("#looked")).to_have_text("1 of 3 looked at")
    page.keyboard.press("j")
    page.keyboard.press("e")
    page.keyboard.type("x")
    expect(page.locator("tr.here .target")).to_be_focused()
    expect(page.locator("tr.here .target")).to_have_value(re.compile("x"))


def test_another_sites_form_changes_nothing(page: Page, desk: Desk, browser: Browser) -> None:
    """The session's cookie alone is worth nothing: no token of the page, no change."""
    flow = desk.flow()
    cookies = page.context.cookies()
    context = browser.new_context()
    context.add_cookies(cookies)  # type: ignore[arg-type]
    api = f"{desk.address}/api/v1/discovery/flows/{flow.flow_id}/suspend"
    without = context.request.post(api)
    assert without.status == 403
    assert without.json()["type"].endswith("/forged")
    foreign = context.request.post(api, headers={"Origin": "https://evil.example"})
    assert foreign.status == 403
    form = context.request.post(
        f"{desk.address}/flows/{flow.flow_id}/suspend", form={"csrf": "guess"}
    )
    assert form.status == 403
    context.close()
    csrf = page.locator("body").get_attribute("data-csrf") or ""
    own = page.request.post(api, headers={"X-CSRF-Token": csrf})
    assert own.status == 200
    assert len(desk.kubernetes.changes) == 1


PAGES = [
    "",
    "/review",
    "/quality",
    "/rejected",
    "/inventory",
    "/dependencies",
    "/files",
    "/history",
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible_and_fits_a_phone(page: Page, desk: Desk, scheme: str) -> None:
    flow = desk.flow()
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    places = [f"/flows/{flow.flow_id}{place}" for place in PAGES]
    places += ["/", "/flows", "/flows/new", "/analytics", "/overview", "/nowhere"]
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        for place in places:
            page.goto(f"{desk.address}{place}")
            assert accessibility_problems(page) == [], place
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{place} is {wide} px wide on {width}"


def test_finished_flows_show_everything(page: Page, desk: Desk) -> None:
    flow = desk.flow()
    desk.do(flow.answer())
    desk.do(flow.finish())
    desk.show(flow)
    page.goto(f"{desk.address}/flows/{flow.flow_id}")
    expect(page.locator(".state.good")).to_have_text("Succeeded")
    open_tab(page, "Inventory")
    expect(page.locator("main")).to_contain_text("3 assets")
    expect(page.locator("svg.chart").first).to_have_attribute("aria-label", re.compile("server: 3"))
    open_tab(page, "Files")
    with page.expect_download() as download:
        page.click("table a >> nth=0")
    assert download.value.suggested_filename
    page.goto(f"{desk.address}/analytics")
    expect(page.locator("main")).to_contain_text("migration")


def _ended(desk: Desk, name: str, memory: int) -> Flow:
    """A finished flow of the engagement dc-east that knows one server."""
    flow = desk.flow(name, to_gate=False, engagement="dc-east")

    async def rows() -> AsyncIterator[InventoryRecord]:
        yield InventoryRecord(
            row=7, identity="hostname:web1", name="web1", asset_type="server",
            values={"memory_gb": memory, "hostname": "web1"},
            originals={"memory_gb": f"{memory * 1024} MB", "hostname": "web1"},
            conversions={"memory_gb": {"unit": "MB", "rule": "unit_in_value"}},
        )  # fmt: skip

    async def run() -> None:
        for _ in range(3):
            await flow.run_phase()
        await flow.answer()
        await flow.run_phase(rows())
        await flow.finish()

    desk.do(run())
    desk.show(flow)
    return flow


def test_where_sources_disagree_a_person_decides(page: Page, desk: Desk) -> None:
    tenant = _ended(desk, "cmdb", 8).tenant_id
    desk.tenant_id = tenant
    flow = _ended(desk, "scan", 16)
    page.goto(f"{desk.address}/flows/{flow.flow_id}/inventory")
    row = page.get_by_role("row", name=re.compile("memory_gb 16 8"))
    row.get_by_role("button", name="Keep oldest").click()
    expect(page.get_by_role("row", name=re.compile("memory_gb 8 8.*keep"))).to_be_visible()
    page.get_by_role("button", name="Take back").click()
    expect(page.get_by_role("row", name=re.compile("memory_gb 16 8"))).to_be_visible()
    page.get_by_role("link", name="hostname:web1").click()
    expect(page.get_by_role("row", name=re.compile("memory_gb 16 16384 MB MB"))).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("memory_gb 8 8192 MB MB"))).to_be_visible()
    assert accessibility_problems(page) == []
    desk.kubernetes.approvers.clear()
    page.goto(f"{desk.address}/flows/{flow.flow_id}/inventory")
    expect(page.get_by_role("row", name=re.compile("memory_gb 16 8"))).to_be_visible()
    expect(page.get_by_role("button", name="Keep oldest")).to_have_count(0)


@pytest.mark.parametrize(
    "content",
    [
        b'Inventory of May\nName;adminPassword;IP\nweb01;hunter2;1\nweb02;"hun;ter2";2\n',
        b'[{"name": "web01", "api": {"api_key": "hunter2"}},\n{"pwd": "hun,ter2"}]',
        b'{\n  "name": "web01",\n  "password":\n  "hunter2"}\n',
        b'Name,Mot de passe\nweb01,"a\nhunter2"\nweb02,hunter2\n',
        b"Name,Key\nweb01,AKIA" + b"IOSFODNN7EXAMPLE-hunter2\n",
        b"Name,Source\nweb01,postgresql://app:hunter2@db/erp\n",
        b"Name,Source\nweb01,Server=db;Password=hunter2;Encrypt=yes\n",
        b"Name,Deploy\nweb01,gh" + b"p_hunter2\n",
        b"Name,Storage\nweb01,AccountName=files;AccountKey=hunter2==\n",
    ],
)
def test_s22_the_first_lines_hide_credentials(page: Page, desk: Desk, content: bytes) -> None:
    page.goto(f"{desk.address}/flows/new")
    page.set_input_files("#file", {"name": "list", "mimeType": "text/csv", "buffer": content})
    shown = page.locator("#preview-table")
    expect(shown).to_contain_text("hidden")
    expect(shown).not_to_contain_text("ter2")
    expect(shown).to_contain_text("ame")


def test_uploading_a_file(page: Page, desk: Desk) -> None:
    desk.kubernetes.namespaces = {"migration": "6f2a9c1e-0000-4000-8000-000000000001"}
    page.goto(f"{desk.address}/flows/new")
    page.fill("#namespace", "migration")
    page.fill("#engagement", "dc")
    content = b"Name;RAM\nweb01;16\n"
    page.set_input_files("#file", {"name": "list.csv", "mimeType": "text/csv", "buffer": content})
    expect(page.locator("#preview-table td").first).to_have_text("Name")
    page.click("button:has-text('Upload and start')")
    expect(page.locator("#upload-status")).to_contain_text("waiting for the operator")
    (resource,) = desk.kubernetes.resources
    assert resource["spec"]["engagement"] == "dc"
    page.goto(f"{desk.address}/flows/new")
    page.fill("#namespace", "elsewhere")
    page.set_input_files("#file", {"name": "list.csv", "mimeType": "text/csv", "buffer": content})
    page.click("button:has-text('Upload and start')")
    expect(page.get_by_role("alert")).to_contain_text("Not found")
