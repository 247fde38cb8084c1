"""What every message and result is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints
from pydantic.alias_generators import to_camel

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]


class WireModel(BaseModel):
    """camelCase on the wire, unknown fields ignored (an older reader meets a newer writer)."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


class ArtefactReference(WireModel):
    """An immutable blob, named by the SHA-256 of its bytes. `size` is in bytes."""

    digest: Digest
    size: int
    media_type: str = "application/octet-stream"
