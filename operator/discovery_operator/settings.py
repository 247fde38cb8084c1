"""Everything of the operator that can be set from outside, in one place (prefix DISCOVERY_)."""

from __future__ import annotations

import os
import socket
import ssl
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

from discovery_core.durations import parse_retention
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from .addresses import address_of
from .manifests.job import JobSettings
from .observed import Policies, Rules


def _comma_list(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _endpoints(value: tuple[str, ...]) -> tuple[str, ...]:
    for endpoint in value:
        if address_of(endpoint) is None:
            raise ValueError(f"{endpoint!r} is no address such as https://hooks.example.org/teams")
    return value


def _retention(value: str) -> str:
    parse_retention(value)
    return value


def _retention_or_none(value: str) -> str:
    return value if value == AT_ONCE else _retention(value)


AT_ONCE = "0"
Retained = Annotated[str, AfterValidator(_retention)]
RetainedOrNot = Annotated[str, AfterValidator(_retention_or_none)]
CommaList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_list)]


class OperatorSettings(BaseSettings):
    """Settings of the operator. Times are seconds.

    `crew_resources` is JSON as a container's `resources`; `admission_policy` names both the
    ValidatingAdmissionPolicy of answers and its binding, `crew_policy` those of crew pods;
    `pending_allowance_seconds` is how long an attempt may take until its pod reports for work.
    `webhook_endpoints` are the beginnings of addresses that namespaces' webhooks may have; without
    any, nothing is sent. `public_url` is where people find the pages. A leader that vanishes is
    succeeded after `leader_ttl_seconds` and at most one second more. `metrics_seconds` is how often
    the database is counted. `retention_finished_flows` and `retention_deleted_namespaces` are how
    long data stays ("90d", "72h"; empty: for ever; a deleted namespace's also "0": not at all).
    """

    model_config = SettingsConfigDict(env_prefix="DISCOVERY_", extra="ignore")

    database_url: str
    database_password: str | None = None
    database_pool_size: int = Field(default=10, ge=4, le=100)
    log_level: str = "info"

    crew_image: str
    crew_image_pull_policy: str = "IfNotPresent"
    crew_image_pull_secrets: CommaList = ()
    crew_resources: dict[str, Any] = Field(default_factory=dict)
    execution_url: str
    execution_ca_file: Path | None = None

    max_running: int = Field(default=20, ge=1)
    max_running_per_tenant: int = Field(default=5, ge=1)
    max_open_flows_per_tenant: int = Field(default=200, ge=1)
    allow_automatic_approval: bool = False
    admission_policy: str = "discoveryflow-approval"
    crew_policy: str = "discoveryflow-crews"
    pending_allowance_seconds: int = Field(default=600, ge=10)
    keep_finished_jobs_seconds: int = Field(default=3600, ge=0)

    public_url: str = ""
    webhook_endpoints: Annotated[CommaList, AfterValidator(_endpoints)] = ()
    webhook_ca_file: Path | None = None
    webhook_timeout_seconds: float = Field(default=10.0, gt=0, le=60)
    webhook_poll_seconds: float = Field(default=2.0, gt=0)

    retention_finished_flows: Retained = ""
    retention_deleted_namespaces: RetainedOrNot = "30d"
    retention_delete_resources: bool = False
    retention_poll_seconds: float = Field(default=10.0, gt=0)

    sweep_seconds: float = Field(default=5.0, gt=0)
    resync_seconds: float = Field(default=60.0, gt=0)
    metrics_seconds: float = Field(default=15.0, gt=0)
    leader_ttl_seconds: float = Field(default=3.0, gt=0)
    workers: int = Field(default=6, ge=1)
    request_timeout_seconds: float = Field(default=15.0, gt=0)

    health_host: str = "0.0.0.0"  # noqa: S104 - the kubelet probes the pod's address
    health_port: int = Field(default=8080, ge=0, le=65535)
    pod_namespace: str = ""
    pod_name: str = ""

    def holder(self) -> str:
        """A name for this process that no other process ever has."""
        return f"{self.pod_name or socket.gethostname()}/{os.getpid()}/{uuid4().hex[:8]}"

    def rules(self) -> Rules:
        """The part that decisions depend on."""
        return Rules(
            launch_timeout=float(self.pending_allowance_seconds),
            allow_automatic_approval=self.allow_automatic_approval,
            most_open_flows=self.max_open_flows_per_tenant,
        )

    def policies(self) -> Policies:
        """The admission policies that have to be in force."""
        return Policies(answers=self.admission_policy, crews=self.crew_policy)

    def kept(self) -> tuple[timedelta | None, timedelta | None]:
        """How long finished flows and deleted namespaces keep their data; None: for ever."""
        flows = parse_retention(self.retention_finished_flows)
        kept = self.retention_deleted_namespaces
        namespaces = 0.0 if kept == AT_ONCE else parse_retention(kept)
        return (
            None if flows is None else timedelta(seconds=flows),
            None if namespaces is None else timedelta(seconds=namespaces),
        )

    def webhook_tls(self) -> ssl.SSLContext | None:
        """Whom to trust beside the public authorities. Raises OSError and ssl.SSLError."""
        if self.webhook_ca_file is None:
            return None
        context = ssl.create_default_context()
        context.load_verify_locations(cafile=str(self.webhook_ca_file))
        return context

    def limits(self) -> tuple[int, int]:
        """Most attempts at a time: in all, and per tenant."""
        return self.max_running, self.max_running_per_tenant

    def job_settings(self) -> JobSettings:
        """The part that crew pods depend on. Raises OSError where the CA cannot be read."""
        ca = self.execution_ca_file.read_text() if self.execution_ca_file is not None else ""
        return JobSettings(
            image=self.crew_image,
            execution_url=self.execution_url,
            execution_ca=ca,
            image_pull_policy=self.crew_image_pull_policy,
            image_pull_secrets=self.crew_image_pull_secrets,
            resources=self.crew_resources,
            pending_allowance=self.pending_allowance_seconds,
            keep_finished=self.keep_finished_jobs_seconds,
        )
