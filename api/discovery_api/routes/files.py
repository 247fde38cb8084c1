"""A flow's files: a download of any size, or a small one as a whole, to be shown.

What a crew made is never a page of ours: browsers are given types of a closed list, and no right
to run any of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from discovery_core.files import MEDIA_TYPES, UNKNOWN, file_name
from discovery_core.phases import PHASES
from discovery_core.store.reads.contents import StoredArtefact
from fastapi.responses import StreamingResponse

from ..context import Visit
from ..problems import TooLargeError

# what is read into memory to be shown; the same as JSON takes some ten times that
MOST_BYTES = 4 * 1024 * 1024


def saved_as(visited: Visit, entry: StoredArtefact, called: str = "") -> str:
    """What a download is called: after its flow, what it is, and the phase of what is no export."""
    phase = "" if called or entry.phase == PHASES[-1].name else entry.phase.replace("_", "-")
    return file_name([visited.location.name, phase, called or entry.name], entry.media_type)


async def download(visited: Visit, phase: str, name: str, called: str = "") -> StreamingResponse:
    """An artefact as a stream. Raises NotFoundError."""
    found = await visited.store.artefact(visited.tenant_id, visited.flow_id, phase, name)
    # a crew says what its file is; no browser is to show it as ours, whatever that is
    known = found.media_type in MEDIA_TYPES.values()
    return StreamingResponse(
        visited.store.read_artefact(visited.tenant_id, found),
        media_type=found.media_type if known else UNKNOWN,
        headers={
            "Content-Length": str(found.size),
            "Content-Disposition": f'attachment; filename="{saved_as(visited, found, called)}"',
            "ETag": f'"{found.digest}"',
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": "default-src 'none'; sandbox",
        },
    )


async def content(visited: Visit, phase: str, name: str) -> bytes:
    """A small artefact as a whole. Raises NotFoundError and ProblemError 413."""
    found = await visited.store.artefact(visited.tenant_id, visited.flow_id, phase, name)
    if found.size > MOST_BYTES:
        raise TooLargeError(
            f"{phase}/{name} has {found.size} bytes; download it instead: artefacts/{phase}/{name}",
            title="Too large to show",
        )
    pieces: AsyncIterator[bytes] = visited.store.read_artefact(visited.tenant_id, found)
    return b"".join([piece async for piece in pieces])
