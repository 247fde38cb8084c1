"""Sign in by OpenID Connect: authorization code with PKCE, the ID token is what Kubernetes gets.

The API server has to trust the same issuer (its --authentication-config); this API trusts nobody
by itself, it only passes the token on.
"""

from __future__ import annotations

import json
import ssl
import time
from typing import Any
from urllib.parse import urlsplit

import httpx
from authlib.common.security import generate_token
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from ..caller import acting_as
from ..problems import ProblemError, unavailable
from ..sessions import Session, Sessions
from ..settings import ApiSettings
from ..visible import state_of
from .account import safe_target
from .templating import page

router = APIRouter(include_in_schema=False)
CALLBACK = "/oidc/callback"
_COOKIE = "discovery-oidc"
_STATE_SECONDS = 600
_METADATA_SECONDS = 600.0
_metadata: dict[str, tuple[float, dict[str, Any]]] = {}


@router.get("/oidc/start")
async def start(request: Request, next: str = "/") -> Response:  # noqa: A002 - the query's name
    """Sends the browser to the issuer."""
    settings = state_of(request)[1]
    _require(settings)
    known = await _discovered(settings)
    verifier, nonce = generate_token(64), generate_token(32)
    async with _client(settings, request) as client:
        address, state = client.create_authorization_url(
            known["authorization_endpoint"], code_verifier=verifier, nonce=nonce
        )
    answer = RedirectResponse(address, status_code=303)
    kept = {"state": state, "verifier": verifier, "nonce": nonce, "target": safe_target(next)}
    sessions: Sessions = request.app.state.sessions
    answer.set_cookie(
        _COOKIE,
        sessions.seal(json.dumps(kept)),
        max_age=_STATE_SECONDS,
        path=CALLBACK,
        secure=sessions.secure,
        httponly=True,
        # the way back from the issuer is another site's navigation, which Strict would not see
        samesite="lax",
    )
    return answer


@router.get(CALLBACK)
async def callback(request: Request) -> Response:
    """Takes the code, asks the issuer for the token, and begins the session."""
    settings = state_of(request)[1]
    _require(settings)
    sessions: Sessions = request.app.state.sessions
    kept = json.loads(sessions.unseal(request.cookies.get(_COOKIE, ""), _STATE_SECONDS) or "{}")
    if not kept or request.query_params.get("state") != kept["state"]:
        raise ProblemError(
            400, "invalid-request", "Sign-in is out of date", "begin again at /sign-in"
        )
    if "error" in request.query_params:
        told = request.query_params.get("error_description") or request.query_params["error"]
        raise ProblemError(403, "forbidden", "The issuer refused", told[:300])
    known = await _discovered(settings)
    try:
        async with _client(settings, request) as client:
            given = await client.fetch_token(
                known["token_endpoint"],
                code=request.query_params.get("code", ""),
                code_verifier=kept["verifier"],
            )
    except (OAuthError, httpx.HTTPError) as error:
        raise unavailable(f"the issuer gave no token: {error}") from error
    token = given.get("id_token") or ""
    async with acting_as(settings, token) as caller:
        user = await caller.user_name()
    request.state.log["user"] = user
    session = sessions.begin(token, user)
    if session.claim("nonce") != kept["nonce"]:
        raise ProblemError(400, "invalid-request", "The token is for another sign-in", "try again")
    return _arrived(request, sessions, session, kept["target"])


def _arrived(request: Request, sessions: Sessions, session: Session, target: str) -> HTMLResponse:
    """A page of our own between the issuer and the target, which then gets the Strict cookie."""
    answer = page(request, "arrived.html", None, target=safe_target(target))
    sessions.write(answer, session)
    answer.delete_cookie(_COOKIE, path=CALLBACK, secure=sessions.secure, httponly=True)
    return answer


def _require(settings: ApiSettings) -> None:
    if not settings.oidc_issuer:
        raise ProblemError(404, "not-found", "Not found", "no OpenID Connect issuer is set")


def _tls(settings: ApiSettings) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if settings.oidc_ca_file is not None:
        context.load_verify_locations(cafile=str(settings.oidc_ca_file))
    return context


def _client(settings: ApiSettings, request: Request) -> AsyncOAuth2Client:
    secret = settings.oidc_client_secret_file
    base = settings.public_url.rstrip("/") or str(request.base_url).rstrip("/")
    return AsyncOAuth2Client(
        client_id=settings.oidc_client_id,
        client_secret=secret.read_text().strip() if secret is not None else None,
        token_endpoint_auth_method="client_secret_basic" if secret is not None else "none",
        scope=settings.oidc_scopes,
        redirect_uri=f"{base}{CALLBACK}",
        code_challenge_method="S256",
        verify=_tls(settings),
        timeout=10,
        trust_env=False,
    )


async def _discovered(settings: ApiSettings) -> dict[str, Any]:
    """The issuer's metadata, remembered for some minutes. Raises ProblemError 503."""
    issuer = settings.oidc_issuer.rstrip("/")
    until, known = _metadata.get(issuer, (0.0, {}))
    if time.monotonic() < until:
        return known
    try:
        async with httpx.AsyncClient(verify=_tls(settings), timeout=10, trust_env=False) as client:
            found = await client.get(f"{issuer}/.well-known/openid-configuration")
            found.raise_for_status()
            known = dict(found.json())
    except (httpx.HTTPError, ValueError) as error:
        raise unavailable(
            f"the issuer {urlsplit(issuer).netloc} does not answer: {error}"
        ) from error
    if known.get("issuer", "").rstrip("/") != issuer:
        raise unavailable("the issuer calls itself otherwise than it is set here")
    _metadata[issuer] = (time.monotonic() + _METADATA_SECONDS, known)
    return known
