"""`python -m discovery_api`: serves the user API."""

from __future__ import annotations

from discovery_core.logging import configure_logging
from discovery_core.memory import give_memory_back
from discovery_core.store import Database

from .server import serve
from .settings import ApiSettings, settings_from_environment


def main() -> None:
    """Reads the settings and serves until told to stop."""
    give_memory_back()
    settings = settings_from_environment(
        ApiSettings,
        module="discovery_api",
        purpose="Serves the user API: how flows stand, and the answers to their questions.",
    )
    configure_logging("api", settings.log_level)
    # only now, because libraries warn when they are imported, and a warning is a log line too
    from .app import create_app  # noqa: PLC0415

    db = Database(
        settings.database_url,
        settings.database_password,
        application_name="discoveryflow-api",
        pool_size=settings.database_pool,
    )
    app = create_app(db, settings)
    serve(app, settings, settings.port, on_exit=app.state.live.close)


if __name__ == "__main__":
    main()
