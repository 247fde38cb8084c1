"""The user API as an application: OpenAPI 3.1, problems, health."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from discovery_core.store import ApiStore, Database
from fastapi import FastAPI

from .openapi import describe_problems
from .routes import attempts, conflicts, flows, lessons
from .server import finish
from .settings import ApiSettings


def create_app(db: Database, settings: ApiSettings) -> FastAPI:
    """The application over an open database."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await db.close()

    app = FastAPI(
        title="DiscoveryFlow API",
        version="v1",
        description="Every call acts in Kubernetes with the caller's own bearer token.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        lifespan=lifespan,
    )
    app.state.store = ApiStore(db)
    app.state.settings = settings
    for routes in (flows, attempts, lessons, conflicts):
        app.include_router(routes.router)
    describe_problems(app)
    return finish(app, db, settings, max_message_bytes=settings.max_message_bytes)
