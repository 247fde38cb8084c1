"""An operator as a process of its own, for tests that kill it.

Usage: python -m tests.store.operator_alone DATABASE_URL CLUSTER_UID
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any
from uuid import UUID

from discovery_operator.main import Operator
from discovery_operator.settings import OperatorSettings

from tests.store.fake_cluster import FakeCluster


def main() -> None:
    """Runs until it is killed; its cluster is empty."""
    url, cluster_id = sys.argv[1:]
    cluster: Any = FakeCluster()
    cluster.namespaces["kube-system"] = UUID(cluster_id)
    settings = OperatorSettings(
        database_url=url,
        crew_image="crews:test",
        execution_url="https://execution:8443",
        health_host="127.0.0.1",
        health_port=0,
    )
    asyncio.run(Operator(settings, cluster).run())


if __name__ == "__main__":
    main()
