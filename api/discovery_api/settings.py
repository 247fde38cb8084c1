"""Settings of both APIs, from environment variables."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Self, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PREFIX = "DISCOVERY_"
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class ServerSettings(BaseSettings):
    """What every HTTPS server of the product needs."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore")

    database_url: str = Field(description="postgresql://ROLE@HOST:PORT/DB?sslmode=…")
    database_password: str | None = Field(default=None, description="password of that role")
    database_pool: int = Field(default=10, ge=1, le=200, description="most connections at once")
    log_level: str = Field(default="info", description="debug, info, warning or error")
    tls_cert_file: Path | None = Field(
        default=None, description="certificate chain (PEM); read again when it changes"
    )
    tls_key_file: Path | None = Field(default=None, description="its private key (PEM)")
    tls_reload_seconds: float = Field(
        default=30.0, gt=0, description="how often the two files are looked at"
    )
    host: str = Field(
        default="0.0.0.0",  # noqa: S104 - a pod's own address is not known before it runs
        description="address to listen on; plain HTTP is served on loopback only",
    )
    metrics_port: int | None = Field(
        default=None, ge=1, le=65535, description="port of /metrics, without TLS; default: none"
    )
    body_stall_seconds: float = Field(
        default=60.0, gt=0, description="how long the next piece of a request may take"
    )
    body_bytes_per_second: float = Field(
        default=4096, gt=0, description="slowest body that is waited for, after body_stall_seconds"
    )
    body_seconds: float = Field(
        default=60.0, gt=0, description="how long a whole request may take, streams apart"
    )
    stream_seconds: float = Field(
        default=3600.0, gt=0, description="how long a streamed file or artefact may take"
    )
    head_seconds: int = Field(
        default=15,
        ge=1,
        description="how long a connection may take for its handshake, do without a request, "
        "and take for its head",
    )
    max_connections: int = Field(
        default=2000,
        ge=10,
        description="connections at once; each may cost 140 KiB for TLS and a head",
    )
    connections_per_address: int = Field(
        default=500,
        ge=1,
        description="connections of an address (IPv6: of a /64) at once, trusted proxies apart",
    )
    trusted_proxies: str = Field(
        default="",
        description="addresses or networks, by commas, whose X-Forwarded-For names the caller",
    )
    requests_per_second: float = Field(
        default=50, ge=0, description="requests per caller, 0: no limit"
    )
    request_burst: int = Field(default=200, ge=1, description="requests per caller at once")
    failed_tokens: int = Field(
        default=100,
        ge=1,
        description="tokens of an address (IPv6: of a /64) that may fail at once",
    )
    failed_tokens_per_second: float = Field(
        default=1.0,
        gt=0,
        description="how many more may fail each second; Kubernetes is asked about no others",
    )
    stored_bytes_per_tenant: int = Field(
        default=20 * 1024**3,
        ge=1024**2,
        description="bytes of all files of a namespace: uploads and what crews make",
    )
    kubernetes_url: str | None = Field(
        default=None, description="address of the API server; default: the pod's own cluster"
    )
    kubernetes_ca_file: Path | None = Field(
        default=None, description="its CA (PEM); default: the one mounted into the pod"
    )

    @model_validator(mode="after")
    def _tokens_travel_encrypted(self) -> Self:
        files = (self.tls_cert_file, self.tls_key_file)
        if all(files):
            return self
        if any(files):
            raise ValueError("set both DISCOVERY_TLS_CERT_FILE and DISCOVERY_TLS_KEY_FILE")
        if self.host not in LOOPBACK:
            raise ValueError(
                "callers' tokens may not travel unencrypted: set DISCOVERY_TLS_CERT_FILE and "
                "DISCOVERY_TLS_KEY_FILE, or DISCOVERY_HOST=127.0.0.1 to serve this machine only"
            )
        return self


