"""What crew pods and the execution API say to each other.

One protocol serves a Job made for one attempt today and worker Jobs that lease attempts later:
`claim` names the attempt and returns its fence, and every later call carries that fence. Fields
are only ever added, because a crew image may be older than the API it talks to.

Routes (all below `/execution/v1`, `Authorization: Bearer <projected ServiceAccount token>`):

| call | body → answer |
|---|---|
| `POST /claim` | `ClaimRequest` → `Claim` |
| `POST /heartbeat` | `Heartbeat` → `HeartbeatAnswer` |
| `POST /inputs` | `PinInputs` → `PinnedInputs` |
| `PUT /artefacts?fence=N&mediaType=T` | byte stream → `ArtefactReference` |
| `GET /artefacts/{digest}?fence=N` | → byte stream |
| `PUT /records?fence=N` | NDJSON stream of `InventoryRecord` → `RecordsAnswer` |
| `POST /complete` | `Complete` → `Accepted` |
| `POST /fail` | `Fail` → `Accepted` |

Errors are RFC 9457 problems. 401: the token is not accepted; 403: the pod is nobody's attempt;
409 `type: …/superseded`: another attempt or pod has taken over, stop and exit 0; 425
`…/not-launched`: the operator has not recorded the Job yet, try again in a moment; 503: try
again with backoff.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from .errors import ErrorCode
from .phases import Phase

LONGEST_RETRY_AFTER = 3600.0
TOKEN_AUDIENCE = "discoveryflow-execution"  # noqa: S105 - an audience, not a secret

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


class WireModel(BaseModel):
    """camelCase on the wire, unknown fields ignored (an older reader meets a newer writer)."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


class ArtefactReference(WireModel):
    """An immutable blob, named by the SHA-256 of its bytes. `size` is in bytes."""

    digest: Digest
    size: int
    media_type: str = "application/octet-stream"


class ClaimRequest(WireModel):
    """Sent once by a pod before it imports the crew; the token says who asks."""

    runner_version: str = ""


class LLMBudget(WireModel):
    """What is left for a language model in this flow; prices are per million tokens.

    With `on_budget` Builtin a crew goes on with the built-in planner, with Stall it fails.
    """

    tokens: int | None = None
    cost: float | None = None
    input_token_price: float = 0.0
    output_token_price: float = 0.0
    on_budget: Literal["Builtin", "Stall"] = "Builtin"


class LLMSettings(WireModel):
    """Which model judges. The API key comes into the pod as DISCOVERY_LLM_API_KEY.

    `note` says why it is another one than the flow asks for.
    """

    provider: Literal["builtin", "openai", "openaiCompatible"] = "builtin"
    base_url: str | None = None
    model: str | None = None
    timeout_seconds: float = 60.0
    budget: LLMBudget | None = None
    note: str = ""


class ApprovedMapping(WireModel):
    """What a person of this tenant decided for a header before; `target` None is "not mapped"."""

    header: str
    target: str | None
    approved_by: str
    approved_at: datetime


class Claim(WireModel):
    """Everything an attempt needs to start.

    `inputs` are artefacts of earlier phases by name (`records`, `profile`, and for
    asset_inventory the approved `mappings`), plus `source` and `targetSchema` once they are
    pinned. Before that, the first import attempt reads `source_path` (and `target_schema_path`)
    from its mounted volume, or takes the `uploaded` file, and pins the bytes. `attempt` counts from
    1; times are UTC.
    """

    flow_id: UUID
    flow_name: str
    tenant_id: UUID | None = None
    namespace: str
    engagement: str | None = None
    round: int
    phase: Phase
    attempt: int
    fence: int
    deadline: datetime
    heartbeat_seconds: float = 15.0
    source_name: str
    source_format: str = "auto"
    source_path: str | None = None
    uploaded: ArtefactReference | None = None
    target_schema_path: str | None = None
    inputs: dict[str, ArtefactReference] = Field(default_factory=dict)
    llm: LLMSettings = Field(default_factory=LLMSettings)
    mapping_history: list[ApprovedMapping] = Field(default_factory=list)
    hint: str | None = None


class Heartbeat(WireModel):
    """Proof of life with progress for people. `done` and `total` are rows where known."""

    fence: int
    done: int | None = None
    total: int | None = None
    message: str = ""


class HeartbeatAnswer(WireModel):
    """The deadline as the database sees it. A stopped attempt gets 409 instead."""

    deadline: datetime


class PinInputs(WireModel):
    """The source's and the target schema's bytes, stored; the first to pin wins."""

    fence: int
    source: Digest
    target_schema: Digest | None = None


