"""Counts the tokens of language models, each attempt once, whoever led when it ended.

The database knows what every attempt used. The first count after a start adds up all of it; later
ones read only what has ended since. A transaction may commit a little after the moment that it
wrote down, so each look reaches back, and what it has seen already is left out.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from discovery_core.store import OperatorStore

OVERLAP = timedelta(minutes=2)


class TokenCount:
    """Prompt and completion tokens of all ended attempts."""

    def __init__(self, store: OperatorStore) -> None:
        self._store = store
        self._since: datetime | None = None
        self._seen: dict[UUID, datetime] = {}
        self._prompt = 0
        self._completion = 0

    async def count(self) -> tuple[int, int]:
        """The totals now. Raises what the store raises, and then counts nothing twice later."""
        now = await self._store.now()
        if self._since is None:
            since = now - OVERLAP
            self._prompt, self._completion = await self._store.tokens_until(since)
            self._since = since
        for used in await self._store.tokens_since(self._since):
            if used.run_id not in self._seen:
                self._seen[used.run_id] = used.finished_at
                self._prompt += used.prompt
                self._completion += used.completion
        self._since = max(self._since, now - OVERLAP)
        self._seen = {run: at for run, at in self._seen.items() if at > self._since}
        return self._prompt, self._completion
