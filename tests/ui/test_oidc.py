"""Signing in by OpenID Connect: a real browser, the application, and a real provider process.

That Kubernetes takes the same provider's tokens is tests/cluster/test_oidc.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

import pytest
from discovery_api.sessions import claims_of
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from tests.postgres import DatabaseUrls
from tests.ui.browser import accessibility_problems
from tests.ui.desk import Desk, open_desk
from tests.ui.issuer import CLIENT, PEOPLE, Issuer, answer, serve

BUTTON = "text=Sign in with your organisation"


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuer]:
    with serve(tmp_path_factory.mktemp("issuer")) as running:
        yield running


@pytest.fixture
def desk(database_urls: DatabaseUrls, issuer: Issuer) -> Iterator[Desk]:
    """The application with that issuer, before a Kubernetes that trusts it."""
    configured = {"oidc_issuer": issuer.address, "oidc_ca_file": issuer.authority}
    with open_desk(database_urls, **configured) as opened:
        opened.kubernetes.identify = issuer.identify
        yield opened


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser that knows the provider's certificate, and nobody yet."""
    opened = browser.new_context(ignore_https_errors=True)
    yield opened
    opened.close()


def begin(context: BrowserContext, desk: Desk, place: str = "/") -> Page:
    """A window at the provider's page, on the way to `place`."""
    page = context.new_page()
    page.goto(f"{desk.address}{place}")
    page.click(BUTTON)
    expect(page.locator("h1")).to_have_text(f"Sign in to {CLIENT}")
    return page


def signed_in(context: BrowserContext) -> bool:
    """Whether the browser has a session's cookie."""
    return any(cookie["name"] == "discovery.0" for cookie in context.cookies())


def way_back(desk: Desk, issuer: Issuer, name: str) -> str:
    """Where the provider sends somebody who has signed in; nobody has gone there yet."""
    with issuer.client() as client:
        address = client.get(f"{desk.address}/oidc/start").headers["location"]
        back = issuer.signed_in(client, address, name, str(PEOPLE[name]["password"]))
    assert back.startswith(f"{desk.address}/oidc/callback?")
    return back


def test_signing_in_through_the_provider(
    context: BrowserContext, desk: Desk, issuer: Issuer
) -> None:
    page = begin(context, desk, "/flows?state=Failed")
    asked = parse_qs(urlsplit(page.url).query)
    assert "id" in asked
    answer(page, "ann", "wrong")
    expect(page.get_by_role("alert")).to_have_text("wrong name or password")
    answer(page, "ann")
    page.wait_for_url(f"{desk.address}/flows?state=Failed")
    expect(page.locator(".who")).to_contain_text("ann")
    # what Kubernetes was given is the ID token, for our client, with what RBAC reads
    claims = claims_of(desk.kubernetes.tokens[-1])
    assert claims["iss"] == issuer.address
    assert claims["aud"] == [CLIENT]
    assert (claims["email"], claims["email_verified"]) == ("ann@example.org", True)
    assert claims["groups"] == ["migration", "leads"]
    cookies = [c for c in context.cookies() if c["name"].startswith("discovery")]
    assert [c["name"] for c in cookies] == ["discovery.0"]
    assert (cookies[0]["httpOnly"], cookies[0]["sameSite"]) == (True, "Strict")
    assert desk.kubernetes.tokens[-1] not in cookies[0]["value"]
    page.click("text=Sign out")
    expect(page).to_have_url(re.compile("/sign-in"))
    page.goto(desk.address)
    expect(page).to_have_url(re.compile("/sign-in"))


def test_the_request_is_a_code_flow_with_a_challenge(context: BrowserContext, desk: Desk) -> None:
    page = context.new_page()
    page.goto(desk.address)
    with page.expect_request("**/authorize?*") as sent:
        page.click(BUTTON)
    asked = {key: value[0] for key, value in parse_qs(urlsplit(sent.value.url).query).items()}
    assert (asked["response_type"], asked["client_id"]) == ("code", CLIENT)
    assert asked["code_challenge_method"] == "S256"
    assert len(asked["code_challenge"]) == 43
    assert asked["redirect_uri"] == f"{desk.address}/oidc/callback"
    assert min(len(asked["state"]), len(asked["nonce"])) >= 30


def test_somebody_who_refuses_is_told_so(context: BrowserContext, desk: Desk) -> None:
    page = begin(context, desk)
    page.click("button[value=no]")
    expect(page.locator("h1")).to_have_text("The issuer refused")
    expect(page.locator("main")).to_contain_text("the person refused to sign in")
    assert accessibility_problems(page) == []
    assert not signed_in(context)