class PinnedInputs(WireModel):
    """What every attempt of this flow reads from now on."""

    source: Digest
    target_schema: Digest | None = None


class MappingCandidate(WireModel):
    """A possible target with its score between 0 and 1."""

    target: str
    score: float = Field(ge=0, le=1)


class FieldMapping(WireModel):
    """One source column's proposal, as shown to the approver.

    `target` None means "no match": the column is kept but not mapped. `role` `alternate` marks a
    further variant of a field that another column maps as `primary` (Memory MB beside Memory
    GB). `samples` are up to five distinct values, each cut to 200 characters.
    """

    column: str
    target: str | None
    role: Literal["primary", "alternate"] = "primary"
    confidence: float = Field(ge=0, le=1)
    reason: str
    samples: list[str] = Field(default_factory=list)
    candidates: list[MappingCandidate] = Field(default_factory=list)
    transform: str | None = None
    decided_by: Literal["agent", "engine"] = "engine"


class ColumnProfile(WireModel):
    """Facts about one column over all rows: fill and distinct are counts of rows.

    `outliers` counts numbers far outside the usual (three interquartile ranges beyond the
    quartiles), `multi_values` cells that hold several values.
    """

    name: str
    type: str
    filled: int
    missing: int
    distinct: int
    samples: list[str] = Field(default_factory=list)
    unit: str | None = None
    minimum: str | None = None
    maximum: str | None = None
    patterns: dict[str, int] = Field(default_factory=dict)
    outliers: int = 0
    multi_values: int = 0
    findings: list[str] = Field(default_factory=list)


class RejectedRows(WireModel):
    """How many rows were not imported, by problem; the rows are in the artefact `rejected`."""

    count: int = 0
    by_problem: dict[str, int] = Field(default_factory=dict)


class QualityPart(WireModel):
    """One part of the quality score: its own score (0 to 1), its weight, and what was counted."""

    name: str
    score: float
    weight: float
    explanation: str


class ImportResult(WireModel):
    """Result of data_import. Artefacts: records (Parquet), profile (JSON), rejected (CSV)."""

    kind: Literal["data_import"] = "data_import"
    rows_imported: int
    rows_rejected: int
    columns: list[str]
    format: str
    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None
    quality_score: float | None = None
    quality: list[QualityPart] = Field(default_factory=list)
    findings: list[str] = Field(default_factory=list)
    summary: str = ""


class RuleApplication(WireModel):
    """One cleansing rule as applied by code to all rows of a column."""

    rule: str
    column: str
    rows_changed: int
    before: str | None = None
    after: str | None = None
    reason: str = ""


class CleansingResult(WireModel):
    """Result of data_cleansing. Artefacts: records (Parquet), profile (JSON), plan (JSON)."""

    kind: Literal["data_cleansing"] = "data_cleansing"
    rows: int
    rules: list[RuleApplication]
    summary: str = ""


class TargetDescription(WireModel):
    """A target field as a person choosing it needs to know it.

    `transforms` are the units that a column's values may be said to be in, such as unit:MiB.
    """

    name: str
    type: str = "string"
    unit: str | None = None
    description: str = ""
    required: bool = False
    allowed_values: list[str] = Field(default_factory=list)
    transforms: list[str] = Field(default_factory=list)


class MappingResult(WireModel):
    """Result of field_mapping: one proposal per column, in the order of the columns.

    `targets` are all legal target names, `fields` what they mean. The store makes the artefact
    `mappings` (a JSON list of `FieldMapping`) from it, so that what is approved is what was shown.
    """

    kind: Literal["field_mapping"] = "field_mapping"
    mappings: list[FieldMapping]
    targets: list[str]
    fields: list[TargetDescription] = Field(default_factory=list)
    required_unmapped: list[str] = Field(default_factory=list)
    summary: str = ""


class InventoryResult(WireModel):
    """Result of asset_inventory. The rows themselves went through `PUT /records`.

    Artefacts: inventory (Parquet, one row per asset of this flow, for the phases after it), plan
    (JSON), problems (CSV).
    """

    kind: Literal["asset_inventory"] = "asset_inventory"
    records: int
    assets: int
    duplicates: int
    by_type: dict[str, int] = Field(default_factory=dict)
    conversion_problems: int = 0
    findings: list[str] = Field(default_factory=list)
    summary: str = ""


