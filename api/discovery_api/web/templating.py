"""Renders pages. Everything that comes from files or people is escaped by default."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from discovery_core.phases import PHASES
from discovery_core.states import STATES, FlowState
from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..sessions import Session
from .assets import address
from .charts import bars, donut, histogram
from .graph import drawing

TEMPLATES = Path(__file__).parent / "templates"
TITLES = {str(spec.name): spec.title for spec in PHASES}
_WORDS = {
    "AwaitingApproval": "Waits for approval",
    "Pending": "Pending",
    "Queued": "Queued",
    "Running": "Running",
    "Suspended": "Suspended",
    "Waiting": "Stalled",
}


def _when(value: datetime | str | None) -> str:
    """A moment in UTC, to the minute."""
    if not value:
        return "-"
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _iso(value: datetime | str | None) -> str:
    if not value:
        return ""
    return value if isinstance(value, str) else value.astimezone(UTC).isoformat()


def _seconds(value: float | None) -> str:
    """A duration as people say it."""
    if value is None:
        return "-"
    if value < 90:
        return f"{value:.1f} s"
    if value < 5400:
        return f"{value / 60:.0f} min"
    return f"{value / 3600:.1f} h" if value < 172_800 else f"{value / 86_400:.0f} d"


def _size(value: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def _state_word(state: str) -> str:
    return _WORDS.get(state, state)


def _state_class(state: str) -> str:
    """How a state is coloured."""
    if state in ("Failed", "Rejected", "Waiting"):
        return "bad"
    if state == "Succeeded":
        return "good"
    if state == "AwaitingApproval":
        return "asks"
    return "quiet" if state in ("Cancelled", "Suspended") else "busy"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "when": _when,
        "iso": _iso,
        "seconds": _seconds,
        "size": _size,
        "state_word": _state_word,
        "state_class": _state_class,
        "phase": lambda name: TITLES.get(str(name), str(name or "-")),
    }
    environment.globals |= {
        "bars": bars,
        "donut": donut,
        "static": address,
        "histogram": histogram,
        "drawing": drawing,
        "phases": [(str(spec.name), spec.title) for spec in PHASES],
        "states": [str(state) for state in FlowState],
        "meanings": {str(state): info.meaning for state, info in STATES.items()},
    }
    return environment


_ENVIRONMENT = _environment()


def page(
    request: Request,
    template: str,
    session: Session | None,
    *,
    status_code: int = 200,
    **values: Any,
) -> HTMLResponse:
    """A page, or a part of one. A look at it counts as activity of the session."""
    content = _ENVIRONMENT.get_template(template).render(
        path=request.url.path,
        user=session.user if session is not None else "",
        csrf=session.csrf if session is not None else "",
        **values,
    )
    response = HTMLResponse(content, status_code=status_code)
    if session is not None:
        request.app.state.sessions.renew(response, session)
    return response
