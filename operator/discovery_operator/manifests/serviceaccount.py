"""The identity of crew pods: one ServiceAccount per namespace, without any rights."""

from __future__ import annotations

from typing import Any

from discovery_core.wire.protocol import CREW_ACCOUNT

from .names import COMPONENT, CONTAINER, MANAGED_BY, PRODUCT


def build_service_account(namespace: str) -> dict[str, Any]:
    """The crews' ServiceAccount. Its token reaches a pod only by an explicit projection."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {
            "name": CREW_ACCOUNT,
            "namespace": namespace,
            "labels": {MANAGED_BY: PRODUCT, COMPONENT: CONTAINER},
        },
        "automountServiceAccountToken": False,
    }
