"""The pages on the real cluster: from an upload to the inventory, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.cluster.browsers import Network, chromium
from tests.cluster.kube import Kubectl
from tests.cluster.people import Person, forwarded, make_person
from tests.cluster.product import SAMPLE, Flow, Product
from tests.ui.browser import accessibility_problems, confirm, open_tab, ready, visit

# a browser among pods that come and go at once still lost its network now and then
pytestmark = pytest.mark.alone

EDITOR = ("discoveryflow-edit", "discoveryflow-approve", "view")
SLOW = 90_000
# the default of five seconds is no bound of the product's, and short beside pods that start
expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def product(kubectl: Kubectl) -> Product:
    return Product(kubectl)


@pytest.fixture(scope="module")
def browser(browser_network: Network) -> Iterator[Browser]:
    with chromium(browser_network) as launched:
        yield launched


@pytest.fixture
def address(product: Product, browser_network: Network) -> Iterator[str]:
    with forwarded(product, "api", 8444, browser_network.address) as port:
        yield f"https://{browser_network.address}:{port}"


def signed_in(browser: Browser, address: str, who: Person) -> Page:
    """A window of its own, with the chart's own certificate."""
    page = browser.new_context(ignore_https_errors=True).new_page()
    visit(page, f"{address}/sign-in")
    page.fill("#token", who.headers["Authorization"].removeprefix("Bearer "))
    page.click("button:has-text('Sign in')")
    page.wait_for_url(f"{address}/")
    expect(page.locator(".who")).to_contain_text(who.user)
    return page


def test_upload_watch_review_edit_approve_inventory(
    browser: Browser, address: str, namespace: Kubectl, product: Product, tmp_path: Path
) -> None:
    ann = make_person(namespace, "ann", *EDITOR)
    page = signed_in(browser, address, ann)
    source = tmp_path / "servers.csv"
    source.write_text(SAMPLE)
    page.click("text=New flow >> nth=0")
    page.wait_for_url("**/flows/new")
    ready(page)
    page.fill("#namespace", str(namespace.namespace))
    page.fill("#engagement", "dc")
    page.set_input_files("#file", source)
    expect(page.locator("#preview-table td").first).to_have_text("Name")
    page.click("button:has-text('Upload and start')")
    page.wait_for_url(re.compile(r"/flows/[0-9a-f-]{36}$"), timeout=SLOW)
    # nothing is loaded anew here: the page follows the flow by itself
    expect(page.locator(".timeline .done").first).to_be_visible(timeout=SLOW)
    review = page.locator("#standing a:has-text('Review')")
    expect(review).to_be_visible(timeout=SLOW)
    assert accessibility_problems(page) == []
    review.click()
    page.wait_for_url("**/review")
    ready(page)
    page.get_by_label("Target of OS").fill("description")
    page.get_by_label("Unit and decimals of RAM (MB)").fill("unit:GB")
    expect(page.locator("#summary")).to_contain_text("2 changed by you")
    page.click("button[value=approve]")
    confirm(page, "2 edited by you")
    page.wait_for_url(re.compile(r"/flows/[0-9a-f-]{36}$"))
    expect(page.locator("#standing .state")).to_have_text("Succeeded", timeout=SLOW)
    open_tab(page, "Inventory")
    expect(page.locator("main")).to_contain_text("2 assets")
    page.click("summary:has-text('fields') >> nth=0")
    expect(page.locator("dl.fields").first).to_contain_text("4096")
    for tab in ("Quality", "Dependencies", "Files", "History"):
        open_tab(page, tab)
        assert accessibility_problems(page) == [], tab
    expect(page.locator("main")).to_contain_text(ann.user)


def test_the_loser_of_a_race_and_a_person_without_the_verb(
    browser: Browser, address: str, namespace: Kubectl, product: Product
) -> None:
    ann, bob = make_person(namespace, "ann", *EDITOR), make_person(namespace, "bob", *EDITOR)
    eve = make_person(namespace, "eve", "discoveryflow-view")
    flow = Flow(namespace, product)
    flow.to_gate()
    place = f"{address}/flows/{flow.uid}/review"
    windows = [signed_in(browser, address, who) for who in (ann, bob, eve)]
    for window in windows:
        visit(window, place)
    first, second, looking = windows
    expect(looking.locator("main")).to_contain_text("You may look, but not answer")
    expect(looking.locator("button[value=approve]")).to_have_count(0)
    second.get_by_label("Target of OS").fill("description")
    first.click("button[value=approve]")
    confirm(first)
    for window in (second, looking):
        expect(window.locator("#changed")).to_contain_text("This request is closed")
    expect(second.locator("button[value=approve]")).to_be_disabled()


def test_a_deadline_that_passes_while_looking(
    browser: Browser, address: str, namespace: Kubectl, product: Product
) -> None:
    ann = make_person(namespace, "ann", *EDITOR)
    flow = Flow(namespace, product, spec={"approvalPolicy": {"timeout": "20s"}})
    flow.to_gate()
    page = signed_in(browser, address, ann)
    visit(page, f"{address}/flows/{flow.uid}/review")
    expect(page.locator("#changed")).to_contain_text("the flow is Rejected now", timeout=40_000)
    page.reload()
    expect(page.locator("main")).to_contain_text("ExpiredRejected")
    visit(page, f"{address}/flows/{flow.uid}")
    page.select_option("select[name=fromPhase]", "approval")
    page.get_by_role("button", name="Start").click()
    confirm(page, "once more from Approval (ask again)")
    expect(page.locator("#standing")).to_contain_text("Review")


def test_another_namespaces_flow_is_not_there(
    browser: Browser, address: str, namespace: Kubectl, product: Product, kubectl: Kubectl
) -> None:
    flow = Flow(namespace, product)
    flow.source()
    flow.create()
    other = f"{namespace.namespace}-other"
    kubectl("create", "namespace", other)
    try:
        stranger = make_person(kubectl.within(other), "zoe", *EDITOR)
        page = signed_in(browser, address, stranger)
        expect(page.locator("#inbox")).to_contain_text("You see no flows yet")
        for place in ("", "/review", "/inventory", "/history", "/files", "/live"):
            answer = visit(page, f"{address}/flows/{flow.uid}{place}")
            assert answer is not None
            assert answer.status == 404
            expect(page.locator("main")).not_to_contain_text("servers")
        overview = visit(page, f"{address}/overview")
        assert overview is not None
        assert overview.status == 403
    finally:
        kubectl("delete", "namespace", other, "--wait=false")