def test_a_way_back_that_was_begun_in_another_browser_is_refused(
    context: BrowserContext, desk: Desk, issuer: Issuer
) -> None:
    """Or anybody could be signed in as somebody else by a link."""
    page = begin(context, desk)
    before = len(desk.kubernetes.tokens)
    reply = page.goto(way_back(desk, issuer, "ben"))
    assert reply is not None
    assert reply.status == 400
    expect(page.locator("main")).to_contain_text("begun elsewhere")
    assert not signed_in(context)
    assert len(desk.kubernetes.tokens) == before
    page.goto(desk.address)
    page.click(BUTTON)
    answer(page, "ann")
    page.wait_for_url(f"{desk.address}/")
    expect(page.locator(".who")).to_contain_text("ann")


def test_a_code_of_another_browser_is_worth_nothing(
    context: BrowserContext, desk: Desk, issuer: Issuer
) -> None:
    """Though the state is right: the provider compares the verifier with the challenge."""
    stolen = parse_qs(urlsplit(way_back(desk, issuer, "ben")).query)["code"][0]
    page = context.new_page()
    page.goto(desk.address)
    with page.expect_request("**/authorize?*") as sent:
        page.click(BUTTON)
    state = parse_qs(urlsplit(sent.value.url).query)["state"][0]
    query = urlencode({"code": stolen, "state": state})
    reply = page.goto(f"{desk.address}/oidc/callback?{query}")
    assert reply is not None
    assert reply.status == 400
    expect(page.locator("main")).to_contain_text("the issuer gave no token")
    assert not signed_in(context)


def test_a_token_for_another_sign_in_is_refused(context: BrowserContext, desk: Desk) -> None:
    def altered(route: Route) -> None:
        begun = route.fetch(max_redirects=0)
        address = urlsplit(begun.headers["location"])
        query = {key: value[0] for key, value in parse_qs(address.query).items()}
        assert query["nonce"]
        query["nonce"] = "another"
        elsewhere = urlunsplit(address._replace(query=urlencode(query)))
        route.fulfill(response=begun, headers=begun.headers | {"location": elsewhere})

    page = context.new_page()
    page.route(re.compile(r"/oidc/start"), altered)
    page.goto(desk.address)
    page.click(BUTTON)
    before = len(desk.kubernetes.tokens)
    answer(page, "ann")
    expect(page.locator("main")).to_contain_text("the issuer's token is for another sign-in")
    assert not signed_in(context)
    assert len(desk.kubernetes.tokens) == before


def test_a_kubernetes_that_does_not_trust_the_issuer_is_explained(
    context: BrowserContext, desk: Desk, issuer: Issuer
) -> None:
    desk.kubernetes.identify = lambda token: None
    page = begin(context, desk)
    answer(page, "ann")
    expect(page.locator("h1")).to_have_text("Kubernetes does not accept this sign-in")
    told = page.locator("main")
    expect(told).to_contain_text("--authentication-config")
    expect(told).to_contain_text(issuer.address)
    expect(told).to_contain_text(f"the audience {CLIENT}")
    expect(told).to_contain_text("email, email_verified")
    expect(told).to_contain_text("kubectl create token")
    # names of claims help, what is in them is nobody's business here
    expect(told).not_to_contain_text("ann@example.org")
    assert accessibility_problems(page) == []
    assert not signed_in(context)
    page.click("text=To the inbox")
    expect(page.locator(BUTTON)).to_be_visible()


def test_an_issuer_that_is_away_is_named(database_urls: DatabaseUrls, window: Page) -> None:
    with open_desk(database_urls, oidc_issuer="https://127.0.0.1:9") as desk:
        window.goto(desk.address)
        window.click(BUTTON)
        expect(window.locator("main")).to_contain_text("the issuer 127.0.0.1:9 does not answer")


def test_a_certificate_of_another_authority_is_not_trusted(
    database_urls: DatabaseUrls, window: Page, issuer: Issuer, tmp_path: Path
) -> None:
    with open_desk(database_urls, oidc_issuer=f"{issuer.address}/") as desk:
        window.goto(desk.address)
        window.click(BUTTON)
        expect(window.locator("main")).to_contain_text("does not answer")
        expect(window.locator("main")).to_contain_text(
            "certificate verify failed", ignore_case=True
        )
