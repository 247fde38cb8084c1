"""What kopf's watches (and our own writes and lists) have shown of flows, Jobs and pods.

A cache may be behind, so nothing destructive is decided on what is absent from it: that is
confirmed by a GET. What is present is never replaced by an older version, and a uid that was
deleted never comes back.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from uuid import UUID

from discovery_core.loops import set_aside

from .manifests.names import FLOW_UID_LABEL
from .slim import Kind, slim

Raw = Mapping[str, Any]
_TOMBSTONES = 20_000


def version_of(raw: Raw) -> int:
    """The resourceVersion as a number; Kubernetes orders versions of one kind like that."""
    text = str(raw["metadata"].get("resourceVersion") or "0")
    return int(text) if text.isascii() and text.isdigit() else 0


def flow_of(kind: Kind, raw: Raw) -> UUID | None:
    """The flow that an object belongs to, or None where its label names none."""
    meta = raw["metadata"]
    text = meta["uid"] if kind is Kind.FLOW else (meta.get("labels") or {}).get(FLOW_UID_LABEL)
    try:
        return UUID(str(text))
    except ValueError:
        return None


class ObjectCache:
    """Objects by flow. `seen` remembers the newest version that a watch has delivered."""

    def __init__(self) -> None:
        self._flows: dict[UUID, Raw] = {}
        self._parts: dict[Kind, dict[UUID, dict[str, Raw]]] = {Kind.JOB: {}, Kind.POD: {}}
        self._deleted: OrderedDict[str, None] = OrderedDict()
        self._seen: dict[str, int] = {}

    def __len__(self) -> int:
        """How many flows are known."""
        return len(self._flows)

    def put(self, kind: Kind, raw: Raw, *, watched: bool = False) -> bool:
        """Remember an object. Returns whether that is news."""
        uid, version = raw["metadata"]["uid"], version_of(raw)
        if watched:
            self._seen[uid] = max(version, self._seen.get(uid, 0))
        flow = flow_of(kind, raw)
        if flow is None or uid in self._deleted:
            return False
        known = self._objects(kind, flow).get(uid)
        if known is not None and version_of(known) >= version:
            return False
        self._store(kind, flow, uid, slim(kind, raw))
        return True

    def remove(self, kind: Kind, raw: Raw) -> bool:
        """Forget an object that is known to be gone. Returns whether it was there."""
        uid = raw["metadata"]["uid"]
        self._seen.pop(uid, None)
        self._deleted[uid] = None
        while len(self._deleted) > _TOMBSTONES:
            self._deleted.popitem(last=False)
        flow = flow_of(kind, raw)
        if flow is None:
            return False
        if kind is Kind.FLOW:
            return self._flows.pop(flow, None) is not None
        parts = self._parts[kind].get(flow, {})
        found = parts.pop(uid, None) is not None
        if not parts:
            self._parts[kind].pop(flow, None)
        return found

    def flow(self, uid: UUID) -> Raw | None:
        """The DiscoveryFlow of that uid."""
        return self._flows.get(uid)

    def flows(self) -> Iterator[UUID]:
        """Uids of all flows that are known."""
        yield from list(self._flows)

    def jobs(self, flow: UUID) -> list[Raw]:
        """Jobs that carry the flow's label."""
        return list(self._parts[Kind.JOB].get(flow, {}).values())

    def pods(self, flow: UUID) -> list[Raw]:
        """Pods that carry the flow's label, the newest last."""
        pods = self._parts[Kind.POD].get(flow, {}).values()
        return sorted(pods, key=lambda raw: str(raw["metadata"].get("creationTimestamp")))

    def replace(self, kind: Kind, listed: Iterable[Raw], list_version: int) -> set[UUID]:
        """Take over a complete list; returns the flows for which that was news.

        Objects that are newer than the list, or were seen after it, stay.
        """
        changed: set[UUID] = set()
        present: set[str] = set()
        for raw in listed:
            with set_aside("sweep", kind=str(kind)):
                present.add(raw["metadata"]["uid"])
                flow = flow_of(kind, raw)
                if self.put(kind, raw) and flow is not None:
                    changed.add(flow)
        for flow, raw in list(self._all(kind)):
            if raw["metadata"]["uid"] not in present and version_of(raw) <= list_version:
                self.remove(kind, raw)
                changed.add(flow)
        return changed

    def unseen(self, listed: Iterable[Raw]) -> dict[str, int]:
        """Versions of listed objects that no watch has delivered (yet), by uid."""
        found: dict[str, int] = {}
        for raw in listed:
            with set_aside("sweep"):
                uid, version = raw["metadata"]["uid"], version_of(raw)
                if self._seen.get(uid, 0) < version:
                    found[uid] = version
        return found

    def still_unseen(self, before: Mapping[str, int]) -> set[str]:
        """Uids whose version of an earlier `unseen` has not been delivered since."""
        return {
            uid
            for uid, version in before.items()
            if uid not in self._deleted and self._seen.get(uid, 0) < version
        }

    def _objects(self, kind: Kind, flow: UUID) -> Mapping[str, Raw]:
        if kind is Kind.FLOW:
            raw = self._flows.get(flow)
            return {} if raw is None else {raw["metadata"]["uid"]: raw}
        return self._parts[kind].get(flow, {})

    def _store(self, kind: Kind, flow: UUID, uid: str, raw: Raw) -> None:
        if kind is Kind.FLOW:
            self._flows[flow] = raw
        else:
            self._parts[kind].setdefault(flow, {})[uid] = raw

    def _all(self, kind: Kind) -> Iterator[tuple[UUID, Raw]]:
        if kind is Kind.FLOW:
            yield from self._flows.items()
            return
        for flow, parts in self._parts[kind].items():
            for raw in parts.values():
                yield flow, raw
