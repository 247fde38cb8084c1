"""What an issuer may get wrong. A real one is tried in tests/ui and tests/cluster."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from discovery_api.settings import ApiSettings
from pydantic import ValidationError

from tests.api.desk import serving
from tests.api.kubernetes import FakeKubernetes
from tests.postgres import Stores


@dataclass
class FakeIssuer:
    """Says what it is told to say: `metadata` beside the truth, `token` as the ID token."""

    metadata: dict[str, Any] = field(default_factory=dict)
    token: object = None
    status: int = 200
    asked: list[dict[str, str]] = field(default_factory=list)

    async def start(self) -> TestServer:
        """Serves on loopback."""
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._describe)
        app.router.add_post("/token", self._give)
        server = TestServer(app)
        await server.start_server()
        self.address = str(server.make_url("")).rstrip("/")
        return server

    async def _describe(self, request: web.Request) -> web.Response:
        del request
        told = {
            "issuer": self.address,
            "authorization_endpoint": f"{self.address}/authorize",
            "token_endpoint": f"{self.address}/token",
        } | self.metadata
        return web.json_response({key: value for key, value in told.items() if value is not None})

    async def _give(self, request: web.Request) -> web.Response:
        self.asked.append({key: str(value) for key, value in (await request.post()).items()})
        given = {"access_token": "a", "token_type": "Bearer", "id_token": self.token}
        return web.json_response(given, status=self.status)


@pytest.fixture
async def issuer() -> AsyncIterator[FakeIssuer]:
    fake = FakeIssuer()
    server = await fake.start()
    yield fake
    await server.close()


@pytest.fixture
async def client(stores: Stores, issuer: FakeIssuer) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(
        stores, FakeKubernetes(identify=lambda token: "ann"), oidc_issuer=issuer.address
    ) as client:
        yield client


def jwt(**claims: object) -> str:
    """A token that nobody has signed; Kubernetes' stand-in takes it."""
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{body}.x"


async def begun(client: httpx.AsyncClient, target: str = "/") -> dict[str, str]:
    """What the issuer is asked, once somebody has begun."""
    started = await client.get("/oidc/start", params={"next": target})
    assert started.status_code == 303, started.text
    query = parse_qs(urlsplit(started.headers["location"]).query)
    return {key: value[0] for key, value in query.items()}


async def back(client: httpx.AsyncClient, **query: str) -> httpx.Response:
    """The way back from the issuer."""
    return await client.get("/oidc/callback", params={"code": "c"} | query)


async def test_the_code_is_exchanged_with_the_verifier_of_the_challenge(
    client: httpx.AsyncClient, issuer: FakeIssuer
) -> None:
    asked = await begun(client, "//evil.example/")
    issuer.token = jwt(nonce=asked["nonce"])
    done = await back(client, state=asked["state"])
    assert done.status_code == 200
    assert 'href="/"' in done.text
    assert "evil" not in done.text
    (exchange,) = issuer.asked
    assert exchange["code"] == "c"
    assert exchange["redirect_uri"] == asked["redirect_uri"] == "http://api/oidc/callback"
    assert len(exchange["code_verifier"]) >= 43
    # what was kept for the way back is of no more use
    assert (await back(client, state=asked["state"])).status_code == 400


@pytest.mark.parametrize("token", [None, "", 7])
async def test_an_answer_without_an_id_token_is_explained(
    client: httpx.AsyncClient, issuer: FakeIssuer, token: object
) -> None:
    asked = await begun(client)
    issuer.token = token
    refused = await back(client, state=asked["state"])
    assert refused.status_code == 503
    assert "is openid among the scopes" in refused.json()["detail"]
    assert "discovery.0" not in client.cookies


@pytest.mark.parametrize("token", ["opaque", "a.b.c", jwt(), jwt(nonce=None), jwt(nonce="other")])
async def test_a_token_without_our_nonce_begins_no_session(
    client: httpx.AsyncClient, issuer: FakeIssuer, token: str
) -> None:
    asked = await begun(client)
    issuer.token = token
    refused = await back(client, state=asked["state"])
    assert refused.status_code == 400
    assert "for another sign-in" in refused.json()["detail"]
    assert "discovery.0" not in client.cookies


async def test_an_issuer_that_fails_is_named(client: httpx.AsyncClient, issuer: FakeIssuer) -> None:
    asked = await begun(client)
    issuer.status = 502
    refused = await back(client, state=asked["state"])
    assert refused.status_code == 503
    assert "the issuer gave no token" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"issuer": "https://elsewhere.example"}, "calls itself otherwise"),
        ({"token_endpoint": None}, "no 'token_endpoint'"),
        ({"authorization_endpoint": None}, "no 'authorization_endpoint'"),
    ],
)
async def test_metadata_that_is_of_no_use_is_explained(
    client: httpx.AsyncClient, issuer: FakeIssuer, metadata: dict[str, Any], says: str
) -> None:
    issuer.metadata = metadata
    refused = await client.get("/oidc/start")
    assert refused.status_code == 503
    assert says in refused.json()["detail"]
    # and the next one asks again
    issuer.metadata = {}
    assert (await client.get("/oidc/start")).status_code == 303


async def test_without_a_beginning_there_is_no_end(
    client: httpx.AsyncClient, issuer: FakeIssuer
) -> None:
    assert (await back(client, state="made-up")).status_code == 400
    assert (await back(client)).status_code == 400
    assert issuer.asked == []


async def test_another_sign_in_s_answer_is_not_taken(
    client: httpx.AsyncClient, issuer: FakeIssuer
) -> None:
    """Somebody leads a browser to our callback with a code of their own."""
    asked = await begun(client)
    issuer.token = jwt(nonce=asked["nonce"])
    assert (await back(client, state="theirs")).status_code == 400
    assert (await back(client)).status_code == 400
    assert issuer.asked == []
    assert (await back(client, state=asked["state"])).status_code == 200


async def test_a_session_s_cookie_does_not_pass_for_a_beginning(
    client: httpx.AsyncClient, issuer: FakeIssuer
) -> None:
    asked = await begun(client)
    issuer.token = jwt(nonce=asked["nonce"])
    await back(client, state=asked["state"])
    session = client.cookies["discovery.0"]
    client.cookies.set("discovery-oidc", session, domain="api.local", path="/oidc/callback")
    assert (await back(client, state=asked["state"])).status_code == 400


@pytest.mark.parametrize("issuer", ["http://issuer.example", "issuer.example", "https://"])
def test_codes_and_tokens_travel_encrypted(issuer: str) -> None:
    with pytest.raises(ValidationError, match="begins with https://"):
        ApiSettings(
            host="127.0.0.1",
            database_url="postgresql://api@localhost/discovery",
            oidc_issuer=issuer,
        )
