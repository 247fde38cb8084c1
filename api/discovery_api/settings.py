"""Settings of both APIs, from environment variables."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class ServerSettings(BaseSettings):
    """What every HTTPS server of the product needs. Without certificate it speaks HTTP."""

    model_config = SettingsConfigDict(env_prefix="DISCOVERY_", extra="ignore")

    database_url: str = Field(description="postgresql:// address of the component's own role")
    database_password: str | None = None
    database_pool: int = Field(default=10, ge=1, le=200)
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    host: str = "0.0.0.0"  # noqa: S104 - a pod's own address is not known before it runs
    kubernetes_url: str | None = Field(
        default=None, description="address of the API server; default: the pod's cluster"
    )
    kubernetes_ca_file: Path | None = None


class ExecutionSettings(ServerSettings):
    """The execution API. Sizes in bytes."""

    port: int = 8443
    max_artefact_bytes: int = Field(default=4 * 1024**3, ge=1)
    max_record_bytes: int = Field(default=1024**2, ge=1024)
    identity_cache_seconds: float = Field(default=10.0, ge=0, le=60)


class ApiSettings(ServerSettings):
    """The user API."""

    port: int = 8444
    decision_wait_seconds: float = Field(default=5.0, ge=0, le=60)
