"""`python -m discovery_api.execution`: serves the execution API."""

from __future__ import annotations

from discovery_core.logging import configure_logging
from discovery_core.memory import give_memory_back
from discovery_core.store import Database

from ..server import serve
from ..settings import ExecutionSettings, settings_from_environment
from .app import create_app


def main() -> None:
    """Reads the settings and serves until told to stop."""
    give_memory_back()
    settings = settings_from_environment(
        ExecutionSettings,
        module="discovery_api.execution",
        purpose="Serves the execution API, through which crew pods get their work and return it.",
    )
    configure_logging("execution-api", settings.log_level)
    db = Database(
        settings.database_url,
        settings.database_password,
        application_name="discoveryflow-execution",
        pool_size=settings.database_pool,
    )
    serve(create_app(db, settings), settings, settings.port)


if __name__ == "__main__":
    main()
