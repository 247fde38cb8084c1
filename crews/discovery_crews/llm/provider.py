"""Makes the judge of one crew run from `spec.llm`.

A new object per run, because usage is counted per object. The library's own retries are off: the
operator owns attempts, backoff and the deadline, and a request that is retried in three layers
turns one rate limit into dozens of requests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_core.wire.protocol import LLMBudget, LLMSettings

from .builtin import BuiltinPlanner, Recommend

NO_KEY = "not-needed"
OPENAI_URL = "https://api.openai.com/v1"
# OpenAI's reasoning models refuse a request that sets the temperature, as OpenAI's guide to
# reasoning models says
_OWN_TEMPERATURE = re.compile(r"(^|[/.])(o\d|gpt-5)", re.IGNORECASE)


class BudgetSpentError(Exception):
    """The flow's budget for a language model is used up."""


def cost_of(budget: LLMBudget, prompt_tokens: int, completion_tokens: int) -> float:
    """What tokens cost at the budget's prices, in their currency."""
    return (
        prompt_tokens * budget.input_token_price + completion_tokens * budget.output_token_price
    ) / 1_000_000


def keep_to_budget(llm: Any, budget: LLMBudget) -> None:
    """Make a judge raise BudgetSpentError instead of asking again beyond the budget.

    One request may exceed it: how long an answer is, is known afterwards.
    """
    ask = llm.call

    def ask_within_budget(*arguments: Any, **options: Any) -> Any:
        used = llm.get_token_usage_summary()
        cost = cost_of(budget, used.prompt_tokens, used.completion_tokens)
        if budget.tokens is not None and used.total_tokens >= budget.tokens:
            raise BudgetSpentError(f"{used.total_tokens} tokens of {budget.tokens}")
        if budget.cost is not None and cost >= budget.cost:
            raise BudgetSpentError(f"{cost:.4f} of {budget.cost:.4f}")
        return ask(*arguments, **options)

    # a field of the model it is not, so that the model's own checks do not know it
    object.__setattr__(llm, "call", ask_within_budget)


def make_llm(
    settings: LLMSettings, api_key: str | None, recommendations: Mapping[str, Recommend]
) -> Any:
    """The judge. Raises DiscoveryError (BAD_CREDENTIALS, LLM_REFUSED) for unusable settings."""
    if settings.provider == "builtin":
        return BuiltinPlanner.of(recommendations)
    if not settings.model:
        raise DiscoveryError(ErrorCode.LLM_REFUSED, "spec.llm.model is missing")
    if settings.provider == "openai" and not api_key:
        raise DiscoveryError(
            ErrorCode.BAD_CREDENTIALS, "provider openai needs spec.llm.apiKeySecret"
        )
    if settings.provider == "openaiCompatible" and not settings.base_url:
        raise DiscoveryError(ErrorCode.LLM_REFUSED, "spec.llm.baseUrl is missing")
    from crewai import LLM  # noqa: PLC0415

    from .direct import Direct  # noqa: PLC0415

    options: dict[str, Any] = {
        "model": settings.model,
        "api_key": api_key or NO_KEY,
        "timeout": settings.timeout_seconds,
        "max_retries": 0,
        "interceptor": Direct(),
    }
    if not _OWN_TEMPERATURE.search(settings.model):
        options["temperature"] = 0
    if settings.provider == "openaiCompatible":
        options |= {"base_url": settings.base_url, "custom_openai": True}
    else:
        # not what a variable of the environment says
        options["client_params"] = {"base_url": OPENAI_URL}
    llm = LLM(**options)
    if settings.budget is not None:
        keep_to_budget(llm, settings.budget)
    return llm
