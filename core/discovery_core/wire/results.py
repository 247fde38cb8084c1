"""What phases have found: results, and the records and mappings that travel with them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from .model import WireModel


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


class Separators(WireModel):
    """How a column writes numbers: which character separates decimals, and why that is thought.

    `open` counts values such as 1.234, which are read otherwise under the other separator;
    `sure`: the column's own other values leave no doubt; `example`: the first open value.
    """

    decimal: Literal["comma", "point"]
    sure: bool = True
    why: str = ""
    open: int = 0
    example: str | None = None


class ColumnProfile(WireModel):
    """Facts about one column over all rows: fill and distinct are counts of rows.

    `separators` is None where no number has any; `minimum` and `maximum` of numbers are read
    by it. `outliers` counts numbers far outside the usual (three interquartile ranges beyond the
    quartiles), `multi_values` cells that hold several values.
    """

    name: str
    type: str
    filled: int
    missing: int
    distinct: int
    samples: list[str] = Field(default_factory=list)
    unit: str | None = None
    separators: Separators | None = None
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

    `transforms` is what may be said of a column's values, see `mapping_edits`: the unit that they
    are in (unit:MiB), how they write decimals (decimal:comma).
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

    `targets` are all legal target names, `fields` what they mean; `findings` are what the values
    say against the proposal or were read by on weak evidence, the most harmful first. The store
    makes the artefact `mappings` (a JSON list of `FieldMapping`) from it, so that what is approved
    is what was shown.
    """

    kind: Literal["field_mapping"] = "field_mapping"
    mappings: list[FieldMapping]
    targets: list[str]
    fields: list[TargetDescription] = Field(default_factory=list)
    required_unmapped: list[str] = Field(default_factory=list)
    findings: list[str] = Field(default_factory=list)
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
