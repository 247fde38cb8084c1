"""Which addresses of webhooks the installation allows, compared as they will be asked.

A namespace writes its address by itself, so it may write one that only looks like an allowed one:
with dots that leave the path, written plainly or as %2e, with another host behind a name, with
signs that servers read differently. What is ambiguous is refused; the rest is compared, and sent,
in the one form that the HTTP client gives it.
"""

from __future__ import annotations

import re

from yarl import URL

_SIGNS = re.compile(r"[\\\s\x00-\x20\x7f-\x9f#]")
# dots, slashes and percent signs of a path, which a server may decode once more
_ENCODED = re.compile("%(?:2e|2f|5c|25|00|0a|0d)", re.IGNORECASE)


def address_of(text: str) -> URL | None:
    """An http or https address in its one form; None where it is none or could be read otherwise.

    Scheme and host are in lower case, and nothing names a person.
    """
    place = text.partition("?")[0]
    if _SIGNS.search(text) or _ENCODED.search(place):
        return None
    authority, _, path = place.partition("://")[2].partition("/")
    if "@" in authority or any(_leads_out(segment) for segment in path.split("/")):
        return None
    try:
        url = URL(text)
        port = url.port
    except ValueError:
        return None
    if url.scheme not in ("http", "https") or not url.host or not port:
        return None
    return url


def _leads_out(segment: str) -> bool:
    """Whether a segment is dots, also with parameters that some servers take off."""
    return segment.partition(";")[0] in (".", "..")


def is_allowed(url: URL, endpoints: tuple[str, ...]) -> bool:
    """Whether an address has the scheme, host and port of an allowed one, and begins as its path.

    Paths are compared by whole segments: `/team-a` allows `/team-a/x` and not `/team-ab`.
    """
    for endpoint in map(address_of, endpoints):
        if endpoint is None or _server(endpoint) != _server(url):
            continue
        base = endpoint.raw_path.rstrip("/")
        if url.raw_path == base or url.raw_path.startswith(f"{base}/"):
            return True
    return False


def _server(url: URL) -> tuple[str, str | None, int | None]:
    return url.scheme, url.raw_host, url.port