class DependencyResult(WireModel):
    """Result of dependency_analysis. Artefacts: dependencies (Parquet), groups (JSON), plan.

    `dependencies` counts edges, `by_kind` by their kind; `groups` are sets of assets to move
    together; `unresolved` are edges whose other end is no single asset of the inventory.
    """

    kind: Literal["dependency_analysis"] = "dependency_analysis"
    dependencies: int
    by_kind: dict[str, int] = Field(default_factory=dict)
    assets_connected: int = 0
    cycles: int = 0
    groups: int = 0
    unresolved: int = 0
    findings: list[str] = Field(default_factory=list)
    summary: str = ""


class StrategyResult(WireModel):
    """Result of migration_strategy. Artefacts: strategies (Parquet), plan, and the exports.

    `by_strategy` counts assets by 6R strategy; `mean_technical_debt` is between 0 and 100;
    `gaps` counts assets by the field that they lack; `readiness` is the mean share (0 to 1) of the
    critical attributes that is known, `unknown_attributes` counts assets by those that are not.
    """

    kind: Literal["migration_strategy"] = "migration_strategy"
    assets: int
    by_strategy: dict[str, int] = Field(default_factory=dict)
    end_of_life: int = 0
    mean_technical_debt: float | None = None
    gaps: dict[str, int] = Field(default_factory=dict)
    readiness: float | None = None
    unknown_attributes: dict[str, int] = Field(default_factory=dict)
    findings: list[str] = Field(default_factory=list)
    summary: str = ""


PhaseResult = Annotated[
    ImportResult
    | CleansingResult
    | MappingResult
    | InventoryResult
    | DependencyResult
    | StrategyResult,
    Field(discriminator="kind"),
]


class InventoryRecord(WireModel):
    """One typed source row of the inventory.

    `values` are canonical (field name → typed value in the schema's unit); `originals` keep
    the text the value came from, by field, and `conversions` how it was read (`rule`, and `unit`
    for quantities); `unmapped` keeps columns without a target. `identity` is the deterministic key
    under which rows of one asset merge, `identity_confidence` (0 to 1) how surely they are one, and
    `keys` are all `kind:value` by which other sources may know the asset. `class_rule` says why it
    has its type.
    """

    row: int
    identity: str = Field(max_length=512)
    name: str | None = None
    asset_type: str
    class_rule: str = ""
    identity_confidence: float | None = Field(default=None, ge=0, le=1)
    keys: list[Annotated[str, StringConstraints(max_length=512)]] = Field(
        default_factory=list, max_length=20
    )
    values: dict[str, Any]
    originals: dict[str, str] = Field(default_factory=dict)
    conversions: dict[str, dict[str, str]] = Field(default_factory=dict)
    unmapped: dict[str, str] = Field(default_factory=dict)
    problems: list[str] = Field(default_factory=list)


class RecordsAnswer(WireModel):
    """How many records are now staged for this attempt."""

    records: int


class ToolResult(WireModel):
    """What an agent was shown: which tool, and the digest and length of its answer."""

    tool: str
    digest: Digest
    characters: int


class Judgement(WireModel):
    """What one agent judged, and on what.

    `planner` is who did: `builtin` or the model's name. `answer` is the accepted one, as JSON
    text; one of more than 20,000 characters is cut. `prompt_version` changes with the prompts.
    """

    agent: str
    task: str
    planner: str
    prompt_version: str
    tool_results: list[ToolResult] = Field(default_factory=list)
    answer: str = ""
    refused: int = 0


class Usage(WireModel):
    """What an attempt cost, and what was judged in it.

    `planner` is what judged: `builtin` or the model's name. `cost` is in the currency of the
    budget's prices, None without prices. `note` says why somebody else judged than was asked.
    """

    planner: str = "builtin"
    llm_requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    note: str = ""
    seconds_import: float = 0.0
    seconds_crew: float = 0.0
    judgements: list[Judgement] = Field(default_factory=list)
    tool_calls: list[str] = Field(default_factory=list)


class Complete(WireModel):
    """The attempt's result. Accepted once; a stale fence is refused as superseded."""

    fence: int
    result: PhaseResult
    artefacts: dict[str, Digest] = Field(default_factory=dict)
    usage: Usage = Field(default_factory=Usage)


class Fail(WireModel):
    """The attempt's failure, in the shared vocabulary of `ErrorCode`.

    `retry_after_seconds` is what a language model's endpoint has asked for: the next attempt waits
    at least so long.
    """

    fence: int
    code: ErrorCode
    message: str = Field(max_length=4000)
    usage: Usage = Field(default_factory=Usage)
    retry_after_seconds: float | None = Field(default=None, ge=0, le=LONGEST_RETRY_AFTER)


class Accepted(WireModel):
    """The result is committed; the process may exit."""

    accepted: Literal[True] = True
