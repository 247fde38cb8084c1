"""Requests that mean harm: what each is answered, and the memory that it may cost.

Raw bytes, because no client library would send them. The table is for whoever tries a server with
them: the tests here run it against the processes, and a fuzzer may begin with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.api.desk import API
from tests.api.processes import ANN, NOBODY, Process, chunk

MIB = 1024**2
SENT = 32 * MIB
# what one request may take at its peak: buffers of the connection, and a body of the largest size
COSTS = 12 * MIB
FLOW = "00000000-0000-4000-8000-000000000000"
FORM = "Content-Type: multipart/form-data; boundary=b\r\n"
FIELDS = "Content-Type: application/x-www-form-urlencoded\r\n"
JSON = "Content-Type: application/json\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
_FIELD = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n%s\r\n'


@dataclass(frozen=True)
class Hostile:
    """A request: its head, then `begin`, then `piece` again and again, `sent` bytes in all.

    `token` None sends no credentials. `chunked` sends begin and pieces as chunks of a body whose
    length nobody knows; otherwise they are sent as they are. `status` is the answer, which with
    `cut_off` may be lost as the connection ends at once; `costs` the bytes of memory that it takes
    at most.
    """

    name: str
    status: int
    method: str = "POST"
    path: str = f"{API}/flows"
    token: str | None = NOBODY
    headers: str = ""
    begin: bytes = b""
    piece: bytes = b"x" * 60_000
    chunked: bool = True
    cut_off: bool = False
    sent: int = SENT
    costs: int = COSTS

    def answered_by(self, status: int) -> bool:
        """Whether this is the answer."""
        return status == self.status or (self.cut_off and status == 0)

    def parts(self) -> Iterator[bytes]:
        """What is sent, in pieces."""
        token = "" if self.token is None else f"Authorization: Bearer {self.token}\r\n"
        length = CHUNKED if self.chunked else ""
        lines = f"{self.method} {self.path} HTTP/1.1\r\nHost: api\r\n{token}{self.headers}{length}"
        yield lines.encode()
        if self.chunked:
            yield b"\r\n"
        framed = chunk if self.chunked else bytes
        if self.begin:
            yield framed(self.begin)
        for _ in range(self.sent // len(self.piece)):
            yield framed(self.piece)


@dataclass(frozen=True)
class Outcome:
    """How a server took it: the status (0: none), and the most memory meanwhile, in bytes."""

    status: int
    cost: int


async def sent(api: Process, hostile: Hostile) -> Outcome:
    """Sends it as long as the server takes it, and reads the first line of the answer."""
    before = api.begin_to_measure()
    status = b"0"
    async with api.connected() as (reader, writer):
        with contextlib.suppress(ConnectionError):
            for part in hostile.parts():
                writer.write(part)
                await writer.drain()
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            status = [*(await reader.readline()).split(), b"0", b"0"][1]
    return Outcome(int(status), api.most_memory() - before)


def _strangers(path: str, *, method: str = "POST") -> tuple[Hostile, ...]:
    """Bodies without an end from whoever is not known, on one route."""
    return tuple(
        Hostile(f"{method} {path}, {who}", 401, method, path, token, JSON)
        for who, token in (("nobody's token", NOBODY), ("no token", None))
    )


_HEAD = tuple(replace(head, chunked=False, cut_off=True) for head in (
    Hostile("headers without end", 400, "GET", "/", None, piece=b"X: %s\r\n" % (b"x" * 60_000)),
    Hostile("one header without end", 400, "GET", "/", None, "X: "),
    Hostile("a request line without end", 400, "GET", "/" + "x" * 70_000, None),
    Hostile("a chunk's length without end", 400, headers=JSON + CHUNKED + "\r\n1;", token=None,
            path="/sign-in"),
    Hostile("trailers without end", 400, headers=FIELDS + CHUNKED + "\r\n0\r\n", token=None,
            piece=b"X: %s\r\n" % (b"x" * 60_000), path="/sign-in"),
))  # fmt: skip

USER = (
    *_strangers(f"{API}/flows"),
    *_strangers(f"{API}/uploads?namespace=migration&name=a.csv"),
    *_strangers(f"{API}/flows/{FLOW}/reject-mappings"),
    *_strangers(f"{API}/flows/{FLOW}/data", method="DELETE"),
    *_strangers(f"/flows/{FLOW}/suspend"),
    *_strangers("/no/such/place"),
    *_strangers(f"{API}/flows", method="GET"),
    Hostile("a form's fields without end, nobody's", 401, headers=FORM, piece=_FIELD % b"x"),
    Hostile("a form's fields without end", 413, token=ANN, headers=FORM,
            piece=_FIELD % (b"x" * 60_000)),
    Hostile("a form's small fields without end", 400, token=ANN, headers=FORM,
            piece=(_FIELD % b"x") * 100),
    Hostile("one field without end", 413, token=ANN, headers=FORM, begin=(_FIELD % b"")[:-2]),
    Hostile("a part's headers without end", 400, token=ANN, headers=FORM, begin=b"--b\r\n",
            piece=b"X: y\r\n" * 1000),
    Hostile("one header of a part without end", 400, token=ANN, headers=FORM,
            begin=b"--b\r\nX: "),
    Hostile("JSON without end", 413, path=f"{API}/flows/{FLOW}/reject-mappings", token=ANN,
            headers=JSON, piece=b" " * 60_000),
    Hostile("JSON that is nested without end", 413, token=ANN, headers=JSON,
            path=f"{API}/flows/{FLOW}/reject-mappings", piece=b"[" * 60_000),
    Hostile("a sign-in without end", 413, path="/sign-in", token=None, headers=FIELDS,
            begin=b"token=x"),
    Hostile("a sign-in with fields without end", 400, path="/sign-in", token=None,
            headers=FIELDS, piece=b"&a=b" * 10_000),
    Hostile("a sign-in as a form without end", 413, path="/sign-in", token=None, headers=FORM,
            piece=_FIELD % (b"x" * 60_000)),
    Hostile("a sign-out without end", 413, path="/sign-out", token=None, headers=FIELDS),
    Hostile("frames of a stranger's socket", 403, "GET", f"{API}/ws", NOBODY, f"{UPGRADE}\r\n",
            piece=b"\x82\xfe\xea\x60\0\0\0\0" + b"x" * 60_000, chunked=False, cut_off=True),
    *_HEAD,
)  # fmt: skip

EXECUTION = (
    *_strangers("/execution/v1/claim"),
    *_strangers("/execution/v1/complete"),
    *_strangers("/execution/v1/artefacts?fence=1", method="PUT"),
    *_strangers("/execution/v1/records?fence=1", method="PUT"),
    *_strangers("/no/such/place"),
    *(case for case in _HEAD if case.path != "/sign-in"),
)
