"""What every message and result is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints
from pydantic.alias_generators import to_camel

# under which the store keeps what a flow reads; a result that took one would replace it
ENGAGEMENT_INVENTORY = "engagementInventory"
PINNED = ("source", "targetSchema", ENGAGEMENT_INVENTORY)


def _free(name: str) -> str:
    if name in PINNED:
        raise ValueError(f"{name!r} is the name of an input; a result cannot have it")
    return name


Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
ArtefactName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$"), AfterValidator(_free)
]


class WireModel(BaseModel):
    """camelCase on the wire, unknown fields ignored (an older reader meets a newer writer)."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


class ArtefactReference(WireModel):
    """An immutable blob, named by the SHA-256 of its bytes. `size` is in bytes."""

    digest: Digest
    size: int
    media_type: str = "application/octet-stream"
