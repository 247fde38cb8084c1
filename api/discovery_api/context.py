"""What a request of somebody begins with: who calls, what it works with, and the flow it is about.

Routes, pages and the WebSocket take one of these, resolved once; none finds a flow or opens a
connection to Kubernetes itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from discovery_core.logging import bind
from discovery_core.snapshots import FlowSnapshot
from discovery_core.store import ApiStore, Location
from fastapi import Depends, Request, WebSocket

from .auth import Token
from .caller import Caller, User, acting_as, not_found
from .settings import ApiSettings
from .views import Permissions


@dataclass(frozen=True)
class RequestContext:
    """A caller's request. `log` is what its log line will say; a WebSocket has none."""

    store: ApiStore
    settings: ApiSettings
    caller: Caller
    log: dict[str, object]

    async def user_name(self, **about: object) -> str:
        """The caller's name. It goes into the log line, and so does what the request is `about`."""
        user = await self.caller.user_name()
        self.log.update(about, user=user)
        return user

    async def visit(self, flow_id: UUID) -> Visit:
        """Finds the flow and asks Kubernetes whether the caller may see it. Raises ProblemError."""
        self.log["flow"] = str(flow_id)
        bind(flow=str(flow_id))
        location = await self.store.locate(flow_id)
        if location is None:
            # an unknown token must not learn that this flow does not exist
            await self.caller.user_name()
            raise not_found()
        resource = await self.caller.flow(location.namespace, location.name)
        if resource["metadata"]["uid"] != str(flow_id):
            raise not_found()
        whose = {"tenant": str(location.tenant_id), "namespace": location.namespace}
        self.log.update(whose)
        bind(**whose)
        return Visit(self.store, self.settings, self.caller, self.log, location, resource, flow_id)


@dataclass(frozen=True)
class Visit(RequestContext):
    """A request about a flow, of a caller who may see it."""

    location: Location
    resource: dict[str, Any]
    flow_id: UUID

    @property
    def tenant_id(self) -> UUID:
        """Whose the flow is."""
        return self.location.tenant_id

    async def flow(self) -> FlowSnapshot:
        """How the flow stands."""
        return await self.store.flow(self.tenant_id, self.flow_id)

    async def look(self) -> dict[str, Any]:
        """The resource as it is now."""
        return await self.caller.flow(self.location.namespace, self.location.name)

    async def require(self, verb: str) -> None:
        """Raises ProblemError 403 unless RBAC lets the caller do `verb` with the flow."""
        await self.caller.require(self.location.namespace, self.location.name, verb)

    async def set_spec(self, field: str, value: Any) -> None:
        """Replaces one field of the spec as a whole. Raises ProblemError 403, 404, 409 or 422."""
        await self.caller.set_spec(self.location.namespace, self.location.name, field, value)

    async def permissions(self) -> Permissions:
        """What RBAC lets the caller do with the flow; the admission policy may still say no."""
        where = (self.location.namespace, self.location.name)
        approve, patch, update, delete = await asyncio.gather(
            *(self.caller.may(verb, *where) for verb in ("approve", "patch", "update", "delete"))
        )
        return Permissions(approve=approve and patch, update=update and patch, delete=delete)


def settings_of(connection: Request | WebSocket) -> ApiSettings:
    """The application's settings, for who is not known yet."""
    settings: ApiSettings = connection.app.state.settings
    return settings


@asynccontextmanager
async def context_of(connection: Request | WebSocket, token: str) -> AsyncIterator[RequestContext]:
    """The context of whoever holds the token."""
    log: dict[str, object] = getattr(connection.state, "log", {})
    asked: tuple[str, User] | None = getattr(connection.state, "known", None)
    known = asked[1] if asked is not None and asked[0] == token else None
    settings = settings_of(connection)
    async with acting_as(
        settings, token, known, accounts_decide=settings.allow_service_accounts
    ) as caller:
        yield RequestContext(connection.app.state.store, settings, caller, log)


async def _context(request: Request, token: Token) -> AsyncIterator[RequestContext]:
    async with context_of(request, token) as context:
        yield context


Context = Annotated[RequestContext, Depends(_context)]


async def _visit(context: Context, flow_id: UUID) -> Visit:
    return await context.visit(flow_id)


Visited = Annotated[Visit, Depends(_visit)]
