"""Text types of the DiscoveryFlow resource, with the words that a refusal is explained in.

They stand apart from the models because every model uses them, and because a message that tells
people what to write belongs beside the pattern that refuses what they wrote.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints
from pydantic.fields import FieldInfo

from .durations import DURATION_PATTERN, RETENTION_PATTERN

PATTERN_MESSAGE = "x-pattern-message"


def rule(cel: str, message: str) -> dict[str, Any]:
    """One CEL validation as it stands in the CRD."""
    return {"rule": cel, "message": message}


def explained(message: str) -> FieldInfo:
    """What to write instead, when the pattern beside it does not match.

    The API server can only quote a `pattern`, so the CRD has a CEL rule with this message.
    """
    info: FieldInfo = Field(json_schema_extra={PATTERN_MESSAGE: message})
    return info


ObjectName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"),
    explained("write an object's name: lower case letters, digits, '-' and '.', such as servers"),
]
DataKey = Annotated[
    str,
    StringConstraints(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$"),
    explained("write a key of the object: letters, digits, '-', '_' and '.', such as servers.csv"),
]
Duration = Annotated[
    str,
    StringConstraints(min_length=2, max_length=24, pattern=DURATION_PATTERN),
    explained("write a duration such as 30s, 15m, 72h or 1h30m"),
]
Retention = Annotated[
    str,
    StringConstraints(min_length=2, max_length=7, pattern=RETENTION_PATTERN),
    explained("write whole days or hours, at least one, such as 90d or 72h"),
]
DecimalText = Annotated[
    str,
    StringConstraints(min_length=1, max_length=16, pattern=r"^[0-9]{1,9}(\.[0-9]{1,6})?$"),
    explained("write an amount such as 5, 0.15 or 12.50, in quotes"),
]
DigestText = Annotated[
    str,
    StringConstraints(min_length=71, max_length=71, pattern=r"^sha256:[0-9a-f]{64}$"),
    explained("write the digest as the request gives it: sha256: and 64 hexadecimal digits"),
]


def between(shortest: str, longest: str, *, remark: str = "") -> dict[str, Any]:
    """Limits of a Duration field, as schema extra. Says nothing where it is no duration at all."""
    return {
        "x-kubernetes-validations": [
            rule(
                f"self.size() < 2 || !self.matches(r'{DURATION_PATTERN}') || "
                f"(duration(self) >= duration('{shortest}') && "
                f"duration(self) <= duration('{longest}'))",
                f"write a duration between {shortest} and {longest}{remark}",
            )
        ]
    }
