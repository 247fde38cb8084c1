"""Whether a Job that was found under an attempt's name is the one that the operator would make.

The name follows from the attempt, so whoever may create Jobs in the namespace can be there first.
Owner and labels can be copied; what runs, and with what, is therefore compared as a whole. Only
what the API server itself fills in may be there besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from discovery_core.wire.protocol import CREW_ACCOUNT

# defaults of the API server, by field (Kubernetes API reference: Job v1, PodSpec v1)
_DEFAULTS: dict[str, Any] = {
    "completionMode": "NonIndexed",
    "completions": 1,
    "defaultMode": 0o644,
    "dnsPolicy": "ClusterFirst",
    "parallelism": 1,
    "podReplacementPolicy": "TerminatingOrFailed",
    "schedulerName": "default-scheduler",
    "serviceAccount": CREW_ACCOUNT,
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "File",
}
# written in another notation than ours (quantities), or by the Job controller (the selector)
_NOT_COMPARED = frozenset({"resources", "sizeLimit", "selector"})


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Where the specs of two Jobs differ ("spec.template.spec.hostNetwork"); "" where nowhere.

    `ours` is a manifest as `build_job` makes it, `theirs` an object as the API server gives it.
    Metadata of Job and pods is not looked at.
    """
    mine, found = dict(ours["spec"]), dict(theirs.get("spec") or {})
    template, other = mine.pop("template"), found.pop("template", None) or {}
    return _differs(mine, found, "spec") or _differs(
        template["spec"], other.get("spec"), "spec.template.spec"
    )


def _differs(ours: Any, theirs: Any, path: str) -> str:
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for key in sorted({*ours, *theirs} - _NOT_COMPARED):
            where = f"{path}.{key}"
            if key not in ours:
                told = "" if _filled_in(key, theirs[key]) else where
            else:
                told = _differs(ours[key], theirs.get(key), where)
            if told:
                return told
        return ""
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = enumerate(zip(ours, theirs, strict=True))
        return next(filter(None, (_differs(a, b, f"{path}[{i}]") for i, (a, b) in pairs)), "")
    return "" if ours == theirs else path


def _filled_in(key: str, value: Any) -> bool:
    """Whether a field that we leave out is empty, or as the API server fills it in."""
    return not value or _DEFAULTS.get(key) == value
