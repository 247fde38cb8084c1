"""An operator that leaks on purpose, so that the rule of the soak is seen to find it.

`install` is called in the operator's process (`operator_process`). From then on each
reconciliation keeps some memory, and each flow a file that is never closed.
"""

from __future__ import annotations

import os
from uuid import UUID

from discovery_operator.controller import Controller

BYTES = 512 * 1024

_memory: list[bytes] = []
_files: dict[UUID, int] = {}


def install() -> None:
    """Has every reconciliation of this process leak."""
    reconcile = Controller.reconcile

    async def leaking(self: Controller, uid: UUID) -> None:
        _memory.append(os.urandom(BYTES))
        if uid not in _files:
            _files[uid] = os.open(os.devnull, os.O_RDONLY)
        await reconcile(self, uid)

    Controller.reconcile = leaking  # type: ignore[method-assign]
