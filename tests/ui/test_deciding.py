"""What changes something is done by its own button, after a question: never by Enter in a field."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from discovery_api.web.templating import TEMPLATES
from playwright.sync_api import Browser, Locator, Page, expect

from tests.store.flows import Flow
from tests.ui.browser import accessibility_problems, confirm
from tests.ui.desk import Desk, sign_in

FIELDS = "form :is(input:not([type=hidden]):not([type=file]), select):visible"
# by the rules of HTML, Enter presses a form's first submit button
PRESSED = """[...document.forms].filter(form => form.method === "post").map(
    form => [...form.elements].find(field => field.type === "submit")
).filter(button => button.formMethod !== "dialog").map(button => button.textContent)"""


@pytest.fixture(params=[True, False], ids=["with-script", "without-script"])
def person(request: pytest.FixtureRequest, browser: Browser, desk: Desk) -> Iterator[Page]:
    """Ann's window; its browser runs scripts, or none."""
    with browser.new_context(java_script_enabled=request.param) as context:
        page = context.new_page()
        sign_in(page, desk.address)
        yield page


def stands(desk: Desk, flow: Flow) -> tuple[object, ...]:
    """All that an answer or a change of the spec would alter."""
    history = desk.do(desk.stores.api.history(flow.tenant_id, flow.flow_id))
    changes = list(desk.kubernetes.changes), list(desk.kubernetes.answers)
    return desk.do(flow.load()), len(history), changes


def press_enter_in_each(page: Page) -> int:
    """In every field that is seen; the number of them. The page stays where it is."""
    for summary in page.locator("form summary").all():
        summary.click()
    fields = page.locator(FIELDS)
    expect(fields.first).to_be_visible()
    for number in range(fields.count()):
        field = fields.nth(number)
        field.focus()
        if field.evaluate("e => e.matches('input:not([type=checkbox])') && !e.readOnly"):
            page.keyboard.type("e")
        page.keyboard.press("Enter")
        # a list of choices may be open now
        if field.evaluate("e => e.matches('select')"):
            page.keyboard.press("Escape")
        expect(field).to_be_focused()
    return fields.count()


@pytest.mark.parametrize(
    ("place", "least"), [("/flows/{}/review", 3 * 3 + 4), ("/flows/{}", 2), ("/flows/new", 4)]
)
def test_enter_in_a_field_decides_nothing(person: Page, desk: Desk, place: str, least: int) -> None:
    flow = desk.flow()
    address = f"{desk.address}{place.format(flow.flow_id)}"
    person.goto(address)
    before = stands(desk, flow)
    sent: list[str] = []
    person.on("request", lambda request: sent.append(request.method))
    moved: list[str] = []
    person.on("framenavigated", lambda frame: moved.append(frame.url))
    assert press_enter_in_each(person) >= least
    assert person.evaluate(PRESSED) == []
    assert ("POST" in sent, moved, person.url) == (False, [], address)
    expect(person.locator("dialog:visible")).to_have_count(0)
    assert stands(desk, flow) == before


def test_every_form_that_changes_something_begins_with_the_button_for_enter() -> None:
    forms = {
        template.name: re.findall(r'<form[^>]*method="post"[^>]*>\s*(.*)', template.read_text())
        for template in TEMPLATES.glob("*.html")
    }
    assert {name for name, begin in forms.items() if begin} > {"review.html", "_standing.html"}
    for name, begins in forms.items():
        for begin in begins:
            # signing in changes nothing that others see
            assert name == "sign_in.html" or begin.startswith("{{ ours(csrf) }}"), (name, begin)


def test_without_a_script_buttons_decide(browser: Browser, desk: Desk) -> None:
    flow = desk.flow()
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        sign_in(page, desk.address)
        page.goto(f"{desk.address}/flows/{flow.flow_id}/review")
        page.fill("#reason", "as it is")
        page.get_by_role("button", name="Approve").click()
        page.wait_for_url(f"**/flows/{flow.flow_id}")
    assert str(desk.do(flow.load()).phase) == "asset_inventory"


def asked(page: Page, button: Locator, words: str) -> Locator:
    """The question that the button asks, which says that."""
    button.focus()
    page.keyboard.press("Enter")
    question = page.get_by_role("dialog")
    expect(question).to_contain_text(words)
    return question


def test_a_question_is_answered_by_keyboard(page: Page, desk: Desk) -> None:
    flow = desk.flow()
    page.goto(f"{desk.address}/flows/{flow.flow_id}/review")
    page.get_by_label("Target of Name").fill("")
    page.get_by_label("Target of Notes").fill("owner")
    before = stands(desk, flow)
    approve = page.get_by_role("button", name="Approve")
    words = "servers? 2 of 3 columns are mapped, 1 left out, 2 edited by you."
    question = asked(page, approve, words)
    assert accessibility_problems(page) == []
    # what the key that opened it would press by being held changes nothing
    expect(question.get_by_role("button", name="Back")).to_be_focused()
    page.keyboard.press("Escape")
    expect(question).to_be_hidden()
    expect(approve).to_be_focused()
    question = asked(page, approve, words)
    page.keyboard.press("Enter")
    expect(question).to_be_hidden()
    expect(approve).to_be_focused()
    assert stands(desk, flow) == before
    question = asked(page, approve, words)
    page.keyboard.press("Tab")
    expect(question.get_by_role("button", name="Approve")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/flows/{flow.flow_id}")
    assert str(desk.do(flow.load()).phase) == "asset_inventory"


def test_each_decision_says_what_will_happen(page: Page, desk: Desk) -> None:
    flow = desk.flow()
    page.goto(f"{desk.address}/flows/{flow.flow_id}/review")
    question = asked(page, page.get_by_role("button", name="Reject"), "Reject the 3 mappings of")
    question.get_by_role("button", name="Back").click()
    page.goto(f"{desk.address}/flows/{flow.flow_id}")
    question = asked(page, page.get_by_role("button", name="Cancel"), "Cancel servers for good?")
    expect(question.get_by_role("button", name="Cancel the flow")).to_be_visible()
    page.keyboard.press("Escape")
    page.select_option("select[name=fromPhase]", "data_cleansing")
    asked(page, page.get_by_role("button", name="Start"), "servers once more from Cleansing?")
    assert desk.kubernetes.changes == []
    with page.expect_response("**/rerun"):
        confirm(page)
    (change,) = desk.kubernetes.changes
    assert change["value"]["fromPhase"] == "data_cleansing"


def test_what_moves_meanwhile_takes_no_question_away(page: Page, desk: Desk) -> None:
    flow = desk.flow()
    page.goto(f"{desk.address}/flows/{flow.flow_id}")
    asked(page, page.get_by_role("button", name="Cancel"), "for good?")
    with page.expect_response("**/live"):
        desk.do(flow.answer("Approve", by="bob"))
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#standing")).not_to_contain_text("Review 3 mappings")
    asked(page, page.get_by_role("button", name="Cancel"), "for good?")
    with page.expect_response("**/cancel"):
        confirm(page)
    assert [change["value"] for change in desk.kubernetes.changes] == ["Cancel"]


def test_a_question_ends_where_somebody_else_has_answered(page: Page, desk: Desk) -> None:
    flow = desk.flow()
    page.goto(f"{desk.address}/flows/{flow.flow_id}/review")
    question = asked(page, page.get_by_role("button", name="Approve"), "3 columns")
    desk.do(flow.answer("Reject", by="bob"))
    expect(page.locator("#changed")).to_contain_text("the flow is Rejected now")
    expect(question).to_be_hidden()
