"""The way from a watch event into the cache and the queue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from .cache import ObjectCache, flow_of
from .queue import KeyedQueue
from .slim import Kind, slim_in_place


class Intake:
    """What handlers may do: remember an object, and have its flow looked at.

    `delivers` is told the kind of every event: its watch lives.
    """

    def __init__(
        self, cache: ObjectCache, queue: KeyedQueue[UUID], delivers: Callable[[Kind], None]
    ) -> None:
        self._cache = cache
        self._queue = queue
        self._delivers = delivers

    def delivered(self, kind: Kind, event: Mapping[str, Any]) -> None:
        """An event as kopf's watch brings it, with type and object."""
        self.changed(kind, event["type"], slim_in_place(kind, event["object"]))

    def changed(self, kind: Kind, event: str | None, raw: Mapping[str, Any]) -> None:
        """An event of a watch: `event` is None for the first list, else as Kubernetes writes it.

        What the cache has already (the echo of our own write) needs no second look.
        """
        self._delivers(kind)
        if event == "DELETED":
            self._cache.remove(kind, raw)
            news = True
        else:
            news = self._cache.put(kind, raw, watched=True)
        flow = flow_of(kind, raw)
        if news and flow is not None:
            self._queue.add(flow)
