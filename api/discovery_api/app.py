"""The user API as an application: OpenAPI 3.1, problems, health."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from discovery_core.loops import keep_on
from discovery_core.store import ApiStore, Database
from discovery_core.tasks import end
from fastapi import FastAPI

from .auth import given_token, identify
from .callers import Callers
from .headers import SecurityHeaders
from .limits import AtATime, Failures, Requests
from .live import Live
from .openapi import describe_problems
from .routes import (
    analytics,
    attempts,
    conflicts,
    create,
    flows,
    lessons,
    lifecycle,
    listing,
    purges,
    results,
)
from .routes import live as live_routes
from .server import finish
from .sessions import Sessions
from .settings import ApiSettings
from .web.install import install_pages

# how often it is asked which sessions have been ended elsewhere
ENDED_SECONDS = 2.0
STRANGERS = ("/sign-in", "/sign-out")
# where nobody is known yet, or need be
PUBLIC = (*STRANGERS, "/oidc/start", "/oidc/callback", "/static/", "/api/v1/openapi.json")


async def _learn_of_ended(app: FastAPI) -> None:
    """Has sessions end here that were ended in another process."""
    while True:
        app.state.sessions.learn(await app.state.store.ended_sessions())
        await asyncio.sleep(ENDED_SECONDS)


def create_app(db: Database, settings: ApiSettings) -> FastAPI:
    """The application over an open database."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        live: Live = app.state.live
        loops = [
            asyncio.create_task(live.run(), name="live"),
            asyncio.create_task(
                keep_on("sessions", partial(_learn_of_ended, app)), name="sessions"
            ),
        ]
        yield
        for loop in loops:
            await end(loop)
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
    app.state.live = Live(app.state.store)
    app.state.streams = AtATime(
        settings.streams_per_person,
        "streams of events per person (Helm value api.streamsPerPerson)",
    )
    app.state.uploads = AtATime(
        settings.uploads_per_tenant,
        "uploads at a time per namespace (Helm value tenants.maxUploadsAtATime)",
    )
    app.state.failures = Failures(settings.failed_tokens, settings.failed_tokens_per_second)
    app.state.sessions = Sessions(settings)
    app.state.settings = settings
    for routes in (
        listing, create, flows, lifecycle, results, attempts, lessons, conflicts, live_routes,
        analytics, purges,
    ):  # fmt: skip
        app.include_router(routes.router)
    describe_problems(app)
    install_pages(app)
    app.add_middleware(
        Callers,
        token_of=given_token,
        identify=identify,
        requests=Requests(settings.requests_per_second, settings.request_burst),
        failures=app.state.failures,
        public=PUBLIC,
    )
    app.add_middleware(SecurityHeaders, public_url=settings.public_url)
    return finish(
        app,
        db,
        settings,
        max_message_bytes=settings.max_message_bytes,
        streamed=("/api/v1/discovery/uploads", "/api/v1/discovery/flows"),
        small=STRANGERS,
    )
