"""The guards of what a request may cost, and what a browser is told."""

from __future__ import annotations

from .model import DatabaseGuard, Guard

REQUESTS: tuple[Guard | DatabaseGuard, ...] = ()
