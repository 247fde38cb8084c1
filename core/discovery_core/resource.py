"""The DiscoveryFlow resource: pydantic models that are the source of the CRD.

`make generate` turns them into `crds/`; every field's description there is written here, and the
CEL rules stand beside the fields that they guard. Fields are only ever added within a version.
All lists, maps and strings are bounded, because the API server refuses CEL rules whose cost it
cannot bound and because a resource must stay small.
"""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, StringConstraints

from .durations import DURATION_PATTERN
from .resource_base import ConfigMapKey, ResourceModel
from .resource_gate import Approval, ApprovalPolicy, Rerun
from .resource_llm import LLM
from .resource_text import (
    DigestText,
    Duration,
    ObjectName,
    Retention,
    between,
    explained,
    rule,
)

GROUP = "discoveryflow.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "DiscoveryFlow"
PLURAL = "discoveryflows"
SINGULAR = "discoveryflow"


class VolumeFile(ResourceModel):
    """A file on a PersistentVolumeClaim in the flow's namespace."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    "!self.path.startsWith('/') && "
                    "!self.path.split('/').exists(part, part == '..' || part == '.' || part == '')",
                    "path is relative to the volume's root and contains no empty, '.' or '..' "
                    "part: write for example exports/servers.xlsx",
                )
            ]
        }
    )

    claim_name: ObjectName = Field(description="Name of the PersistentVolumeClaim.")
    path: Annotated[str, StringConstraints(min_length=1, max_length=512)] = Field(
        description="File below the root of the volume, for example exports/servers.xlsx."
    )


class UploadedFile(ResourceModel):
    """A file that was uploaded through the user API into this namespace."""

    digest: DigestText = Field(description="What the upload answered: sha256: and 64 digits.")
    name: Annotated[str, StringConstraints(min_length=1, max_length=253)] = Field(
        description="Name of the file, for example servers.xlsx."
    )


class Source(ResourceModel):
    """The file to read. Exactly one of configMap, persistentVolumeClaim and artefact."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    "[has(self.configMap), has(self.persistentVolumeClaim), has(self.artefact)]"
                    ".filter(given, given).size() == 1",
                    "give exactly one source: configMap, persistentVolumeClaim or artefact",
                )
            ]
        }
    )

    config_map: ConfigMapKey | None = Field(
        default=None, description="Read the file from a key of a ConfigMap (up to 1 MiB)."
    )
    persistent_volume_claim: VolumeFile | None = Field(
        default=None, description="Read the file from a PersistentVolumeClaim."
    )
    artefact: UploadedFile | None = Field(
        default=None, description="Read a file that was uploaded through the user API."
    )
    format: Literal["auto", "csv", "xlsx", "json", "ndjson", "rvtools", "zip"] = Field(
        default="auto",
        description="Format of the file; auto looks at its content. csv covers every delimiter, "
        "rvtools is that tool's workbook or a ZIP archive of its CSV files, zip any archive of "
        "tables.",
    )


class TargetSchemaSource(ResourceModel):
    """Where the target fields come from, when not the built-in 64."""

    config_map: ConfigMapKey = Field(
        description="A ConfigMap key holding CSV (field,description) or YAML."
    )


