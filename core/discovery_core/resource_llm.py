"""Who judges in a flow, and what it may cost: `spec.llm`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from .resource_base import ResourceModel, SecretKey
from .resource_text import DecimalText, Duration, between, explained, rule


class Budget(ResourceModel):
    """What a language model may use for one flow, all phases and attempts together."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    "has(self.maxTokens) || has(self.maxCost)",
                    "give maxTokens or maxCost, or leave the budget out",
                ),
                rule(
                    "!has(self.maxCost) || "
                    "(has(self.inputTokenPrice) && has(self.outputTokenPrice))",
                    "maxCost needs inputTokenPrice and outputTokenPrice, per million tokens",
                ),
            ]
        }
    )

    max_tokens: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = Field(
        default=None, description="Most tokens, those sent and those received together."
    )
    max_cost: DecimalText | None = Field(
        default=None, description="Highest cost, in the currency of the prices."
    )
    input_token_price: DecimalText | None = Field(
        default=None, description="Price of a million tokens sent."
    )
    output_token_price: DecimalText | None = Field(
        default=None, description="Price of a million tokens received."
    )


class LLM(ResourceModel):
    """Who judges: the built-in planner (no network), or a language model."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    "self.provider != 'openaiCompatible' || has(self.baseUrl)",
                    "provider openaiCompatible needs baseUrl, for example "
                    "https://llm.example.org/v1",
                ),
                rule(
                    "self.provider == 'builtin' || has(self.model)",
                    "provider openai and openaiCompatible need model",
                ),
                rule(
                    "self.provider != 'openai' || has(self.apiKeySecret)",
                    "provider openai needs apiKeySecret",
                ),
                rule(
                    "self.provider == 'openaiCompatible' || !has(self.baseUrl)",
                    "baseUrl is for provider openaiCompatible only",
                ),
            ]
        }
    )

    provider: Literal["builtin", "openai", "openaiCompatible"] = Field(
        default="builtin",
        description="builtin judges by rules without any network connection.",
    )
    base_url: (
        Annotated[
            str,
            StringConstraints(min_length=8, max_length=512, pattern=r"^https?://[^\s@?#]+$"),
            explained(
                "write an address such as https://llm.example.org/v1, without user name, query "
                "and fragment"
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="Address of an OpenAI-compatible API, ending in /v1. Must be allowed by the "
        "installation (llm.allowedEndpoints).",
    )
    model: Annotated[str, StringConstraints(min_length=1, max_length=128)] | None = Field(
        default=None, description="Name of the model, as its provider writes it."
    )
    api_key_secret: SecretKey | None = Field(
        default=None, description="The Secret key that holds the API key."
    )
    timeout: Duration = Field(
        default="60s",
        description="Time limit of one request to the model.",
        json_schema_extra=between("1s", "10m"),
    )
    budget: Budget | None = Field(
        default=None, description="Limits of use. Without it nothing is limited."
    )
    on_budget: Literal["Builtin", "Stall"] = Field(
        default="Builtin",
        description="What happens when the budget is used up. Builtin: the flow goes on with the "
        "built-in planner. Stall: it waits until the budget is raised.",
    )
    on_unavailable: Literal["Builtin", "Wait"] = Field(
        default="Builtin",
        description="What happens while the model's endpoint is not asked because it has failed "
        "several times in a row. Builtin: the built-in planner judges, and the status says so. "
        "Wait: the flow stays queued until the endpoint is tried again.",
    )
