"""What pages begin with: the session, and the flow that it may see."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from discovery_core.snapshots import FlowSnapshot
from fastapi import Depends, Request
from starlette.datastructures import FormData

from ..caller import acting_as
from ..problems import unauthenticated
from ..sessions import CSRF_FIELD, Session, Sessions
from ..views import Permissions
from ..visible import Visit, begin_visit, permissions_of, state_of

MOST_FIELDS = 12_000


def _signed_in(request: Request) -> Session:
    """The session. Raises ProblemError 401, which leads to the sign-in page."""
    sessions: Sessions = request.app.state.sessions
    session = sessions.of(request)
    if session is None:
        raise unauthenticated("sign in")
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


async def _flow_page(request: Request, flow_id: UUID, session: SignedIn) -> AsyncIterator[FlowPage]:
    async with acting_as(state_of(request)[1], session.token) as caller:
        visit = await begin_visit(request, caller, flow_id)
        yield FlowPage(
            session, visit, await visit.flow(), await permissions_of(caller, visit.location)
        )


OnFlow = Annotated[FlowPage, Depends(_flow_page)]
