"""Sign in by OpenID Connect: authorization code with PKCE, the ID token is what Kubernetes gets.

The API server has to trust the same issuer (its --authentication-config); this API trusts nobody
by itself, it only passes the token on.
"""

from __future__ import annotations

import json
import ssl
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
from authlib.common.security import generate_token
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from discovery_core.errors import ProblemError
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from ..caller import acting_as
from ..context import settings_of
from ..problems import ForbiddenError, NotVisibleError, UnavailableError, UnreadableRequestError
from ..sessions import Session, Sessions, claims_of
from ..settings import ApiSettings
from .account import safe_target
from .templating import page

router = APIRouter(include_in_schema=False)
CALLBACK = "/oidc/callback"
_COOKIE = "discovery-oidc"
_STATE_SECONDS = 600
_METADATA_SECONDS = 600.0


@router.get("/oidc/start")
async def start(request: Request, next: str = "/") -> Response:  # noqa: A002 - the query's name
    """Sends the browser to the issuer."""
    settings = settings_of(request)
    _require(settings)
    known = await _discovered(request)
    verifier, nonce = generate_token(64), generate_token(32)
    async with _client(settings, request) as client:
        address, state = client.create_authorization_url(
            known.authorization, code_verifier=verifier, nonce=nonce
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
    settings = settings_of(request)
    _require(settings)
    sessions: Sessions = request.app.state.sessions
    kept = json.loads(sessions.unseal(request.cookies.get(_COOKIE, ""), _STATE_SECONDS) or "{}")
    if "state" not in kept or request.query_params.get("state") != kept["state"]:
        raise _over("the sign-in was begun elsewhere or more than ten minutes ago")
    if "error" in request.query_params:
        told = request.query_params.get("error_description") or request.query_params["error"]
        raise ForbiddenError(told[:300], title="The issuer refused")
    token = await _token(request, settings, kept["verifier"])
    if claims_of(token).get("nonce") != kept["nonce"]:
        raise _over("the issuer's token is for another sign-in")
    try:
        async with acting_as(settings, token) as caller:
            user = await caller.user_name()
    except ProblemError as refused:
        if refused.status == 401:
            raise _not_trusted(settings, token) from refused
        raise
    request.state.log["user"] = user
    return _arrived(request, sessions, sessions.begin(token, user), kept["target"])


async def _token(request: Request, settings: ApiSettings, verifier: str) -> str:
    """The ID token for the code. Raises ProblemError 400 for a code that is not ours, or 503."""
    known = await _discovered(request)
    try:
        async with _client(settings, request) as client:
            given = await client.fetch_token(
                known.token, code=request.query_params.get("code", ""), code_verifier=verifier
            )
    except OAuthError as error:
        raise _over(f"the issuer gave no token: {error}"[:300]) from error
    except (httpx.HTTPError, ValueError) as error:
        raise UnavailableError(f"the issuer gave no token: {error}") from error
    token = given.get("id_token")
    if not isinstance(token, str) or not token:
        raise UnavailableError(
            "the issuer gave no ID token; is openid among the scopes (api.oidc)?"
        )
    return token


def _over(detail: str) -> ProblemError:
    return UnreadableRequestError(
        f"{detail}; begin again at /sign-in", title="The sign-in is not valid"
    )


class NotTrustedError(ProblemError):
    """A sign-in that the issuer accepts and the API server does not."""

    status = 403
    kind = "not-trusted"
    title = "Kubernetes does not accept this sign-in"


def _not_trusted(settings: ApiSettings, token: str) -> ProblemError:
    """What an administrator has to look at, with names of the token's claims and no values."""
    claims = claims_of(token)
    named = ", ".join(sorted(claims)) or "none"
    return NotTrustedError(
        f"You have signed in at {settings.oidc_issuer}, but the Kubernetes API server does not "
        "accept the ID token. Whoever runs the cluster can mend it; until then, sign in with a "
        "token of kubectl create token NAME.",
        problems=[
            f"Its --authentication-config has to name exactly the issuer {claims.get('iss')}.",
            f"There it has to have the audience {settings.oidc_client_id}.",
            "There it has to have the authority that signed the issuer's certificate.",
            f"It maps claims of the token, which has {named}; others need more api.oidc.scopes.",
            "It has to reach the issuer. Its log says why it refuses a token.",
        ],
    )


def _arrived(request: Request, sessions: Sessions, session: Session, target: str) -> HTMLResponse:
    """A page of our own between the issuer and the target, which then gets the Strict cookie."""
    answer = page(request, "arrived.html", None, target=safe_target(target), title="Signed in")
    sessions.write(answer, session)
    answer.delete_cookie(_COOKIE, path=CALLBACK, secure=sessions.secure, httponly=True)
    return answer


def _require(settings: ApiSettings) -> None:
    if not settings.oidc_issuer:
        raise NotVisibleError("no OpenID Connect issuer is set")


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


@dataclass(frozen=True)
class _Issuer:
    """Where the issuer gives codes, and tokens for them; asked again after `until`."""

    authorization: str
    token: str
    until: float


async def _discovered(request: Request) -> _Issuer:
    """The issuer's metadata, remembered for some minutes. Raises ProblemError 503."""
    known: _Issuer | None = getattr(request.app.state, "issuer", None)
    if known is not None and time.monotonic() < known.until:
        return known
    settings = settings_of(request)
    issuer = settings.oidc_issuer.rstrip("/")
    try:
        async with httpx.AsyncClient(verify=_tls(settings), timeout=10, trust_env=False) as client:
            found = await client.get(f"{issuer}/.well-known/openid-configuration")
            found.raise_for_status()
            told = dict(found.json())
    except (httpx.HTTPError, TypeError, ValueError) as error:
        raise UnavailableError(
            f"the issuer {urlsplit(issuer).netloc} does not answer: {error}"
        ) from error
    if str(told.get("issuer", "")).rstrip("/") != issuer:
        raise UnavailableError("the issuer calls itself otherwise than it is set here")
    try:
        known = _Issuer(
            str(told["authorization_endpoint"]),
            str(told["token_endpoint"]),
            time.monotonic() + _METADATA_SECONDS,
        )
    except KeyError as missing:
        raise UnavailableError(f"the issuer's metadata has no {missing}") from missing
    request.app.state.issuer = known
    return known
