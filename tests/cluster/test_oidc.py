"""Signing in by OpenID Connect on the real cluster: the provider, the API server, RBAC, the gate.

The native cluster brings the provider, and its API server trusts it (`--authentication-config`).
Nothing here knows a Kubernetes token: people have a name and a password, and a browser.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.cluster.browsers import Network, chromium
from tests.cluster.kube import Kubectl
from tests.cluster.people import forwarded
from tests.cluster.product import Flow, Product
from tests.cluster.provision.native import ADDRESS, Native
from tests.cluster.provision.native_config import OIDC_PREFIX, issuer, people_file
from tests.ui.browser import confirm, visit
from tests.ui.issuer import Issuer

# a browser among pods that come and go at once still lost its network now and then
pytestmark = [pytest.mark.native, pytest.mark.alone]

# api.publicUrl of the installed chart, which is where the provider sends people back to
SITE = "https://discovery.test"
BUTTON = "text=Sign in with your organisation"
SLOW = 90_000


@pytest.fixture(scope="module")
def product(kubectl: Kubectl) -> Product:
    return Product(kubectl)


@pytest.fixture(scope="module")
def people() -> dict[str, dict[str, Any]]:
    """Who the provider knows, as the cluster tool wrote it."""
    file = people_file(Native().work)
    assert file.exists(), f"there is no {file}: this test needs the native cluster"
    found: dict[str, dict[str, Any]] = json.loads(file.read_text())
    return found


@pytest.fixture(scope="module")
def browser(product: Product, browser_network: Network) -> Iterator[Browser]:
    """A browser for which the public address is the API's Service."""
    here = browser_network.address
    with forwarded(product, "api", 8444, here) as port:
        rule = f"--host-resolver-rules=MAP discovery.test:443 {here}:{port}"
        with chromium(browser_network, rule) as launched:
            yield launched


@contextmanager
def window(browser: Browser) -> Iterator[Page]:
    """A window of somebody who has not signed in; certificates are those of the two CAs."""
    context: BrowserContext = browser.new_context(ignore_https_errors=True)
    try:
        yield context.new_page()
    finally:
        context.close()


def sign_in(page: Page, name: str, people: dict[str, dict[str, Any]], place: str = "/") -> None:
    """From the application through the provider and back."""
    visit(page, f"{SITE}{place}")
    page.click(BUTTON)
    page.wait_for_url(lambda url: url.startswith(issuer(ADDRESS)))
    page.fill("input[name=name]", name)
    page.fill("input[name=password]", people[name]["password"])
    page.click("button[value=yes]")
    page.wait_for_url(f"{SITE}{place}")


def user(name: str) -> str:
    """What Kubernetes calls somebody who signs in there."""
    return f"{OIDC_PREFIX}{name}@example.org"


@pytest.fixture
def flow(product: Product, namespace: Kubectl) -> Flow:
    """A flow that waits. Everybody of a group may change it, and one of them may approve."""
    for role in ("discoveryflow-edit", "view"):
        namespace("create", "rolebinding", f"team-{role}", f"--clusterrole={role}",
                  f"--group={OIDC_PREFIX}migration")  # fmt: skip
    namespace("create", "rolebinding", "ann", "--clusterrole=discoveryflow-approve",
              f"--user={user('ann')}")  # fmt: skip
    flow = Flow(namespace, product)
    flow.to_gate()
    return flow


def test_rbac_decides_about_people_of_the_provider_and_the_answer_is_theirs(
    browser: Browser, flow: Flow, people: dict[str, dict[str, Any]], product: Product
) -> None:
    place = f"/flows/{flow.uid}/review"
    with window(browser) as page:
        sign_in(page, "ben", people)
        expect(page.locator(".who")).to_contain_text(user("ben"))
        visit(page, f"{SITE}{place}")
        expect(page.locator("main")).to_contain_text("You may look, but not answer")
        expect(page.locator("button[value=approve]")).to_have_count(0)
        refused = _approve_by_hand(page, flow)
        assert refused["status"] == 403, refused
        assert "verb approve" in refused["body"]
    with window(browser) as page:
        sign_in(page, "ann", people)
        expect(page.locator(".who")).to_contain_text(user("ann"))
        visit(page, f"{SITE}{place}")
        page.get_by_label("Target of OS").fill("description")
        page.fill("#reason", "seen by ann")
        page.click("button[value=approve]")
        confirm(page, "1 edited by you")
        page.wait_for_url(f"{SITE}/flows/{flow.uid}")
        expect(page.locator("#standing .state")).to_have_text("Succeeded", timeout=SLOW)
        page.click(".tabs >> text=History")
        expect(page.locator("main")).to_contain_text(user("ann"))
    assert flow.get()["spec"]["approval"]["decidedBy"] == user("ann")
    decided = product.sql(
        f"SELECT state, decided_by FROM approval_requests WHERE flow_id = '{flow.uid}'"
    )
    assert decided == [["Approved", user("ann")]]


def _approve_by_hand(page: Page, flow: Flow) -> dict[str, Any]:
    """What a page's script gets that sends an answer though none is offered."""
    asked = flow.status()["approvalRequest"]
    body = {key: asked[key] for key in ("requestId", "artefactDigest")}
    sent = """async ([place, body]) => {
        const answer = await fetch(place, {
            method: "POST", body: JSON.stringify(body),
            headers: {"Content-Type": "application/json",
                      "X-CSRF-Token": document.body.dataset.csrf},
        });
        return {status: answer.status, body: await answer.text()};
    }"""
    place = f"/api/v1/discovery/flows/{flow.uid}/approve-mappings"
    found: dict[str, Any] = page.evaluate(sent, [place, body | {"edits": []}])
    return found


def test_somebody_without_any_right_sees_nothing(
    browser: Browser, namespace: Kubectl, product: Product, people: dict[str, dict[str, Any]]
) -> None:
    flow = Flow(namespace, product)
    flow.source()
    flow.create()
    flow.wait("Queued", "Running", "AwaitingApproval", seconds=60)
    with window(browser) as page:
        sign_in(page, "ben", people)
        answer = visit(page, f"{SITE}/flows/{flow.uid}")
        assert answer is not None
        assert answer.status == 404
        expect(page.locator("main")).not_to_contain_text("servers")


def test_the_api_server_takes_the_provider_s_tokens_and_no_forged_ones(
    kubectl: Kubectl, people: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """With the other ways in still open: this test's own kubectl has a client certificate."""
    provider = Issuer(issuer(ADDRESS), Native().work / "pki" / "ca.crt")
    token = provider.id_token("ann", people["ann"]["password"])
    told = kubectl.with_token(token, tmp_path).json("auth", "whoami")["status"]["userInfo"]
    assert told["username"] == user("ann")
    groups = {f"{OIDC_PREFIX}migration", f"{OIDC_PREFIX}leads", "system:authenticated"}
    assert set(told["groups"]) == groups
    head, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["email"] = "ben@example.org"
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    refused = kubectl.with_token(f"{head}.{forged}.{signature}", tmp_path).try_("auth", "whoami")
    assert not refused.ok
    assert "Unauthorized" in refused.stderr
    assert kubectl.json("auth", "whoami")["status"]["userInfo"]["username"] == "admin"
