"""The guards of what is forgotten, and what stays."""

from __future__ import annotations

from .model import DatabaseGuard, Guard

ERASURE: tuple[Guard | DatabaseGuard, ...] = ()
