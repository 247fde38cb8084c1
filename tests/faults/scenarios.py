"""What a person, a crew or a deadline does to a flow, from its creation to its end.

A scenario is written so that it can be repeated against an operator that dies anywhere: it waits
for what the status shows, and each of its own writes is one that a person would make once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from discovery_core.errors import ErrorCode
from discovery_core.phases import Phase

from tests.faults.worker import Attempt, Failing, Script, always_succeeds
from tests.faults.world import World


@dataclass(frozen=True)
class Scenario:
    """`act` ends once the flow has reached its end. `script` is what crews do."""

    name: str
    act: Callable[[World], Awaitable[None]]
    script: Script = always_succeeds
    spec: dict[str, Any] = field(default_factory=dict)


async def _happy(world: World) -> None:
    await world.until_state("AwaitingApproval")
    await world.answer()
    await world.until_state("Succeeded")


async def _fails(world: World) -> None:
    await world.until_state("Failed")


async def _reject(world: World) -> None:
    await world.until_state("AwaitingApproval")
    await world.answer(decision="Reject", reason="wrong file")
    await world.until_state("Rejected")


async def _expires(world: World) -> None:
    await world.until_state("Rejected")


async def _delete(world: World) -> None:
    await world.until_state("AwaitingApproval")
    await world.delete()
    await world.until_row("Cancelled")


async def _cancel(world: World) -> None:
    await world.until_state("AwaitingApproval")
    await world.change(state="Cancel")
    await world.until_state("Cancelled")


async def _rerun(world: World) -> None:
    await _happy(world)
    await world.change(rerun={"id": "once-more", "fromPhase": "asset_inventory"})
    await world.until(
        lambda status: status.get("state") == "Succeeded" and status.get("round") == 2,
        what="the second round's end",
    )


def _cleansing_fails_once(attempt: Attempt) -> Failing | None:
    if attempt.phase is Phase.DATA_CLEANSING and attempt.attempt == 1:
        return Failing(ErrorCode.CRASHED)
    return None


def _file_is_empty(attempt: Attempt) -> Failing | None:
    return Failing(ErrorCode.EMPTY_FILE) if attempt.phase is Phase.DATA_IMPORT else None


SCENARIOS: tuple[Scenario, ...] = (
    Scenario("happy", _happy),
    Scenario("invalid file", _fails, _file_is_empty),
    Scenario("reject", _reject),
    Scenario("approval timeout", _expires, spec={"approvalPolicy": {"timeout": "2s"}}),
    Scenario("delete midway", _delete),
    Scenario("crew retry", _happy, _cleansing_fails_once),
    Scenario("cancel", _cancel),
    Scenario("retry from a phase", _rerun),
)
