"""The one vocabulary of failures: codes, whether trying again can help, and the exceptions.

Crews report a code with a message that names the place and the remedy; the operator decides by
`retryable` alone; pages, status and API show both. Keeping the codes in one enum is what lets
an alert rule or a user's script rely on them. What may be told over HTTP says itself how.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class ErrorCode(StrEnum):
    """Stable, machine-readable reason of a failed attempt or a refused request."""

    # permanent: the input or the configuration has to change
    EMPTY_FILE = "EmptyFile"
    UNREADABLE_FILE = "UnreadableFile"
    ENCRYPTED_FILE = "EncryptedFile"
    UNKNOWN_ENCODING = "UnknownEncoding"
    UNSUPPORTED_FORMAT = "UnsupportedFormat"
    NO_ROWS = "NoRows"
    NO_COLUMNS = "NoColumns"
    LIMIT_EXCEEDED = "LimitExceeded"
    INVALID_TARGET_SCHEMA = "InvalidTargetSchema"
    INVALID_MAPPING = "InvalidMapping"
    BAD_CREDENTIALS = "BadCredentials"
    LLM_REFUSED = "LLMRefused"
    LLM_QUOTA = "LLMQuotaExceeded"
    INVALID_RESULT = "InvalidResult"
    QUOTA_EXCEEDED = "QuotaExceeded"
    # transient: trying again may help
    LLM_BUDGET = "LLMBudgetExceeded"
    LLM_UNAVAILABLE = "LLMUnavailable"
    LLM_RATE_LIMITED = "LLMRateLimited"
    LLM_BAD_OUTPUT = "LLMBadOutput"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    HEARTBEAT_LOST = "HeartbeatLost"
    POD_LOST = "PodLost"
    NOT_STARTED = "NotStarted"
    CRASHED = "Crashed"
    OUT_OF_MEMORY = "OutOfMemory"
    NAMESPACE_QUOTA = "NamespaceQuota"
    EXECUTION_API_UNAVAILABLE = "ExecutionAPIUnavailable"
    # decisions about an attempt, not failures of it
    CANCELLED = "Cancelled"


PERMANENT_CODES: frozenset[ErrorCode] = frozenset(
    {
        ErrorCode.EMPTY_FILE,
        ErrorCode.UNREADABLE_FILE,
        ErrorCode.ENCRYPTED_FILE,
        ErrorCode.UNKNOWN_ENCODING,
        ErrorCode.UNSUPPORTED_FORMAT,
        ErrorCode.NO_ROWS,
        ErrorCode.NO_COLUMNS,
        ErrorCode.LIMIT_EXCEEDED,
        ErrorCode.INVALID_TARGET_SCHEMA,
        ErrorCode.INVALID_MAPPING,
        ErrorCode.BAD_CREDENTIALS,
        ErrorCode.LLM_REFUSED,
        ErrorCode.LLM_QUOTA,
        ErrorCode.INVALID_RESULT,
        ErrorCode.QUOTA_EXCEEDED,
    }
)


def is_retryable(code: ErrorCode | str) -> bool:
    """Whether another attempt can help. Unknown codes count as transient."""
    return code not in PERMANENT_CODES


class ProblemError(Exception):
    """A failure that whoever asked is told, as RFC 9457 has it.

    Each class says what it is: programs decide by `kind`, people read `title` and the message, and
    `status` is the HTTP status. `more` are further members of the answer.
    """

    status = 500
    kind = "internal"
    title = "Internal error"
    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self,
        detail: str = "",
        *,
        title: str | None = None,
        headers: Mapping[str, str] | None = None,
        **more: object,
    ) -> None:
        self.title = title or self.title
        super().__init__(detail or self.title)
        self.detail = detail
        self.headers = headers or self.headers
        self.more = more


class DiscoveryError(ProblemError):
    """A failure with a code and a message that a person can act on.

    `message` says what is wrong, where, and what to do; it never contains data values beyond
    the cell that is at fault. `retry_after` are the seconds that whoever refused has asked for.
    """

    status = 422
    kind = "refused"
    title = "Refused"

    def __init__(self, code: ErrorCode, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message, code=str(code))
        self.code = code
        self.message = message
        self.retry_after = retry_after
        if code is ErrorCode.LIMIT_EXCEEDED:
            self.status = 413
        elif code is ErrorCode.QUOTA_EXCEEDED:
            self.status = 507

    @property
    def retryable(self) -> bool:
        """Whether another attempt can help."""
        return is_retryable(self.code)


class StoreError(ProblemError):
    """Base of what the store refuses."""


class SupersededError(StoreError):
    """The writer is stale: another attempt, pod, answer or leader has taken its place."""

    status = 409
    kind = "superseded"
    title = "Superseded"


class NotLaunchedError(StoreError):
    """The operator has not recorded the Job of this attempt yet; ask again in a moment."""

    status = 425
    kind = "not-launched"
    title = "Not launched yet"
    headers = MappingProxyType({"Retry-After": "1"})


class NotFoundError(StoreError):
    """No such row for this tenant (or it may not be seen, which is told apart to nobody)."""

    status = 404
    kind = "not-found"
    title = "Not found"


class IllegalTransitionError(StoreError):
    """The state table has no such transition."""

    status = 409
    kind = "conflict"
    title = "Not possible in this state"


class InvalidAnswerError(StoreError):
    """A decision that is refused as a whole; `problems` names each edit at fault."""

    status = 422
    kind = "invalid-answer"
    title = "The answer was refused"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems), problems=problems)
        self.problems = problems
