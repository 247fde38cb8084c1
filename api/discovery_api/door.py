"""Who gets a connection, decided as it is accepted: before a handshake costs anything.

A protocol hears of a connection only when its handshake is done, and by then buffers and OpenSSL's
state are there. So sockets are counted where they are accepted, and those that are too many are
closed at once. One address has a share of the places, and the last ones are for addresses that
hold few: a single host that takes all it can keeps neither people nor probes out.

asyncio's own loop accepts through the socket's `accept`; uvloop would not, so it is not used.
"""

from __future__ import annotations

import resource
import socket
import time
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import structlog

from .addresses import counted_as

log = structlog.get_logger(__name__)

# one in so many places is kept for addresses that hold fewer than _FEW
_RESERVED_PART = 10
_FEW = 8
_LOG_SECONDS = 60.0
# of the process: connections to the database, to Kubernetes, files
_OTHER_FILES = 512


class Places:
    """So many connections at once, so many of one address.

    For hosts of which `is_proxy` is true only the whole counts: they come for many.
    """

    def __init__(
        self, most: int, per_address: int, is_proxy: Callable[[str], bool] = lambda _: False
    ) -> None:
        self._most = most
        self._unreserved = most - most // _RESERVED_PART
        self._per_address = per_address
        self._is_proxy = is_proxy
        self._taken = 0
        self._held: Counter[str] = Counter()

    def take(self, host: str) -> Callable[[], None] | None:
        """Counts a connection; what gives its place back, called once, or None: there is none."""
        address = counted_as(host)
        held = self._held[address]
        if self._taken >= (self._most if held < _FEW else self._unreserved):
            return None
        if held >= self._per_address and not self._is_proxy(host):
            return None
        self._taken += 1
        self._held[address] += 1

        def give_back() -> None:
            self._taken -= 1
            self._held[address] -= 1
            if not self._held[address]:
                del self._held[address]

        return give_back


class _Placed(socket.socket):
    """A connection that gives its place back when it is closed, or lost without that."""

    def holds(self, give_back: Callable[[], None]) -> None:
        self._give_back = weakref.finalize(self, give_back)

    def close(self) -> None:
        super().close()
        self._give_back()


class Door(socket.socket):
    """A listening socket that accepts whom there is a place for."""

    places: Places
    _logged = float("-inf")

    def accept(self) -> tuple[socket.socket, Any]:
        """See socket. Raises ConnectionAbortedError for whom it has closed: look again later."""
        accepted, address = super().accept()
        give_back = self.places.take(str(address[0]))
        if give_back is None:
            accepted.close()
            self._say_so(str(address[0]))
            raise ConnectionAbortedError
        placed = _Placed(accepted.family, accepted.type, accepted.proto, accepted.detach())
        placed.holds(give_back)
        return placed, address

    def _say_so(self, host: str) -> None:
        now = time.monotonic()
        if now - self._logged >= _LOG_SECONDS:
            self._logged = now
            log.warning(
                "connections are closed as they come, because there are too many: "
                "DISCOVERY_MAX_CONNECTIONS, DISCOVERY_CONNECTIONS_PER_ADDRESS",
                address=host,
            )


def as_many_as_fit(most: int) -> int:
    """So many connections, or as many as the process may have files; raises that limit if need be.

    Beyond it, nothing else gets a file either: no connection to the database, or to Kubernetes.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return most
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(most, max(soft - _OTHER_FILES, soft // 2))


def doors(host: str, port: int, places: Places) -> list[Door]:
    """Sockets bound to all addresses of a host, over the same places. Raises OSError."""
    found: list[Door] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        ):
            door = Door(family, kind, protocol)
            found.append(door)
            door.places = places
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            door.bind(address)
    except OSError:
        for door in found:
            door.close()
        raise
    return found
