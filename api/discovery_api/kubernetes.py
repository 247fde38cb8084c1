"""Clients of the Kubernetes API: one as this pod, or one per request as the caller."""

from __future__ import annotations

import json
import logging
import os

import aiohttp
from kubernetes_asyncio.client import ApiClient, ApiException, Configuration

from .settings import SERVICE_ACCOUNT, ExecutionSettings, ServerSettings

REQUEST_TIMEOUT = 10.0
# what a call raises where the API server is away or ends the connection
UNREACHABLE = (aiohttp.ClientError, OSError, TimeoutError)

# at level debug the client logs whole answers, and a TokenReview's answer repeats the token
logging.getLogger("kubernetes_asyncio").setLevel(logging.INFO)


def _configuration(settings: ServerSettings) -> Configuration:
    configuration = Configuration()
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc")
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    host = f"[{host}]" if ":" in host else host
    configuration.host = settings.kubernetes_url or f"https://{host}:{port}"
    authority = settings.kubernetes_ca_file
    if authority is None and settings.kubernetes_url is None:
        authority = SERVICE_ACCOUNT / "ca.crt"
    configuration.ssl_ca_cert = str(authority) if authority is not None else None
    configuration.retries = 0
    return configuration


def client_as(settings: ServerSettings, token: str) -> ApiClient:
    """A client that acts with `token` and with nothing else. Close it after the request."""
    configuration = _configuration(settings)
    configuration.api_key = {"BearerToken": f"Bearer {token}"}
    return ApiClient(configuration)


def own_client(settings: ExecutionSettings) -> ApiClient:
    """A client that acts as this pod's ServiceAccount; it follows the token's rotation."""
    path = settings.kubernetes_token_file
    configuration = _configuration(settings)

    async def refresh(current: Configuration) -> None:
        current.api_key = {"BearerToken": f"Bearer {path.read_text().strip()}"}

    configuration.refresh_api_key_hook = refresh
    # the hook is only asked where a token is set already
    configuration.api_key = {"BearerToken": ""}
    return ApiClient(configuration)


def message_of(error: Exception) -> str:
    """What the API server says in its Status object, or why it says nothing."""
    if not isinstance(error, ApiException):
        return f"{type(error).__name__}: {error}"
    try:
        message = json.loads(error.body or "{}").get("message", "")
    except (ValueError, AttributeError):
        message = ""
    return str(message or error.reason or "")
