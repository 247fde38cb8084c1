"""What people do on pages: answer, stop, go on, end, once more, sign a lesson off.

Each is a form of ours, sent with the session's token against forgery, and leads back to a page.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated
from uuid import UUID, uuid4

from discovery_core.errors import InvalidAnswerError, ProblemError
from discovery_core.resource_gate import NO_TRANSFORM, TRANSFORM_PATTERN, Rerun
from fastapi import APIRouter, Path, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import ValidationError
from starlette.datastructures import FormData

from ..decisions import approval_edits, decide
from ..problems import InvalidRequestError
from ..routes import conflicts
from ..views import Answer, ApproveMappings, FinalMapping
from .pages import review_page
from .signed_in import CheckedForm, FlowPage, OnFlow

router = APIRouter(include_in_schema=False)
_STATES = {"suspend": "Suspend", "resume": "Run", "cancel": "Cancel"}


def _to(on: FlowPage, place: str = "") -> RedirectResponse:
    return RedirectResponse(f"/flows/{on.visit.flow_id}{place}", status_code=303)


@router.post("/flows/{flow_id}/review")
async def answer(request: Request, on: OnFlow, form: CheckedForm) -> Response:
    """Approves with the mappings as they stand in the form, rejects, or asks again."""
    action = str(form.get("action", ""))
    if action not in ("approve", "reject", "ask-again"):
        raise InvalidRequestError(action, title="No such action")
    words = {name: str(form.get(name, "")) for name in ("reason", "hint")}
    once_more = partial(review_page, request, on, typed=_typed(form), words=words)
    try:
        asked = {
            "requestId": UUID(str(form.get("requestId", ""))),
            "artefactDigest": str(form.get("artefactDigest", "")),
            "reason": str(form.get("reason", "")).strip(),
        }
        if action == "approve":
            body = ApproveMappings.model_validate(asked | {"mappings": _mappings(form)})
            view = await decide(on.visit, body, "Approve", approval_edits(body))
        elif action == "reject":
            view = await decide(on.visit, Answer.model_validate(asked), "Reject")
        else:
            hint = str(form.get("hint", "")).strip()
            plain = Answer.model_validate(asked)
            view = await decide(on.visit, plain, "AskAgain", hint=hint)
    except InvalidAnswerError as error:
        return await once_more(problems=error.problems, status_code=422)
    except ValidationError as error:
        said = [f"{item['loc'][-1]}: {item['msg']}" for item in error.errors()]
        return await once_more(problems=said, status_code=422)
    except ProblemError as refused:
        if refused.status not in (403, 409, 422):
            raise
        return await once_more(
            problems=[f"{refused.title}: {refused.detail}"], status_code=refused.status
        )
    return _to(on, "" if view.committed else "?waiting=yes")


def _numbers(form: FormData) -> list[str]:
    return [name.removeprefix("column.") for name in form if name.startswith("column.")]


def _mappings(form: FormData) -> list[FinalMapping]:
    """The complete list, as the form has it. Raises InvalidAnswerError, which names columns."""
    mappings: list[FinalMapping] = []
    problems: list[str] = []
    for number in _numbers(form):
        asked = {
            "column": str(form[f"column.{number}"]),
            "target": str(form.get(f"target.{number}", "")).strip() or None,
            "transform": _unit(form, number),
        }
        try:
            mappings.append(FinalMapping.model_validate(asked))
        except ValidationError as error:
            wrong = [str(item["loc"][-1]) for item in error.errors()]
            problems += [_not_understood(asked, name) for name in wrong]
    if problems:
        raise InvalidAnswerError(problems)
    return mappings


def _not_understood(asked: dict[str, str | None], name: str) -> str:
    """What is wrong with a field of the form, and what to write instead."""
    column, value = asked["column"], str(asked[name])
    if name == "transform":
        fits = re.fullmatch(TRANSFORM_PATTERN, f"unit:{value}")
        instead = f"unit:{value}" if fits else "a unit, such as unit:MiB,"
        return f"column {column!r}: {value[:60]!r} is not a unit; write {instead} or none"
    return f"column {column!r}: {value[:60]!r} is too long for a {name}"


def _unit(form: FormData, number: str) -> str | None:
    """The unit where a person has written another one; else it is left to the target."""
    unit = str(form.get(f"transform.{number}", "")).strip()
    proposed = str(form.get(f"unit.{number}", ""))
    if unit == proposed:
        return None
    return unit or NO_TRANSFORM


def _typed(form: FormData) -> dict[str, dict[str, str]]:
    """What was typed, by column, so that a refusal loses nothing."""
    return {
        str(form[f"column.{number}"]): {
            "target": str(form.get(f"target.{number}", "")),
            "transform": str(form.get(f"transform.{number}", "")),
        }
        for number in _numbers(form)
    }


@router.post("/flows/{flow_id}/inventory/conflicts")
async def decide_conflict(on: OnFlow, form: CheckedForm) -> Response:
    """Decides what counts where sources disagree, or takes that back."""
    identity, field = str(form.get("identity", "")), str(form.get("field", ""))
    if form.get("choice") == "undo":
        await conflicts.undo_decision(on.visit, identity, field)
    else:
        try:
            decision = conflicts.Decision.model_validate(
                {"identity": identity, "field": field, "choice": form.get("choice")}
            )
            await conflicts.decide_conflict(on.visit, decision)
        except ValidationError as error:
            raise InvalidRequestError(str(error), title="No such choice") from error
    return _to(on, "/inventory")


@router.post("/flows/{flow_id}/{action}")
async def act(
    on: OnFlow,
    form: CheckedForm,
    action: Annotated[str, Path(pattern="^(suspend|resume|cancel|rerun)$")],
) -> Response:
    """Changes the spec in the person's name."""
    if action == "rerun":
        try:
            wanted = Rerun.model_validate(
                {
                    "id": str(uuid4()),
                    "fromPhase": str(form.get("fromPhase", "")),
                    "hint": str(form.get("hint", "")).strip() or None,
                }
            )
        except ValidationError as error:
            said = [f"{item['loc'][-1]}: {item['msg']}" for item in error.errors()]
            raise InvalidRequestError("; ".join(said), title="Not possible") from error
        value: object = wanted.model_dump(mode="json", by_alias=True, exclude_none=True)
        await on.visit.set_spec("rerun", value)
    else:
        await on.visit.set_spec("state", _STATES[action])
    return _to(on)
