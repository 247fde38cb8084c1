"""What pages begin with: the session, and the flow that it may see."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from discovery_core.snapshots import FlowSnapshot
from fastapi import Depends, Request
from starlette.datastructures import FormData

from ..context import RequestContext, Visit, context_of
from ..problems import UnauthenticatedError
from ..sessions import CSRF_FIELD, Session, Sessions
from ..views import Permissions

MOST_FIELDS = 12_000


def _signed_in(request: Request) -> Session:
    """The session. Raises ProblemError 401, which leads to the sign-in page."""
    sessions: Sessions = request.app.state.sessions
    session = sessions.of(request)
    if session is None:
        raise UnauthenticatedError("sign in")
    return session


SignedIn = Annotated[Session, Depends(_signed_in)]


async def _checked_form(request: Request, session: SignedIn) -> FormData:
    """The fields of a form of ours. Raises ProblemError 403 for a forged one."""
    form = await request.form(max_files=0, max_fields=MOST_FIELDS, max_part_size=64 * 1024)
    sessions: Sessions = request.app.state.sessions
    sessions.check_forgery(request, session, str(form.get(CSRF_FIELD, "")))
    return form


CheckedForm = Annotated[FormData, Depends(_checked_form)]


@dataclass(frozen=True)
class FlowPage:
    """A flow on a page of somebody who may see it."""

    session: Session
    visit: Visit
    flow: FlowSnapshot
    permissions: Permissions

    def shown(self, **values: Any) -> dict[str, Any]:
        """What the templates of a flow's pages need."""
        return {"flow": self.flow, "may": self.permissions} | values


async def _context(request: Request, session: SignedIn) -> AsyncIterator[RequestContext]:
    async with context_of(request, session.token) as context:
        yield context


OnPage = Annotated[RequestContext, Depends(_context)]


async def _flow_page(context: OnPage, flow_id: UUID, session: SignedIn) -> FlowPage:
    visit = await context.visit(flow_id)
    return FlowPage(session, visit, await visit.flow(), await visit.permissions())


OnFlow = Annotated[FlowPage, Depends(_flow_page)]
