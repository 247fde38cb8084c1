"""Kopf handlers: each only remembers the object and puts its flow into the queue.

They are `on.event` handlers, which store nothing in the resource and add no finalizer. Errors in
them would be logged and dropped by kopf, so they do nothing that can fail.
"""

from __future__ import annotations

from . import flows, jobs, lifecycle, pods

__all__ = ["flows", "jobs", "lifecycle", "pods"]
