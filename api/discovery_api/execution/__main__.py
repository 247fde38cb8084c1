"""`python -m discovery_api.execution`: serves the execution API."""

from __future__ import annotations

from discovery_core.logging import configure_logging
from discovery_core.store import Database

from ..kubernetes import own_client
from ..server import serve
from ..settings import ExecutionSettings
from .app import create_app
from .identity import Identifier, Identity


class _LazyIdentifier:
    """Opens the Kubernetes client inside the running event loop."""

    def __init__(self, settings: ExecutionSettings) -> None:
        self._settings = settings
        self._identifier: Identifier | None = None

    async def identify(self, authorization: str | None) -> Identity:
        if self._identifier is None:
            self._identifier = Identifier(
                own_client(self._settings), self._settings.identity_cache_seconds
            )
        return await self._identifier.identify(authorization)


def main() -> None:
    """Reads the settings and serves until told to stop."""
    configure_logging("execution-api")
    settings = ExecutionSettings()
    db = Database(
        settings.database_url,
        settings.database_password,
        application_name="discoveryflow-execution",
        pool_size=settings.database_pool,
    )
    serve(create_app(db, _LazyIdentifier(settings), settings), settings, settings.port)


if __name__ == "__main__":
    main()
