"""Errors that are nobody's mistake: something is away, slow or refuses. They are tried again."""

from __future__ import annotations

import aiohttp
from discovery_core.errors import StoreError
from sqlalchemy.exc import SQLAlchemyError

from .kube import KubernetesError

DATABASE_FAULTS = (SQLAlchemyError, StoreError, TimeoutError, OSError)
CLUSTER_FAULTS = (KubernetesError, aiohttp.ClientError, TimeoutError, OSError)
FAULTS = (*DATABASE_FAULTS, *CLUSTER_FAULTS)
