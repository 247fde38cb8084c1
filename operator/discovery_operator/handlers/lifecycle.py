"""The end of the process: our own loops stop first, so that kopf has nothing to wait for."""

from __future__ import annotations

import kopf


@kopf.on.cleanup()
async def stopping(memo: kopf.Memo, **_: object) -> None:
    """Stops the workers, gives leadership back and closes connections."""
    await memo.stop()
