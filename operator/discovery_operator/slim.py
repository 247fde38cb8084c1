"""What the operator keeps of an object: what it looks at, and nothing that others can make large.

Annotations may have 256 KiB, labels, finalizers and managedFields have no limit but that of the
object (1.5 MB). Whoever may create objects could so end the operator, which keeps all of them in
half a gigabyte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from .manifests.names import (
    ATTEMPT_LABEL,
    CONTAINER,
    FLOW_UID_LABEL,
    MANAGED_BY,
    PHASE_LABEL,
    ROUND_LABEL,
)

Raw = Mapping[str, Any]


class Kind(StrEnum):
    """The three kinds of objects that are watched."""

    FLOW = "DiscoveryFlow"
    JOB = "Job"
    POD = "Pod"


_META = (
    "uid",
    "name",
    "namespace",
    "generation",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
)
_LABELS = (MANAGED_BY, FLOW_UID_LABEL, PHASE_LABEL, ROUND_LABEL, ATTEMPT_LABEL)
_JOB_STATUS = ("conditions", "active", "succeeded", "failed")
_POD_STATUS = ("phase", "reason", "message", "conditions")


def slim(kind: Kind, raw: Raw) -> dict[str, Any]:
    """A copy with the fields that `views` reads, of a flow all of spec and status.

    These the resource's own rules bound. Times and versions stay as Kubernetes wrote them.
    """
    meta = raw["metadata"]
    kept = _some(meta, _META)
    if "labels" in meta:
        kept["labels"] = _some(meta["labels"] or {}, _LABELS)
    owners = [owner for owner in meta.get("ownerReferences") or [] if owner.get("controller")]
    if owners:
        kept["ownerReferences"] = owners
    return {"metadata": kept, **_REST[kind](raw)}


def slim_in_place(kind: Kind, raw: dict[str, Any]) -> dict[str, Any]:
    """The same object, lighter: kopf holds on to what its watches have delivered for a while."""
    lighter = slim(kind, raw)
    raw.clear()
    raw.update(lighter)
    return raw


def _some(given: Raw, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: given[name] for name in names if name in given}


def _of_flow(raw: Raw) -> dict[str, Any]:
    return _some(raw, ("spec", "status"))


def _of_job(raw: Raw) -> dict[str, Any]:
    return {"status": _some(raw.get("status") or {}, _JOB_STATUS)}


def _of_pod(raw: Raw) -> dict[str, Any]:
    status = raw.get("status") or {}
    containers = [c for c in status.get("containerStatuses") or [] if c.get("name") == CONTAINER]
    return {
        "spec": _some(raw.get("spec") or {}, ("nodeName",)),
        "status": {**_some(status, _POD_STATUS), "containerStatuses": containers},
    }


_REST: dict[Kind, Callable[[Raw], dict[str, Any]]] = {
    Kind.FLOW: _of_flow,
    Kind.JOB: _of_job,
    Kind.POD: _of_pod,
}