class ExecutionSettings(ServerSettings):
    """The execution API. Sizes in bytes."""

    port: int = Field(default=8443, description="port to listen on")
    kubernetes_token_file: Path = Field(
        default=SERVICE_ACCOUNT / "token", description="this component's own token"
    )
    max_artefact_bytes: int = Field(
        default=4 * 1024**3, ge=1, description="largest artefact, and largest stream of records"
    )
    max_record_bytes: int = Field(default=1024**2, ge=1024, description="longest record line")
    max_message_bytes: int = Field(
        default=16 * 1024**2, ge=1024, description="largest body of every other call"
    )
    bodies_per_pod: int = Field(
        default=8, ge=1, description="artefacts and streams of records of a crew pod at once"
    )
    identity_cache_seconds: float = Field(
        default=30.0, ge=0, le=60, description="how long a reviewed token is remembered"
    )
    llm_breaker_failures: int = Field(
        default=2,
        ge=1,
        le=100,
        description="failures in a row after which a language model's endpoint is not asked",
    )
    llm_breaker_cool_down_seconds: float = Field(
        default=60.0,
        ge=1,
        le=3600,
        description="how long it is not asked at first; doubled up to 16 times that",
    )


class ApiSettings(ServerSettings):
    """The user API."""

    port: int = Field(default=8444, description="port to listen on")
    max_message_bytes: int = Field(
        default=2 * 1024**2, ge=1024, description="largest body of a request"
    )
    max_upload_bytes: int = Field(default=1024**3, ge=1, description="largest uploaded file")
    public_url: str = Field(default="", description="where people find the pages, for links")
    cluster_id: UUID | None = Field(
        default=None,
        description="UID of kube-system; needed where several clusters share the database",
    )
    session_key_file: Path | None = Field(
        default=None,
        description="keys that seal browsers' sessions, one a line, the first one is used; "
        "default: one that ends with the process",
    )
    session_seconds: float = Field(
        default=8 * 3600, gt=0, description="longest session of a browser"
    )
    session_idle_seconds: float = Field(
        default=3600, gt=0, description="how long a session lasts without a look at a page"
    )
    streams_per_person: int = Field(
        default=20, ge=1, description="streams of events (SSE and WebSocket) per person at once"
    )
    uploads_per_tenant: int = Field(
        default=5, ge=1, description="files that are uploaded to a namespace at once"
    )
    oidc_issuer: str = Field(default="", description="sign in by OpenID Connect at this issuer")
    oidc_client_id: str = Field(default="discoveryflow", description="our name at the issuer")
    oidc_client_secret_file: Path | None = Field(
        default=None, description="our secret there; default: none, a public client with PKCE"
    )
    oidc_scopes: str = Field(default="openid email groups", description="what is asked for")
    oidc_ca_file: Path | None = Field(default=None, description="the issuer's CA (PEM)")
    allow_service_accounts: bool = Field(
        default=False, description="whether a ServiceAccount may do what needs approve or purge"
    )
    decision_wait_seconds: float = Field(
        default=5.0, ge=0, le=60, description="how long an answer waits for its decision"
    )

    @field_validator("oidc_issuer")
    @classmethod
    def _codes_travel_encrypted(cls, issuer: str) -> str:
        address = urlsplit(issuer)
        local = address.scheme == "http" and address.hostname in LOOPBACK
        if issuer and not (address.scheme == "https" and address.hostname) and not local:
            raise ValueError("an issuer's address begins with https://")
        return issuer


S = TypeVar("S", bound=ServerSettings)


def settings_from_environment(kind: type[S], *, module: str, purpose: str) -> S:
    """The settings; `--help` lists the variables. Exits with 2 where one of them is wrong."""
    lines = [
        f"  {(PREFIX + name).upper():34} {field.description}"
        f"{'' if field.is_required() or field.default is None else f' [{field.default}]'}"
        f"{' (required)' if field.is_required() else ''}"
        for name, field in kind.model_fields.items()
    ]
    argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=purpose,
        epilog="environment variables:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    try:
        return kind()
    except ValidationError as error:
        for item in error.errors(include_url=False, include_input=False):
            name = (PREFIX + "_".join(str(part) for part in item["loc"])).upper()
            prefix = f"{name}: " if item["loc"] else ""
            message = item["msg"].removeprefix("Value error, ")
            print(f"{prefix}{message}", file=sys.stderr)  # noqa: T201 - no logging yet
        raise SystemExit(2) from None
