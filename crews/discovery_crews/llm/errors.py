"""Failures of a language model, told in the product's own vocabulary.

What the endpoint has answered is no part of the message: whoever reads a flow would read whatever
page stands there. Only the status and codes that are known are told.

CrewAI wraps the provider's exceptions, sometimes in built-in ones, so the whole chain of causes is
looked at, and by names: this module must work without the provider's library.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_core.wire.protocol import LONGEST_RETRY_AFTER

_CREDENTIALS = "check spec.llm.apiKeySecret and that the key may use this model"
_BY_STATUS: dict[int, tuple[ErrorCode, str]] = {
    400: (ErrorCode.LLM_REFUSED, "the model refused the request; check spec.llm.model"),
    401: (ErrorCode.BAD_CREDENTIALS, f"the model does not accept the API key; {_CREDENTIALS}"),
    403: (ErrorCode.BAD_CREDENTIALS, f"the API key may not do this; {_CREDENTIALS}"),
    404: (
        ErrorCode.LLM_REFUSED,
        "the model or the address was not found; check spec.llm.model and baseUrl",
    ),
    422: (ErrorCode.LLM_REFUSED, "the model refused the request; check spec.llm.model"),
    429: (ErrorCode.LLM_RATE_LIMITED, "the model is rate limited"),
}
_UNAVAILABLE = {
    "APITimeoutError",
    "APIConnectionError",
    "ConnectError",
    "ConnectTimeout",
    "ReadTimeout",
    "RemoteProtocolError",
    "ConnectionError",
    "ConnectionRefusedError",
    "TimeoutError",
}
_KNOWN_CODES = {
    "account_deactivated",
    "billing_hard_limit_reached",
    "content_filter",
    "context_length_exceeded",
    "insufficient_quota",
    "invalid_api_key",
    "model_not_found",
    "rate_limit_exceeded",
    "unsupported_country_region_territory",
    "unsupported_parameter",
    "unsupported_value",
}
_LIBRARIES = ("crewai.", "openai.")
_BAD_OUTPUT = {
    "JSONDecodeError",
    "APIResponseValidationError",
    "ConverterError",
    "OutputParserError",
    "GuardrailFailed",
    "ToolExecutionFailedError",
    "NoAnswerError",
}


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def classify_exception(error: BaseException) -> DiscoveryError | None:
    """The failure in our words, or None where it has nothing to do with a language model."""
    chain = list(_chain(error))
    for cause in chain:
        if isinstance(cause, DiscoveryError):
            return cause
    for cause in chain:
        status = getattr(cause, "status_code", None)
        if isinstance(status, int):
            return _by_status(status, cause)
    names = {base.__name__ for cause in chain for base in type(cause).__mro__}
    if "BudgetSpentError" in names:
        spent = next(str(cause) for cause in chain if type(cause).__name__ == "BudgetSpentError")
        return DiscoveryError(
            ErrorCode.LLM_BUDGET,
            f"the flow's budget for the language model is used up ({spent} left at the start of "
            "this attempt); raise spec.llm.budget, or set spec.llm.onBudget to Builtin",
        )
    text = str(error)[:300]
    if names & _UNAVAILABLE:
        return DiscoveryError(
            ErrorCode.LLM_UNAVAILABLE, f"the language model does not answer: {_network(chain)}"
        )
    if names & _BAD_OUTPUT or "guardrail" in text.lower() or "None or empty" in text:
        return _unusable(chain)
    if "API_KEY is required" in text or "api_key" in text:
        return DiscoveryError(ErrorCode.BAD_CREDENTIALS, f"there is no API key; {_CREDENTIALS}")
    if any(map(_stumbled, chain)):
        return DiscoveryError(
            ErrorCode.LLM_BAD_OUTPUT,
            "the language model's answer could not be read; is spec.llm.baseUrl the address of an "
            "OpenAI-compatible API, usually ending in /v1?",
        )
    if any("crewai" in (type(cause).__module__ or "") for cause in chain):
        return _unusable(chain)
    return None


def _network(chain: list[BaseException]) -> str:
    """What this machine says of a connection; libraries also quote what has arrived."""
    for cause in reversed(chain):
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror[:200]
    return type(chain[-1]).__name__


def _unusable(chain: list[BaseException]) -> DiscoveryError:
    """An answer that is none: in our own words where an agent ended without one."""
    own = next((str(cause) for cause in chain if type(cause).__name__ == "NoAnswerError"), "")
    said = own[:300] or type(chain[-1]).__name__
    return DiscoveryError(
        ErrorCode.LLM_BAD_OUTPUT, f"the language model gave no usable answer: {said}"
    )


def _stumbled(cause: BaseException) -> bool:
    """Whether a library broke on an answer, e.g. a proxy's login page instead of JSON."""
    frame = cause.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    module = frame.tb_frame.f_globals.get("__name__", "") if frame is not None else ""
    return str(module).startswith(_LIBRARIES)


def _by_status(status: int, cause: BaseException) -> DiscoveryError:
    detail = _told(status, cause)
    if status == 402 or (status == 429 and "insufficient_quota" in str(cause)):
        return DiscoveryError(
            ErrorCode.LLM_QUOTA, f"the model's quota is used up; raise it or wait: {detail}"
        )
    if 300 <= status < 400:
        return DiscoveryError(
            ErrorCode.LLM_REFUSED,
            "the language model's address leads elsewhere, which is not followed; write the "
            f"address that it leads to into spec.llm.baseUrl: {detail}",
        )
    if status in _BY_STATUS:
        code, text = _BY_STATUS[status]
        if status == 429:
            return _after_a_while(code, text, detail, cause)
        return DiscoveryError(code, f"{text}: {detail}")
    if status >= 500 or status == 408:
        text = "the language model failed"
        return _after_a_while(ErrorCode.LLM_UNAVAILABLE, text, detail, cause)
    return DiscoveryError(ErrorCode.LLM_REFUSED, f"the language model refused: {detail}")


def _told(status: int, cause: BaseException) -> str:
    """The status, and the error's code where it is one that we know."""
    code = getattr(cause, "code", None)
    return f"status {status}" + (f", {code}" if code in _KNOWN_CODES else "")


def _after_a_while(code: ErrorCode, text: str, detail: str, cause: BaseException) -> DiscoveryError:
    """A failure that passes: with the time that the endpoint has asked for, where it has."""
    headers = getattr(getattr(cause, "response", None), "headers", None) or {}
    asked = retry_after(str(headers.get("retry-after") or ""))
    if asked is None:
        return DiscoveryError(code, f"{text}: {detail}")
    return DiscoveryError(
        code,
        f"{text} and asks to wait {math.ceil(asked)} s: {detail}",
        retry_after=asked,
    )


def retry_after(header: str, now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header asks for, at most an hour; None where it says nothing.

    It is a number of seconds or an HTTP date (RFC 9110, 10.2.3).
    """
    try:
        seconds = float(header)
    except ValueError:
        try:
            moment = parsedate_to_datetime(header)
        except ValueError:
            return None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - (now or datetime.now(UTC))).total_seconds()
    if math.isnan(seconds):
        return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
