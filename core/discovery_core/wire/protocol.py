"""The messages of the protocol, in the order of an attempt: claim, heartbeats, result."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import Field

from ..errors import ErrorCode
from ..phases import Phase
from .model import ArtefactName, ArtefactReference, Digest, WireModel
from .results import (
    PhaseResult,
)

LONGEST_RETRY_AFTER = 3600.0
MOST_ARTEFACTS = 100
TOKEN_AUDIENCE = "discoveryflow-execution"  # noqa: S105 - an audience, not a secret
# the ServiceAccount of crew pods in each namespace with flows
CREW_ACCOUNT = "discoveryflow-crew"


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
    """What a person of this tenant decided for a header before; `target` None is "not mapped".

    `transform` is how its values were read; None where that was left open, or not kept yet.
    """

    header: str
    target: str | None
    transform: str | None = None
    approved_by: str
    approved_at: datetime


class Claim(WireModel):
    """Everything an attempt needs to start.

    `inputs` are artefacts of earlier phases by name (`records`, `profile`, and for
    asset_inventory the approved `mappings`), plus `source` and `targetSchema` once they are
    pinned. Before that, the first import attempt reads `source_path` (and `target_schema_path`)
    from its mounted volume, or takes the `uploaded` file, and pins the bytes. With
    `merged_inventory` the crew asks for what it reads of its engagement, too. `attempt` counts from
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
    merged_inventory: bool = False
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


class PinEngagement(WireModel):
    """Asks for what this round reads of the flow's engagement."""

    fence: int


class EngagementInputs(WireModel):
    """The merged inventory (gzipped NDJSON), and `dependencies` as other flows have found them."""

    inventory: ArtefactReference
    dependencies: list[ArtefactReference] = Field(default_factory=list)


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
    """The attempt's result. Accepted once; a stale fence is refused as superseded.

    `artefacts` are by name, and only such as attempts of this flow have uploaded.
    """

    fence: int
    result: PhaseResult
    artefacts: dict[ArtefactName, Digest] = Field(default_factory=dict, max_length=MOST_ARTEFACTS)
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
