"""Scripts, styles and the icon: loaded once by a browser, and anew when they have changed.

A page without its script shows everything but follows nothing, so that a page must not wait for a
script that the browser has had a moment ago. Each address carries a digest of all the files. An
answer is kept for good only where the digest is this process's own: while a release is rolled out,
a page of the one version may be answered with a script of the other.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from fastapi.staticfiles import StaticFiles
from starlette.datastructures import QueryParams
from starlette.responses import Response
from starlette.types import Scope

STATIC = Path(__file__).parent / "static"
PLACE = "/static"
FOR_GOOD = "public, max-age=31536000, immutable"


@cache
def version() -> str:
    """Digest of every file, by name and content."""
    digest = hashlib.sha256()
    for file in sorted(path for path in STATIC.rglob("*") if path.is_file()):
        digest.update(file.relative_to(STATIC).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def address(name: str) -> str:
    """Where a page finds the file of this version."""
    return f"{PLACE}/{name}?v={version()}"


class Assets(StaticFiles):
    """The files of `static/`."""

    def __init__(self) -> None:
        super().__init__(directory=STATIC)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """One file, which may be kept for good if it is what the page asked for."""
        response = await super().get_response(path, scope)
        mine = QueryParams(scope["query_string"]).get("v") == version()
        response.headers["Cache-Control"] = FOR_GOOD if mine else "no-cache"
        return response
