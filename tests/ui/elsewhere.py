"""An application of somebody else, on another port of this machine.

Under `localhost` a browser takes it for the same site as the desk, and sends it the same cookies;
under `127.0.0.1` it is another site.
"""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any


@contextmanager
def another_application(link: str = "") -> Iterator[int]:
    """Its port. It has one page, with a link to `link`."""
    body = (
        f'<!doctype html><title>another application</title><a href="{escape(link)}">Review it</a>'
    ).encode()

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
            del format, args

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
