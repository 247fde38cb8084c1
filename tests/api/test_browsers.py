"""What a browser is told and believed: headers, sessions, other sites, files and cells."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from discovery_api.app import _learn_of_ended
from discovery_api.headers import CONTENT_POLICY
from discovery_api.routes.files import MOST_BYTES
from discovery_api.sessions import Sessions
from discovery_core.phases import Phase

from tests.api.desk import ANN, API, resource, serving, url
from tests.api.kubernetes import FakeKubernetes
from tests.api.real_flow import run_all_phases
from tests.postgres import Stores
from tests.store.flows import Flow

HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
SCRIPT = "<script>alert(1)</script>"
# cells that would be markup, an attribute or a link where one of them is not escaped
CELLS = ('"><img src=x onerror=alert(1)>', SCRIPT, "javascript:alert(1)", "{{ 7*7 }}")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/sign-in"),
        ("GET", "/no/such/page"),
        ("GET", f"{API}/flows?namespace=migration"),
        ("GET", f"{API}/flows/11111111-1111-4111-8111-111111111111"),
        ("POST", f"{API}/flows"),
        ("POST", "/sign-in"),
        ("GET", "/healthz"),
    ],
)
async def test_every_answer_has_the_headers(ann: httpx.AsyncClient, method: str, path: str) -> None:
    for headers in ({}, ANN, {"Authorization": "Bearer nobody"}, {"Accept": "text/html"}):
        answer = await ann.request(method, path, headers=headers)
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS, answer.status_code


def test_the_policy_lets_nothing_in_from_elsewhere_and_nothing_inline() -> None:
    rules = dict(rule.split(" ", 1) for rule in CONTENT_POLICY.split("; "))
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == "'none'"
    assert {rules[name] for name in ("script-src", "style-src", "connect-src", "form-action")} == {
        "'self'"
    }
    assert "unsafe" not in CONTENT_POLICY


# -- OpenID Connect: what is tried with a real issuer, tests/ui has


async def test_the_issuer_is_given_a_challenge_whose_answer_only_we_know(
    ann: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed: list[str] = []

    def seal(self: Sessions, text: str) -> str:
        del self
        sealed.append(text)
        return "sealed"

    monkeypatch.setattr(Sessions, "seal", seal)
    known = type("Issuer", (), {"authorization": "https://issuer.example/authorize", "until": 1e12})
    ann._transport.app.state.issuer = known  # type: ignore[attr-defined]
    ann._transport.app.state.settings.oidc_issuer = "https://issuer.example"  # type: ignore[attr-defined]
    started = await ann.get("/oidc/start")
    asked = {
        name: value[0]
        for name, value in parse_qs(urlsplit(started.headers["location"]).query).items()
    }
    (kept,) = sealed
    verifier = kept.split('"verifier": "')[1].split('"')[0]
    digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode()
    assert asked["code_challenge_method"] == "S256"
    assert asked["code_challenge"] == digest.rstrip("=")
    assert verifier not in started.headers["location"]


# -- sessions


@pytest.mark.parametrize(
    ("field", "seconds"), [("expires", 1), ("seen", 3601)], ids=["absolute", "idle"]
)
async def test_a_session_ends(
    ann: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, field: str, seconds: float
) -> None:
    """By its own time, and by nobody looking."""
    begin = Sessions.begin

    def older(self: Sessions, token: str, user: str) -> Any:
        changed: dict[str, Any] = {field: time.time() - seconds}
        return dataclasses.replace(begin(self, token, user), **changed)

    assert (await ann.get("/flows/new")).status_code == 200
    monkeypatch.setattr(Sessions, "begin", older)
    begun = await ann.post("/sign-in", data={"token": "token-ann"})
    assert begun.status_code == 303
    ann.cookies.clear()
    sent = {"Cookie": _cookies(begun)}
    assert (await ann.get("/flows/new", headers=sent)).status_code == 401
    told = await ann.get(f"{API}/flows?namespace=migration", headers=sent)
    assert told.status_code == 401


def _cookies(answer: httpx.Response) -> str:
    """What the answer sets, which a client that means well would drop once it has expired."""
    return "; ".join(line.split(";")[0] for line in answer.headers.get_list("set-cookie"))


async def test_s19_a_session_that_was_ended_is_of_no_use_to_whoever_kept_it(
    stores: Stores, kubernetes: FakeKubernetes, tmp_path: Path
) -> None:
    """Neither here nor in another process with the same keys; no other one of that person is."""
    (keys := tmp_path / "keys").write_text("k" * 40)
    async with (
        serving(stores, kubernetes, session_key_file=keys) as client,
        serving(stores, kubernetes, session_key_file=keys) as elsewhere,
    ):
        first, second, other = [
            await session_of(client, who) for who in ("token-ann", "token-ann", "token-bob")
        ]
        shown = await client.get("/flows/new", headers=first)
        csrf = shown.text.split('data-csrf="', 1)[1].split('"', 1)[0]
        assert (await elsewhere.get("/flows/new", headers=first)).status_code == 200
        ended = await client.post("/sign-out", data={"csrf": csrf}, headers=first)
        assert ended.status_code == 303
        app = elsewhere._transport.app  # type: ignore[attr-defined]
        looking = asyncio.create_task(_learn_of_ended(app))
        await until_answered(elsewhere, first, 401)
        looking.cancel()
        for one in (client, elsewhere):
            assert (await one.get("/flows/new", headers=first)).status_code == 401
            assert (await one.get(f"{API}/me", headers=first)).status_code == 401
            assert (await one.get("/flows/new", headers=second)).status_code == 401
            assert (await one.get("/flows/new", headers=other)).status_code == 200
            later = await session_of(one, "token-ann")
            assert (await one.get("/flows/new", headers=later)).status_code == 200


async def session_of(client: httpx.AsyncClient, token: str) -> dict[str, str]:
    """Signs in; the cookie, which the client forgets."""
    begun = await client.post("/sign-in", data={"token": token})
    client.cookies.clear()
    return {"Cookie": _cookies(begun)}


async def test_s19_signing_out_again_and_again_leaves_one_row(
    stores: Stores, kubernetes: FakeKubernetes
) -> None:
    async with serving(stores, kubernetes) as client:
        for _ in range(3):
            headers = await session_of(client, "token-ann")
            shown = await client.get("/flows/new", headers=headers)
            csrf = shown.text.split('data-csrf="', 1)[1].split('"', 1)[0]
            ended = await client.post("/sign-out", data={"csrf": csrf}, headers=headers)
            assert ended.status_code == 303
            assert (await client.get("/flows/new", headers=headers)).status_code == 401
    kept = await stores.api.ended_sessions()
    assert list(kept) == [hashlib.sha256(b"ann").hexdigest()]


async def test_s19_whoever_has_signed_out_is_forgotten_when_no_session_is_left(
    stores: Stores,
) -> None:
    await stores.api.end_sessions("bob", time.time(), 600)
    await stores.api.end_sessions("bob", time.time() - 60, 600)
    await stores.api.end_sessions("ann", time.time() - 100, 99)
    kept = await stores.api.ended_sessions()
    assert list(kept) == ["bob"]
    assert kept["bob"] > time.time() - 60


async def until_answered(client: httpx.AsyncClient, headers: dict[str, str], status: int) -> None:
    """Waits until the page is answered so."""
    async with asyncio.timeout(30):
        while True:
            if (await client.get("/flows/new", headers=headers)).status_code == status:
                return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("target", ["https://evil.example", "//evil.example", "/\\evil.example"])
async def test_signing_in_leads_to_no_other_site(ann: httpx.AsyncClient, target: str) -> None:
    begun = await ann.post("/sign-in", data={"token": "token-ann", "target": target})
    assert (begun.status_code, begun.headers["location"]) == (303, "/")
    shown = await ann.get("/sign-in", params={"next": target})
    assert "evil" not in shown.text


# -- files and cells


@pytest.fixture
async def flow(stores: Stores, kubernetes: FakeKubernetes) -> Flow:
    """One whose crew has left a page with a script as its profile."""
    flow = Flow(stores)
    await flow.queue()
    kubernetes.flow_uid = str(flow.flow_id)
    return flow


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ("text/html", "application/octet-stream"),
        ("image/svg+xml", "application/octet-stream"),
        ("application/xhtml+xml", "application/octet-stream"),
        ("text/csv", "text/csv"),
    ],
)
async def test_s18_a_crew_s_file_is_never_a_page_of_ours(
    ann: httpx.AsyncClient, flow: Flow, said: str, sent: str
) -> None:
    await flow.start()
    pod = await flow.claim()
    await _finish(pod, await pod.upload(SCRIPT.encode(), said))
    answer = await ann.get(url(flow, "/artefacts/data_import/profile"))
    assert answer.text == SCRIPT
    assert answer.headers["content-type"].split(";")[0] == sent
    assert answer.headers["content-disposition"].startswith('attachment; filename="')
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"


async def test_s07_what_is_shown_is_not_read_into_memory_whatever_its_size(
    ann: httpx.AsyncClient, flow: Flow
) -> None:
    await flow.start()
    pod = await flow.claim()
    await _finish(pod, await pod.upload(b"[" + b" " * MOST_BYTES + b"]"))
    answer = await ann.get(url(flow, "/quality"))
    assert answer.status_code == 413
    assert "artefacts/data_import/profile" in answer.json()["detail"]


async def _finish(pod: Any, profile: str) -> None:
    """Ends the import with this profile."""
    from tests.store.flows import ARTEFACTS, RESULTS

    files = {name: await pod.upload(b"{}") for name in ARTEFACTS[Phase.DATA_IMPORT]}
    await pod.complete(RESULTS[Phase.DATA_IMPORT], **files | {"profile": profile})


async def test_cells_are_text_wherever_they_are_shown(
    stores: Stores, kubernetes: FakeKubernetes, tmp_path: Path
) -> None:
    """Headers, values and names of a file that is written to be markup."""
    rows = [f'h{n},10.0.0.{n},"{cell.replace(chr(34), chr(34) * 2)}"' for n, cell in
            enumerate(CELLS)]  # fmt: skip
    header = f'hostname,ip,"Owner {SCRIPT}"'
    flow = Flow(stores, spec={**Flow(stores).spec, "engagement": "dc"}, name="cells")
    source = "\n".join([header, *rows, f"too,many,cells,{SCRIPT}", ""])
    await run_all_phases(flow, "cells.csv", source, tmp_path)
    kubernetes.flow_uid = str(flow.flow_id)
    kubernetes.resources = [resource(flow)]
    shown = {}
    async with serving(stores, kubernetes) as client:
        await client.post("/sign-in", data={"token": "token-ann"})
        for place in ("", "/quality", "/rejected", "/inventory", "/history", "/files",
                      "/inventory/asset?identity=hostname:h1"):  # fmt: skip
            answer = await client.get(f"/flows/{flow.flow_id}{place}")
            assert answer.status_code == 200, place
            shown[place] = answer.text
    assert not [place for place, text in shown.items() if SCRIPT in text or "<img src=x" in text]
    assert any("&lt;script&gt;alert(1)" in text for text in shown.values()), "it was shown"
