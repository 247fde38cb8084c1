"""What may go wrong between the operator and the API server, one small class each.

All strike by counting, so that a run can be repeated. `ALL` makes a fresh one of each.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from tests.faults.api_proxy import Answer, ApiFault, Call, Events, Raw, ResetError

RETRY_AFTER = 1
# clocks of two processes on one machine are one clock, but a timer may fire a little early
EARLY = 0.02


def status(code: int, reason: str, message: str) -> Raw:
    """A Status object as the API server writes it."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "reason": reason,
        "message": message,
        "code": code,
    }


def refusal(code: int, reason: str, *headers: tuple[str, str]) -> Answer:
    """An answer that refuses."""
    body = json.dumps(status(code, reason, "as the test wants it")).encode()
    return Answer(code, body, (("Content-Type", "application/json"), *headers))


def _tells(event: Raw) -> bool:
    return event["type"] in {"ADDED", "MODIFIED", "DELETED"}


# -- of watches --------------------------------------------------------------------------------


class _Missing(ApiFault):
    """Some events do not come: each `every`th. `ends` says whether the stream ends with it."""

    every: int
    ends: bool

    def __init__(self) -> None:
        super().__init__()
        self._seen = 0

    async def events(self, call: Call, events: Events) -> Events:
        async for event in events:
            if _tells(event):
                self._seen += 1
                if self._seen % self.every == 0:
                    self.strikes += 1
                    if self.ends:
                        return
                    continue
            yield event


class Dropped(_Missing):
    """Every third event is dropped and the stream ends, so the watch asks for it again."""

    name = "event dropped, stream ended"
    every = 3
    ends = True


class Lost(_Missing):
    """Every second event never comes, and the watch goes on behind it: only a list shows it."""

    name = "event lost"
    every = 2
    ends = False


class Duplicated(ApiFault):
    """Every event comes twice."""

    name = "event twice"

    async def events(self, call: Call, events: Events) -> Events:
        async for event in events:
            yield event
            if _tells(event):
                self.strikes += 1
                yield event


class Reordered(ApiFault):
    """Two events that follow each other closely change places."""

    name = "events reordered"
    pause = 0.5

    async def events(self, call: Call, events: Events) -> Events:
        held: Raw | None = None
        coming = asyncio.ensure_future(anext(events))
        try:
            while True:
                await asyncio.wait([coming], timeout=self.pause if held is not None else None)
                if not coming.done():
                    if held is not None:
                        yield held
                    held = None
                    continue
                event = coming.result()
                coming = asyncio.ensure_future(anext(events))
                if held is None:
                    held = event
                    continue
                self.strikes += 1
                yield event
                yield held
                held = None
        except StopAsyncIteration:
            if held is not None:
                yield held
        finally:
            coming.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration):
                await coming


class Delayed(ApiFault):
    """Each event comes 200 ms after the one before it, at the earliest."""

    name = "events delayed"

    async def events(self, call: Call, events: Events) -> Events:
        async for event in events:
            self.strikes += 1
            await asyncio.sleep(0.2)
            yield event


class Replayed(ApiFault):
    """After each event, the last twenty of its kind come again, the oldest first."""

    name = "old objects replayed"

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, deque[Raw]] = {}

    async def events(self, call: Call, events: Events) -> Events:
        told = self._told.setdefault(call.path, deque(maxlen=20))
        async for event in events:
            yield event
            if not _tells(event):
                continue
            told.append(event)
            for old in list(told)[:-1]:
                self.strikes += 1
                yield old


class Silent(ApiFault):
    """The stream is open and no byte ever comes: the first event is held for ever."""

    name = "silent stream"
    noticed = "the watch of DiscoveryFlow delivers nothing"

    async def events(self, call: Call, events: Events) -> Events:
        async for event in events:
            self.strikes += 1
            await asyncio.Event().wait()
            yield event


class GoneStatus(ApiFault):
    """The first watch of each kind and then every second one is refused with 410."""

    name = "410 as status"

    def __init__(self) -> None:
        super().__init__()
        self._asked: dict[str, int] = {}

    async def before(self, call: Call) -> Answer | None:
        if not (call.watch and call.ours):
            return None
        asked = self._asked[call.path] = self._asked.get(call.path, 0) + 1
        if asked % 2 == 0:
            return None
        self.strikes += 1
        return refusal(410, "Expired")


class GoneEvent(ApiFault):
    """After two events the watch ends with an ERROR event of that code, `times` times."""

    def __init__(self, code: int = 410, reason: str = "Expired", times: int = 100) -> None:
        super().__init__()
        self._times = times
        self.name = f"{code} as event"
        self._error = {"type": "ERROR", "object": status(code, reason, "as the test wants it")}

    async def events(self, call: Call, events: Events) -> Events:
        told = 0
        async for event in events:
            yield event
            told += _tells(event)
            if told == 2 and self.strikes < self._times:
                self.strikes += 1
                yield self._error
                return


# -- of requests -------------------------------------------------------------------------------


class Conflict(ApiFault):
    """The first write and then every second one is refused with 409."""

    name = "409 on writes"

    def __init__(self) -> None:
        super().__init__()
        self._writes = 0

    async def before(self, call: Call) -> Answer | None:
        if not call.write:
            return None
        self._writes += 1
        if self._writes % 2 == 0:
            return None
        self.strikes += 1
        return refusal(409, "Conflict")


class TooMany(ApiFault):
    """Every third request is refused with 429; the same one must not come before its time."""

    name = "429 with Retry-After"

    def __init__(self) -> None:
        super().__init__()
        self._requests = 0
        self._refused: dict[tuple[str, str], float] = {}

    async def before(self, call: Call) -> Answer | None:
        if not call.ours or call.watch:
            return None
        key, now = (call.method, call.target), time.monotonic()
        refused = self._refused.pop(key, None)
        if refused is not None:
            if now - refused < RETRY_AFTER - EARLY:
                self.broken.append(f"{call.method} {call.path} again after {now - refused:.2f} s")
            return None
        self._requests += 1
        if self._requests % 3:
            return None
        self.strikes += 1
        self._refused[key] = now
        return refusal(429, "TooManyRequests", ("Retry-After", str(RETRY_AFTER)))


class Applied(ApiFault):
    """The first write and then every second one is made, and answered with an error."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__()
        self.name = f"{code} after the write"
        self._answer = refusal(code, reason)
        self._writes = 0

    async def after(self, call: Call, answer: Answer) -> Answer:
        if not call.write or answer.status >= 400:
            return answer
        self._writes += 1
        if self._writes % 2 == 0:
            return answer
        self.strikes += 1
        return self._answer


class Reset(ApiFault):
    """Of the requests every fourth is cut off, in turns before and after the API server acts."""

    name = "connection reset"

    def __init__(self) -> None:
        super().__init__()
        self._requests = 0

    async def before(self, call: Call) -> Answer | None:
        if not call.ours or call.watch:
            return None
        self._requests += 1
        if self._requests % 8 == 1:
            self.strikes += 1
            raise ResetError
        return None

    async def after(self, call: Call, answer: Answer) -> Answer:
        if call.ours and self._requests % 8 == 5:
            self.strikes += 1
            raise ResetError
        return answer


ALL: tuple[Callable[[], ApiFault], ...] = (
    Dropped,
    Lost,
    Duplicated,
    Reordered,
    Delayed,
    Replayed,
    Silent,
    GoneStatus,
    GoneEvent,
    lambda: GoneEvent(500, "InternalError", times=3),
    Conflict,
    TooMany,
    lambda: Applied(500, "InternalError"),
    lambda: Applied(504, "Timeout"),
    Reset,
)
