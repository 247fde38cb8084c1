"""The state in Postgres, and the only code that changes it."""

from .api import ApiStore, Location, RequestRow
from .database import ClusterScope, Database, TenantScope
from .execution import ExecutionStore
from .operator import OperatorStore, Version

__all__ = [
    "ApiStore",
    "ClusterScope",
    "Database",
    "ExecutionStore",
    "Location",
    "OperatorStore",
    "RequestRow",
    "TenantScope",
    "Version",
]
