"""The guards of who is taken for a crew pod, and who answers."""

from __future__ import annotations

from .model import DatabaseGuard, Guard

IDENTITY: tuple[Guard | DatabaseGuard, ...] = ()