class Retries(ResourceModel):
    """How transient failures are tried again. Permanent ones are not."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    "[self.initialDelay, self.maxDelay].exists(delay, delay.size() < 2 || "
                    f"!delay.matches(r'{DURATION_PATTERN}')) || "
                    "duration(self.initialDelay) <= duration(self.maxDelay)",
                    "initialDelay has to be at most maxDelay",
                )
            ]
        }
    )

    max_attempts: int = Field(
        default=3, ge=1, le=20, description="Attempts of a phase per round, the first included."
    )
    initial_delay: Duration = Field(
        default="5s",
        description="Delay before the second attempt; it doubles from there.",
        json_schema_extra=between("1ms", "24h"),
    )
    max_delay: Duration = Field(
        default="5m",
        description="Upper limit of the delay.",
        json_schema_extra=between("1ms", "24h"),
    )


class DiscoveryFlowSpec(ResourceModel):
    """What to import, how to judge it, and who has to agree."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    "has(self.engagement) == has(oldSelf.engagement) && "
                    "(!has(self.engagement) || self.engagement == oldSelf.engagement)",
                    "engagement cannot be changed; create another DiscoveryFlow",
                ),
                rule(
                    "has(self.requestedBy) == has(oldSelf.requestedBy) && "
                    "(!has(self.requestedBy) || self.requestedBy == oldSelf.requestedBy)",
                    "requestedBy cannot be changed",
                ),
                rule(
                    "self.source == oldSelf.source",
                    "source cannot be changed; create another DiscoveryFlow",
                ),
                rule(
                    "has(self.targetSchema) == has(oldSelf.targetSchema) && "
                    "(!has(self.targetSchema) || self.targetSchema == oldSelf.targetSchema)",
                    "targetSchema cannot be changed; create another DiscoveryFlow",
                ),
                rule(
                    "oldSelf.state != 'Cancel' || self.state == 'Cancel'",
                    "state Cancel is final; create another DiscoveryFlow",
                ),
                rule(
                    "!self.approvalPolicy.separateRequester || has(self.requestedBy)",
                    "separateRequester needs requestedBy: your own user name "
                    "(kubectl auth whoami), on creation",
                ),
                rule(
                    "!has(self.rerun) || !has(oldSelf.rerun) || self.rerun.id != oldSelf.rerun.id "
                    "|| self.rerun == oldSelf.rerun",
                    "this rerun has been asked for already; write another id",
                ),
                rule(
                    "!has(self.approval) || !has(oldSelf.approval) || "
                    "self.approval.requestId != oldSelf.approval.requestId || "
                    "self.approval == oldSelf.approval",
                    "this request has been answered already; the first answer counts",
                ),
            ]
        }
    )

    engagement: (
        Annotated[
            str,
            StringConstraints(
                min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
            ),
            explained(
                "write a short name: letters, digits, '-', '_' and '.', such as dc-east-exit"
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="Groups flows that feed one inventory, for example dc-east-exit. Immutable.",
    )
    requested_by: Annotated[str, StringConstraints(min_length=1, max_length=512)] | None = Field(
        default=None,
        description="Who asked for the flow; has to be the user who creates it. Immutable.",
    )
    source: Source = Field(description="The file to read. Immutable.")
    target_schema: TargetSchemaSource | None = Field(
        default=None,
        description="Target fields of your own instead of the built-in 64. Immutable.",
    )
    llm: LLM = Field(
        default_factory=LLM, description="Who judges. Applies from the next attempt on."
    )
    approval_policy: ApprovalPolicy = Field(
        default_factory=ApprovalPolicy,
        description="How the gate is answered; frozen when the request opens.",
    )
    retries: Retries = Field(
        default_factory=Retries,
        description="How transient failures are tried again. Applies from the next attempt on.",
    )
    phase_timeout: Duration = Field(
        default="15m",
        description="Time limit of one attempt, from the moment its pod reports for work.",
        json_schema_extra=between("1s", "24h"),
    )
    state: Literal["Run", "Suspend", "Cancel"] = Field(
        default="Run",
        description="Suspend stops the flow until Run is set again; Cancel is final. Leave it "
        "out of Git.",
    )
    retention: Retention | None = Field(
        default=None,
        description="How long the data stays after the flow's end, such as 90d or 72h, instead of "
        "the installation's time. Setting or changing it needs the verb purge.",
    )
    rerun: Rerun | None = Field(
        default=None, description="Asks for another round. Leave it out of Git."
    )
    approval: Approval | None = Field(
        default=None, description="The answer to status.approvalRequest."
    )


class ApprovalRequest(ResourceModel):
    """The open question to a person. An answer names its requestId and artefactDigest."""

    request_id: UUID = Field(description="Names the request; goes into spec.approval.requestId.")
    artefact_digest: DigestText = Field(
        description="Digest of the mappings in question; goes into spec.approval.artefactDigest."
    )
    mappings: int = Field(ge=0, le=100000, description="How many columns are to be judged.")
    expires_at: Annotated[str, StringConstraints(max_length=40)] = Field(
        description="When the policy's onTimeout applies.",
        json_schema_extra={"format": "date-time"},
    )


class Condition(ResourceModel):
    """A condition in the sense of the Kubernetes API conventions."""

    type: Annotated[str, StringConstraints(min_length=1, max_length=63)] = Field(
        description="Name of the condition."
    )
    status: Literal["True", "False", "Unknown"] = Field(description="True, False or Unknown.")
    observed_generation: int = Field(ge=0, description="Generation of the spec that was observed.")
    last_transition_time: Annotated[str, StringConstraints(max_length=40)] = Field(
        description="When the status last changed.", json_schema_extra={"format": "date-time"}
    )
    reason: Annotated[
        str,
        StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*)$"),
    ] = Field(description="Machine-readable reason.")
    message: Annotated[str, StringConstraints(max_length=4096)] = Field(
        default="", description="What this means, for people."
    )


class DiscoveryFlowStatus(ResourceModel):
    """Derived from the database; counts, never samples."""

    observed_generation: int | None = Field(
        default=None, ge=0, description="Generation of the spec that was observed."
    )
    state: (
        Literal[
            "Pending",
            "Queued",
            "Running",
            "AwaitingApproval",
            "Suspended",
            "Waiting",
            "Succeeded",
            "Failed",
            "Rejected",
            "Cancelled",
        ]
        | None
    ) = Field(default=None, description="State of the flow.")
    phase: Annotated[str, StringConstraints(max_length=63)] | None = Field(
        default=None, description="The phase the flow is in."
    )
    progress: Annotated[str, StringConstraints(max_length=16)] | None = Field(
        default=None, description="Completed phases of all phases."
    )
    round: int | None = Field(default=None, ge=0, description="Run through the phases.")
    attempt: int | None = Field(default=None, ge=0, description="Attempt of the phase.")
    message: Annotated[str, StringConstraints(max_length=4096)] | None = Field(
        default=None, description="What is going on, for people."
    )
    planner: Annotated[str, StringConstraints(max_length=128)] | None = Field(
        default=None, description="What judged in the latest finished phase."
    )
    records_imported: int | None = Field(default=None, ge=0, description="Rows read.")
    records_rejected: int | None = Field(default=None, ge=0, description="Rows refused.")
    assets: int | None = Field(default=None, ge=0, description="Assets in the inventory.")
    row_version: int | None = Field(
        default=None, ge=0, description="Version of the database row that this status shows."
    )
    approval_request: ApprovalRequest | None = Field(
        default=None, description="The open question to a person, if there is one."
    )
    conditions: list[Condition] = Field(
        default_factory=list,
        max_length=16,
        description="Ready, Reconciling, Stalled (as kstatus reads them), AwaitingApproval, "
        "Succeeded.",
        json_schema_extra={
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["type"],
        },
    )


class DiscoveryFlow(ResourceModel):
    """Turns one asset export into a reviewed inventory, one crew at a time."""

    spec: DiscoveryFlowSpec = Field(
        description="What to import, how to judge it, and who has to agree."
    )
    status: DiscoveryFlowStatus | None = Field(
        default=None, description="Derived from the database; counts, never samples."
    )
