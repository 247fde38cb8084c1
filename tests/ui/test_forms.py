"""What a browser checks before a form is sent, and what the form says of itself."""

from __future__ import annotations

import re

import pytest
from discovery_core.phases import Phase
from playwright.sync_api import Page, expect

from tests.store.flows import RESULTS, WITH_UNITS
from tests.ui.desk import Desk

# as browsers compile them; one that is invalid checks nothing, and only the console says so
INVALID = """[...document.querySelectorAll("[pattern]")].filter(field => {
    try { new RegExp(`^(?:${field.pattern})$`, "v"); return false; } catch { return true; }
}).map(field => field.name)"""


def test_patterns_of_fields_are_ones_that_browsers_take(page: Page, desk: Desk) -> None:
    flow = desk.flow()
    for place in ("/flows/new", "/flows", "/analytics", f"/flows/{flow.flow_id}/review"):
        page.goto(f"{desk.address}{place}")
        assert page.evaluate(INVALID) == [], place


def test_what_is_no_namespace_is_said_before_anything_is_sent(page: Page, desk: Desk) -> None:
    page.goto(f"{desk.address}/flows/new")
    field = page.locator("#namespace")
    for wrong in ("UX Main!", "-east", "east-", "a_b"):
        field.fill(wrong)
        assert field.evaluate("e => e.validity.patternMismatch"), wrong
    for right in ("a", "migration-east", "7"):
        field.fill(right)
        assert field.evaluate("e => e.validity.valid"), right


def test_clearing_a_unit_counts_as_a_change(
    page: Page, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RESULTS, Phase.FIELD_MAPPING, WITH_UNITS)
    flow = desk.flow()
    page.goto(f"{desk.address}/flows/{flow.flow_id}/review")
    unit = page.get_by_label("Unit and decimals of RAM")
    proposed = unit.input_value()
    assert proposed.startswith("unit:")
    unit.fill("")
    expect(page.locator("#summary")).to_have_text("1 changed by you. ")
    unit.fill("none")
    expect(page.locator("#summary")).to_have_text("1 changed by you. ")
    unit.fill(proposed)
    expect(page.locator("#summary")).to_have_text(re.compile("As proposed"))
    # a column without a unit has none
    page.get_by_label("Unit and decimals of Name").fill("none")
    expect(page.locator("#summary")).to_have_text(re.compile("As proposed"))
