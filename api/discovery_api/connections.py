"""Connections that cannot be held for ever by whoever says nothing, or little.

The server itself waits without end for the head of a request, and takes a body that was refused
as long as it comes. The size of a head is bounded by its parser (h11, 64 KiB), which is why no
other one is used. How many connections there are is bounded at the `door`.
"""

from __future__ import annotations

import asyncio
import asyncio.sslproto
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# clients that send on may read why they were refused when they have ended
_REFUSED_FACTOR = 4
# the most that a record of TLS holds
_TLS_BUFFER_BYTES = 16 * 1024


def spare_buffers() -> None:
    """Has a TLS connection begin with 16 KiB instead of 256.

    asyncio makes that buffer, and fills it with zeroes, before the first byte of a handshake. It
    has no parameter for it; a larger one only saves system calls.
    """
    asyncio.sslproto.SSLProtocol.max_size = _TLS_BUFFER_BYTES


class Connection(H11Protocol):
    """Ends where the next head, or the rest of a refused body, takes too long.

    The head has the seconds of `timeout_keep_alive`.
    """

    _late: asyncio.TimerHandle | None = None
    _waits_for = ""

    def connection_made(self, transport: Any) -> None:
        """See asyncio."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """See uvicorn."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        super().connection_lost(exc)
        self._wait_for("", 0)

    def _watch(self) -> None:
        """Begins to wait, goes on waiting, or waits no more."""
        answered = self.conn.our_state in (h11.DONE, h11.MUST_CLOSE)
        if self.conn.their_state is h11.IDLE:
            self._wait_for("head", self.timeout_keep_alive)
        elif self.conn.their_state is h11.SEND_BODY and answered:
            self._wait_for("rest", self.timeout_keep_alive * _REFUSED_FACTOR)
        else:
            self._wait_for("", 0)

    def _wait_for(self, what: str, seconds: float) -> None:
        if what == self._waits_for:
            return
        self._waits_for = what
        if self._late is not None:
            self._late.cancel()
            self._late = None
        if what:
            self._late = self.loop.call_later(seconds, self.transport.close)
