"""Who judges: which settings make which judge, and what its failures are called."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import httpx
import openai
import pytest
from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_core.wire.protocol import LLMSettings
from discovery_crews.crew_base import NoAnswerError, prepare_environment
from discovery_crews.llm import classify_exception
from discovery_crews.llm.errors import retry_after

prepare_environment()

from discovery_crews.llm.builtin import BuiltinPlanner  # noqa: E402 - imports crewai
from discovery_crews.llm.provider import make_llm  # noqa: E402 - imports crewai

URL = "http://127.0.0.1:9/v1"
REQUEST = httpx.Request("POST", URL)


def status_error(status: int, text: str = "refused") -> openai.APIStatusError:
    body = {"error": {"message": text}}
    return openai.APIStatusError(
        text, response=httpx.Response(status, request=REQUEST, json=body), body=body
    )


def asking(status: int, seconds: str) -> openai.APIStatusError:
    """A refusal with a Retry-After header."""
    headers = {"Retry-After": seconds}
    return openai.APIStatusError(
        "refused", response=httpx.Response(status, request=REQUEST, headers=headers), body=None
    )


def wrapped(cause: Exception) -> Exception:
    """As CrewAI wraps: a built-in exception that is raised from the provider's."""
    error = ValueError("the call failed")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (status_error(400), ErrorCode.LLM_REFUSED),
        (status_error(401), ErrorCode.BAD_CREDENTIALS),
        (status_error(402), ErrorCode.LLM_QUOTA),
        (status_error(403), ErrorCode.BAD_CREDENTIALS),
        (status_error(404), ErrorCode.LLM_REFUSED),
        (status_error(408), ErrorCode.LLM_UNAVAILABLE),
        (status_error(418), ErrorCode.LLM_REFUSED),
        (status_error(429), ErrorCode.LLM_RATE_LIMITED),
        (status_error(429, "x" * 400 + " insufficient_quota"), ErrorCode.LLM_QUOTA),
        (status_error(500), ErrorCode.LLM_UNAVAILABLE),
        (status_error(529), ErrorCode.LLM_UNAVAILABLE),
        (openai.APITimeoutError(REQUEST), ErrorCode.LLM_UNAVAILABLE),
        (openai.APIConnectionError(request=REQUEST), ErrorCode.LLM_UNAVAILABLE),
        (ConnectionRefusedError("no"), ErrorCode.LLM_UNAVAILABLE),
        (json.JSONDecodeError("Expecting value", "{", 1), ErrorCode.LLM_BAD_OUTPUT),
        (NoAnswerError("no accepted answer"), ErrorCode.LLM_BAD_OUTPUT),
        (DiscoveryError(ErrorCode.NO_ROWS, "no rows"), ErrorCode.NO_ROWS),
    ],
)
def test_failures_in_the_products_words(error: Exception, code: ErrorCode) -> None:
    for seen in (error, wrapped(error)):
        classified = classify_exception(seen)
        assert classified is not None
        assert classified.code is code
        assert classified.message


@pytest.mark.parametrize(
    ("header", "asked"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("Mon, 23 Nov 2026 12:05:00 GMT", 300.0),
        ("Mon, 23 Nov 2026 11:00:00 GMT", 0.0),
        ("86400", 3600.0),
        ("inf", 3600.0),
        ("nan", None),
        ("", None),
        ("soon", None),
        ("Mon, 99 Nov 2026 12:05:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_at_most_an_hour(
    header: str, asked: float | None
) -> None:
    assert retry_after(header, datetime(2026, 11, 23, 12, tzinfo=UTC)) == asked


@pytest.mark.parametrize("status", [429, 503])
def test_the_time_that_an_endpoint_asks_for_is_passed_on(status: int) -> None:
    for error in (asking(status, "90"), wrapped(asking(status, "90"))):
        classified = classify_exception(error)
        assert classified is not None
        assert classified.retry_after == 90
        assert "asks to wait 90 s" in classified.message
    silent = classify_exception(status_error(status))
    assert silent is not None
    assert silent.retry_after is None
    assert "asks" not in silent.message


def test_what_no_wait_can_mend_asks_for_none() -> None:
    classified = classify_exception(asking(401, "90"))
    assert classified is not None
    assert classified.retry_after is None


def test_a_missing_key_is_told_by_the_text() -> None:
    classified = classify_exception(ValueError("OPENAI_API_KEY is required"))
    assert classified is not None
    assert classified.code is ErrorCode.BAD_CREDENTIALS


def test_what_has_nothing_to_do_with_a_model_is_left_alone() -> None:
    assert classify_exception(KeyError("column")) is None


@pytest.mark.parametrize(
    ("settings", "key", "code"),
    [
        ({"provider": "openai"}, "k", ErrorCode.LLM_REFUSED),
        ({"provider": "openai", "model": "m"}, None, ErrorCode.BAD_CREDENTIALS),
        ({"provider": "openaiCompatible", "model": "m"}, "k", ErrorCode.LLM_REFUSED),
        ({"provider": "openaiCompatible", "base_url": URL}, None, ErrorCode.LLM_REFUSED),
    ],
)
def test_unusable_settings_are_refused(
    settings: dict[str, Any], key: str | None, code: ErrorCode
) -> None:
    with pytest.raises(DiscoveryError, match=r"spec\.llm\.") as refused:
        make_llm(LLMSettings.model_validate(settings), key, {})
    assert refused.value.code is code


def compatible(model: str) -> LLMSettings:
    return LLMSettings(provider="openaiCompatible", base_url=URL, model=model, timeout_seconds=7.0)


def test_the_librarys_retries_are_off_and_its_timeout_is_ours() -> None:
    llm = make_llm(compatible("some-model"), None, {})
    assert (llm.max_retries, llm.timeout) == (0, 7.0)
    client = llm._get_sync_client()
    assert (client.max_retries, client.timeout, str(client.base_url)) == (0, 7.0, URL + "/")
    assert make_llm(compatible("some-model"), None, {}) is not llm, "usage is counted per object"


@pytest.mark.parametrize(
    ("model", "temperature"),
    [
        ("gpt-4o", 0),
        ("llama-3.1-70b", 0),
        ("o3-mini", None),
        ("gpt-5", None),
        ("openai/gpt-5-mini", None),
        ("foo-o1", 0),
    ],
)
def test_reasoning_models_keep_their_own_temperature(model: str, temperature: int | None) -> None:
    assert make_llm(compatible(model), None, {}).temperature == temperature


def offered(*names: str) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": name}} for name in names]


def test_the_planner_looks_at_everything_once_and_then_submits_the_recommendation() -> None:
    planner = make_llm(LLMSettings(), None, {"submit_x": lambda: {"answer": 42}})
    assert isinstance(planner, BuiltinPlanner)
    tools = offered("submit_x", "show_a", "show_b")
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Go."}]
    asked = []
    for _ in range(3):
        calls = planner.call(messages, tools=tools)
        asked.append((calls[0]["function"]["name"], json.loads(calls[0]["function"]["arguments"])))
        messages.append({"role": "assistant", "tool_calls": calls})
    assert asked == [("show_a", {}), ("show_b", {}), ("submit_x", {"answer": 42})]
    assert planner.requests == 3


def test_the_planner_answers_in_text_where_no_tool_is_offered() -> None:
    answer = make_llm(LLMSettings(), None, {}).call([{"role": "user", "content": "Go."}])
    assert isinstance(answer, str)
    assert answer
