"""The tables, as SQLAlchemy models.

Every tenant table carries `tenant_id` first in its primary key and in its foreign keys, so that a
row of one tenant can never point at another's and row-level security has one column to look at.
Policies, grants and functions stand in the migrations, beside the tables that they guard.
"""

from __future__ import annotations

from .artefacts import CHUNK_BYTES, Artefact, ArtefactChunk, FlowArtefact, Upload
from .base import Base
from .flows import (
    LIVE_RUN_STATES,
    Cluster,
    DiscoveryFlowRow,
    FlowEventRow,
    Leader,
    MasterFlow,
    PhaseRun,
    SchemaSupport,
    Tenant,
)
from .gate import ApprovalRequestRow, FieldMappingRow, MappingMemory
from .inventory import (
    Asset,
    AssetAlias,
    AssetDecision,
    IdentityDecision,
    Record,
    SourcePrecedence,
)
from .sessions import EndedSessions
from .upkeep import CircuitBreaker, Notification, Purge

SCHEMA_REVISION = "0014"

TENANT_TABLES = tuple(
    table.name for table in Base.metadata.sorted_tables if "tenant_id" in table.columns
)

__all__ = [
    "CHUNK_BYTES",
    "LIVE_RUN_STATES",
    "SCHEMA_REVISION",
    "TENANT_TABLES",
    "ApprovalRequestRow",
    "Artefact",
    "ArtefactChunk",
    "Asset",
    "AssetAlias",
    "AssetDecision",
    "Base",
    "CircuitBreaker",
    "Cluster",
    "DiscoveryFlowRow",
    "EndedSessions",
    "FieldMappingRow",
    "FlowArtefact",
    "FlowEventRow",
    "IdentityDecision",
    "Leader",
    "MappingMemory",
    "MasterFlow",
    "Notification",
    "PhaseRun",
    "Purge",
    "Record",
    "SchemaSupport",
    "SourcePrecedence",
    "Tenant",
    "Upload",
]
