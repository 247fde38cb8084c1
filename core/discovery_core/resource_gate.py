"""The approval gate in the resource: `spec.approvalPolicy`, `spec.approval` and `spec.rerun`.

What a person may say to a flow stands together here, because the admission policy, the store and
every door (page, REST, CLI, kubectl) have to mean the same by it.
"""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, StringConstraints

from .resource_base import ResourceModel
from .resource_text import DigestText, Duration, between, explained, rule

UserName = Annotated[str, StringConstraints(min_length=1, max_length=512)]
Hint = Annotated[str, StringConstraints(max_length=2000)]
NO_TRANSFORM = "none"
_STEP = r"(unit:[A-Za-z%/]{1,16}|decimal:(comma|point)|times:[A-Za-z0-9_]{1,40})"
TRANSFORM_PATTERN = rf"^(none|{_STEP}(,{_STEP}){{0,2}})$"
Transform = Annotated[
    str,
    StringConstraints(min_length=4, max_length=90, pattern=TRANSFORM_PATTERN),
    explained(
        "write the unit of the column's values (unit:MiB), how they write decimals "
        "(decimal:comma), both with a comma between, or none"
    ),
]


class Approvers(ResourceModel):
    """Who may answer, beside holding the verb approve. A user or one of the user's groups."""

    users: list[UserName] = Field(
        default_factory=list,
        max_length=50,
        description="User names, as the API server knows them (kubectl auth whoami).",
    )
    groups: list[UserName] = Field(
        default_factory=list, max_length=50, description="Names of groups."
    )


class ApprovalPolicy(ResourceModel):
    """How the gate after field mapping is answered."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    "self.mode != 'AutoApprove' || has(self.minConfidence)",
                    "mode AutoApprove needs minConfidence, for example 0.95",
                ),
                rule(
                    "!has(self.approvers) || "
                    "(has(self.approvers.users) && self.approvers.users.size() > 0) || "
                    "(has(self.approvers.groups) && self.approvers.groups.size() > 0)",
                    "approvers names nobody: give users or groups, or leave it out",
                ),
            ]
        }
    )

    mode: Literal["Always", "AutoApprove"] = Field(
        default="Always",
        description="Always: a person approves or rejects. AutoApprove: the policy approves where "
        "every mapping has at least minConfidence and no required field is missing, else a person "
        "is asked; it has to be allowed by the installation.",
    )
    min_confidence: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="Lowest confidence, from 0 to 1, that AutoApprove accepts."
    )
    timeout: Duration = Field(
        default="72h",
        description="How long a request stays open, counted on the database's clock.",
        json_schema_extra=between("1s", "8760h", remark=" (a year)"),
    )
    on_timeout: Literal["Reject", "Approve", "Hold"] = Field(
        default="Reject",
        description="What happens at the deadline. Hold keeps the request open and reminds. "
        "Approve has to be allowed by the installation.",
    )
    approvers: Approvers | None = Field(
        default=None,
        description="Only these may answer; they need the verb approve as well.",
    )
    separate_requester: bool = Field(
        default=False,
        description="Whoever asked for the flow (requestedBy) may not answer.",
    )


class MappingEdit(ResourceModel):
    """A change to one proposed mapping."""

    column: Annotated[str, StringConstraints(min_length=1, max_length=512)] = Field(
        description="Column of the source, as the request names it."
    )
    target: Annotated[str, StringConstraints(max_length=128)] = Field(
        default="", description="Target field; empty means that the column is not mapped."
    )
    transform: Transform | None = Field(
        default=None,
        description="How the column's values are read: their unit, such as unit:MiB, how they "
        "write decimals (decimal:comma, decimal:point), several with a comma between; or none. "
        "What is left out stays as proposed, the unit only where the target does.",
    )


class Approval(ResourceModel):
    """The answer to the open approval request. The first answer wins."""

    # two people's server-side applies must replace each other's answer, never blend into one
    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-map-type": "atomic",
            "x-kubernetes-validations": [
                rule(
                    "self.decision == 'Approve' || !has(self.edits) || self.edits.size() == 0",
                    "edits go with decision Approve",
                ),
                rule(
                    "self.decision == 'AskAgain' || !has(self.hint)",
                    "hint goes with decision AskAgain",
                ),
            ],
        }
    )

    request_id: UUID = Field(description="status.approvalRequest.requestId.")
    artefact_digest: DigestText = Field(
        description="status.approvalRequest.artefactDigest: what was looked at."
    )
    decision: Literal["Approve", "Reject", "AskAgain"] = Field(
        description="Approve, Reject, or AskAgain: the mapping runs once more, with the hint."
    )
    edits: list[MappingEdit] = Field(
        default_factory=list,
        max_length=1000,
        description="Changes to the proposed mappings, applied before approval.",
    )
    hint: Hint | None = Field(
        default=None,
        description="What to do otherwise, for AskAgain. Lines such as `Column -> field` are "
        "followed to the letter.",
    )
    reason: Annotated[str, StringConstraints(max_length=2000)] = Field(
        default="", description="Why; kept in the history."
    )
    decided_by: UserName = Field(
        description="Your own user name (kubectl auth whoami); another name is refused."
    )


FromPhase = Literal[
    "data_import",
    "data_cleansing",
    "field_mapping",
    "approval",
    "asset_inventory",
    "dependency_analysis",
    "migration_strategy",
]


class Rerun(ResourceModel):
    """Another round from a phase on. Results of that phase and of later ones are superseded."""

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-map-type": "atomic"})

    id: Annotated[
        str,
        StringConstraints(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][-A-Za-z0-9_.]*$"),
        explained("write an id of letters, digits, '-', '_' and '.', such as retry-1"),
    ] = Field(description="Any text that was not used before; each id is followed once.")
    from_phase: FromPhase = Field(
        description="Where to begin. approval asks again about the same mappings, for example "
        "after a request has expired."
    )
    hint: Hint | None = Field(default=None, description="What to do otherwise, for field_mapping.")
