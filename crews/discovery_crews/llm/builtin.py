"""The built-in planner: plays an agent's part by rules, through the same crew, tools and checks.

It makes no network connection and gives the same answer every time. It reads the tools that the
agent is offered: each one without arguments is called once, in order, and then the closing
`submit_…` tool with what the crew's own rules recommend. It is a planner, not a language model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from crewai import BaseLLM
from pydantic import PrivateAttr

SUBMIT_PREFIX = "submit_"
CONTEXT_WINDOW = 1_000_000

Recommend = Callable[[], Mapping[str, Any]]


class BuiltinPlanner(BaseLLM):
    """Answers with tool calls. `recommendations` gives the arguments of each closing tool."""

    _recommendations: dict[str, Recommend] = PrivateAttr(default_factory=dict)
    _requests: int = PrivateAttr(default=0)

    @classmethod
    def of(cls, recommendations: Mapping[str, Recommend]) -> BuiltinPlanner:
        """A planner for one crew run; keys are names of submit tools."""
        planner = cls(model="builtin", provider="builtin")
        planner._recommendations = dict(recommendations)
        return planner

    def supports_function_calling(self) -> bool:
        """Tools are how it works."""
        return True

    def supports_stop_words(self) -> bool:
        """It needs none."""
        return False

    def get_context_window_size(self) -> int:
        """Large, so that CrewAI never shortens what a tool says."""
        return CONTEXT_WINDOW

    def call(
        self,
        messages: Any,
        tools: list[dict[str, Any]] | None = None,
        *_: Any,
        **__: Any,
    ) -> Any:
        """The next tool call in OpenAI's shape, or text where no tool is offered."""
        self._requests += 1
        if not tools:
            return "No tool is offered, so there is nothing to decide."
        offered = [tool["function"]["name"] for tool in tools]
        used = _called(messages)
        submit = next((name for name in offered if name.startswith(SUBMIT_PREFIX)), None)
        name = next((tool for tool in offered if tool != submit and tool not in used), submit)
        if name is None:
            return "All tools have been used."
        arguments = dict(self._recommendations[name]()) if name == submit else {}
        return [
            {
                "id": f"call_{self._requests}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(arguments)},
            }
        ]

    @property
    def requests(self) -> int:
        """How often it was asked."""
        return self._requests


def _called(messages: Any) -> set[str]:
    """Names of the tools that this conversation has used."""
    used: set[str] = set()
    for message in messages if isinstance(messages, list) else []:
        for call in message.get("tool_calls") or []:
            used.add(call["function"]["name"])
    return used
