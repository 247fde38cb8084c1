"""Everything of a crew process that can be set from outside, in one place.

Limits are settings because the right ones depend on the memory that a cluster gives a crew pod;
their defaults fit a pod of 2 GiB. All come from the environment (prefix `DISCOVERY_`), which is
the only channel a Job offers.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024 * 1024

# CrewAI reads these when it is imported: no telemetry, no tracing, no look at a package index,
# and its files in a folder that ends with the process (docs.crewai.com, "Telemetry").
CREWAI_ENVIRONMENT = {
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "CREWAI_TESTING": "true",
    "CREWAI_DISABLE_VERSION_CHECK": "true",
    "OTEL_SDK_DISABLED": "true",
}


class ReaderLimits(BaseSettings):
    """How much input a crew takes before it refuses with `LimitExceeded`.

    Sizes are bytes. `DISCOVERY_MAX_ROWS=50000` and the like override a limit. An archive counts
    with all that it expands to, workbooks in it included; `max_nesting` is how deep the objects
    and lists of a JSON document may stand in each other. `max_reader_memory_bytes` is what reading
    may take, and never more than three quarters of the pod's own limit.
    `keep_credential_columns` imports passwords and keys too.
    """

    model_config = SettingsConfigDict(env_prefix="DISCOVERY_", extra="ignore")

    max_file_bytes: int = Field(default=2048 * MIB, gt=0)
    max_workbook_bytes: int = Field(default=128 * MIB, gt=0)
    max_expanded_bytes: int = Field(default=1024 * MIB, gt=0)
    max_expansion_ratio: int = Field(default=200, gt=1)
    max_archive_members: int = Field(default=500, gt=0)
    max_workbook_cells: int = Field(default=5_000_000, gt=0)
    max_document_bytes: int = Field(default=64 * MIB, gt=0)
    max_nesting: int = Field(default=50, gt=0)
    max_rows: int = Field(default=5_000_000, gt=0)
    max_columns: int = Field(default=1000, gt=0)
    max_cell_characters: int = Field(default=100_000, gt=0)
    max_rejected_rows: int = Field(default=100_000, gt=0)
    max_reader_memory_bytes: int = Field(default=1536 * MIB, ge=256 * MIB)
    keep_credential_columns: bool = False


class EngineSettings(BaseSettings):
    """What the columnar engine may use: `engine_memory` as DuckDB writes sizes ("512MB")."""

    model_config = SettingsConfigDict(env_prefix="DISCOVERY_", extra="ignore")

    engine_memory: str = "512MB"
    engine_threads: int = Field(default=2, ge=1)


class RunnerSettings(BaseSettings):
    """How a crew pod reaches its execution API.

    `execution_ca` is PEM text, `execution_ca_file` a path; without either the system's
    authorities are trusted. The token file is read again before each call because the kubelet
    rotates it. `source_root` is where volumes are mounted. `connect_patience` is how many
    seconds the runner keeps trying an API that does not answer.
    """

    model_config = SettingsConfigDict(env_prefix="DISCOVERY_", extra="ignore")

    execution_url: str
    execution_ca: str | None = None
    execution_ca_file: Path | None = None
    execution_token_file: Path = Path("/var/run/secrets/discoveryflow/token")
    workdir: Path = Path("/tmp/discovery")  # noqa: S108 - the pod's own emptyDir
    source_root: Path = Path("/var/run/discovery")
    connect_patience: float = Field(default=120.0, gt=0)
    request_timeout: float = Field(default=60.0, gt=0)


@lru_cache(maxsize=1)
def reader_limits() -> ReaderLimits:
    """The limits of this process, read from the environment once."""
    return ReaderLimits()


@lru_cache(maxsize=1)
def engine_settings() -> EngineSettings:
    """The engine's settings of this process, read from the environment once."""
    return EngineSettings()


def prepare_crewai_environment(workdir: Path) -> None:
    """Make CrewAI quiet and local; call before it is imported. A value set outside is kept."""
    for name, value in CREWAI_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    storage = workdir / "crewai"
    storage.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("CREWAI_STORAGE_DIR", str(storage.resolve()))
