"""The guards of what comes from files, models and receivers."""

from __future__ import annotations

from .model import DatabaseGuard, Guard

FILES: tuple[Guard | DatabaseGuard, ...] = ()
