"""Runs migrations as `discovery_owner`, who owns every object, one runner at a time."""

from alembic import context
from discovery_core.store.database import database_url
from discovery_core.store.migrate import MigrationSettings
from discovery_core.store.schema import Base
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

# as in discovery_core.store.migrate, which may be an older one than these migrations
LOCK = 7203411905


def run() -> None:
    """Upgrades or compares over one connection; a second runner waits for the first."""
    settings = MigrationSettings()
    url = context.get_x_argument(as_dictionary=True).get("url") or settings.database_url
    # without a pool the advisory lock goes with the connection, also when a migration fails: a
    # second try would wait for the first one's lock for ever
    engine = create_engine(database_url(url, settings.password), poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": LOCK})
        connection.execute(text("SET lock_timeout = '5s'"))
        connection.execute(text("SET ROLE discovery_owner"))
        connection.commit()
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            compare_type=True,
            compare_server_default=False,
            # each migration holds its locks as briefly as it can
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()


run()
