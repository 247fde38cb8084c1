"""Links from elsewhere, such as a message's: to the page, for whoever is signed in or will be."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.ui.desk import Desk, sign_in
from tests.ui.elsewhere import another_application


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_link_in_a_message_leads_to_the_page(page: Page, desk: Desk, host: str) -> None:
    """A browser keeps the session's Strict cookie from a request that another site causes."""
    flow = desk.flow()
    place = f"{desk.address}/flows/{flow.flow_id}/review"
    with another_application(place) as port:
        page.goto(f"http://{host}:{port}/")
        page.click("text=Review it")
        page.wait_for_url(place)
    expect(page.locator("#mappings tbody tr")).to_have_count(3)
    expect(page.locator(".who")).to_contain_text("ann")
    # and nobody was signed out by it
    page.goto(f"{desk.address}/flows")
    expect(page.locator(".who")).to_contain_text("ann")


def test_a_link_leads_there_after_signing_in(window: Page, desk: Desk) -> None:
    place = f"{desk.address}/flows?state=Failed"
    with another_application(place) as port:
        window.goto(f"http://127.0.0.1:{port}/")
        window.click("text=Review it")
        window.wait_for_url(re.compile(r"/sign-in\?"))
    window.fill("#token", "token-ann")
    window.click("button:has-text('Sign in')")
    window.wait_for_url(place)


def test_a_session_that_is_no_good_is_taken_away(window: Page, desk: Desk) -> None:
    sign_in(window, desk.address)
    (cookie,) = [c for c in window.context.cookies() if c["name"] == "discovery.0"]
    spoilt = {key: cookie[key] for key in ("name", "domain", "path")} | {"value": "spoilt"}
    window.context.add_cookies([spoilt])  # type: ignore[list-item]
    window.goto(f"{desk.address}/flows")
    expect(window).to_have_url(re.compile(r"/sign-in\?next=/flows"))
    assert not [c for c in window.context.cookies() if c["name"].startswith("discovery")]
