"""The admission policy's rule about volumes, evaluated as the API server does it."""

from __future__ import annotations

import itertools
from typing import Any

import celpy
import pytest
from celpy import celtypes
from celpy.adapter import json_to_cel

from tests.unit.admission import computed, policy, rule

RULES = ("unreadable PersistentVolumeClaim", "unreadable volume")
VOLUME = {"persistentVolumeClaim": {"claimName": "exports", "path": "a.csv"}}
GET, MOUNT, MAKE = (
    "/persistentvolumeclaims/team/exports/get",
    "/persistentvolumeclaims/team/exports/mount",
    "/pods/team/create",
)


def evaluated(expression: str, source: dict[str, Any], rights: set[str]) -> Any:
    """What CEL makes of it, for a caller with `rights`: resource, namespace, name and verb."""

    def further(path: celtypes.StringType, part: celtypes.StringType) -> celtypes.StringType:
        return celtypes.StringType(f"{path}/{part}" if part else path)

    def allowed(path: celtypes.StringType) -> celtypes.BoolType:
        return celtypes.BoolType(str(path) in rights)

    steps = dict.fromkeys(("group", "resource", "namespace", "name", "check"), further)
    environment = celpy.Environment()
    program = environment.program(environment.compile(expression), {**steps, "allowed": allowed})
    return program.evaluate(
        {
            "authorizer": celtypes.StringType(""),
            "object": json_to_cel({"spec": {"source": source}}),
            "request": json_to_cel(
                {"namespace": "team", "userInfo": {"username": "system:serviceaccount:team:lou"}}
            ),
            "variables": json_to_cel({"naming": True}),
        }
    )


def passes(source: dict[str, Any], rights: set[str]) -> bool:
    """Whether no rule about volumes refuses it."""
    return all(evaluated(rule(name)["expression"], source, rights) for name in RULES)


@pytest.mark.parametrize(
    "rights",
    [set(some) for n in range(4) for some in itertools.combinations((GET, MOUNT, MAKE), n)],
)
def test_s03_a_volume_needs_more_than_a_look_at_its_claim(rights: set[str]) -> None:
    may = GET in rights and bool(rights & {MOUNT, MAKE})
    assert passes(VOLUME, rights) is may


def test_rights_to_another_volume_or_elsewhere_do_not_count() -> None:
    others = {MOUNT.replace("exports", "other"), MAKE.replace("team", "elsewhere")}
    assert not passes(VOLUME, {GET} | others)
    assert passes({"configMap": {"name": "a", "key": "b"}}, set())


def test_no_rule_asks_more_than_the_api_server_lets_it() -> None:
    """Each question costs 350,000 of the 1,000,000 that a rule may, and the operands a little."""
    for name in RULES:
        assert rule(name)["expression"].count(".check(") <= 2


def test_the_refusal_says_which_rights_are_missing() -> None:
    lou = "system:serviceaccount:team:lou may not read"
    claim, volume = (
        str(evaluated(rule(name)["messageExpression"], VOLUME, set())) for name in RULES
    )
    assert claim.startswith(f"{lou} PersistentVolumeClaim exports")
    assert "the verb get" in claim
    assert volume.startswith(f"{lou} what is on PersistentVolumeClaim exports")
    assert "create on pods, or the verb mount" in volume


# -- who decides -----------------------------------------------------------------------------------

OPEN, OLD = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
ACCOUNT, PERSON = "system:serviceaccount:team:ann", "ann@example.org"
DECISIONS = ("answering", "withdrawing", "loosened", "shortened", "retaining")


def variable(name: str, user: str = PERSON, **given: Any) -> bool:
    """A variable of the policy."""
    (found,) = [one for one in policy("false")["variables"] if one["name"] == name]
    return bool(computed(found["expression"], user, **given))


def lets(message: str, user: str, *, setting: str = "false", **given: Any) -> bool:
    """Whether a validation lets the request pass."""
    return bool(computed(rule(message, setting)["expression"], user, **given))


@pytest.mark.parametrize("decision", DECISIONS)
def test_s11_a_serviceaccount_decides_nothing_unless_the_installation_lets_it(
    decision: str,
) -> None:
    for user, setting, passes_ in (
        (PERSON, "false", True),
        (ACCOUNT, "false", False),
        (ACCOUNT, "true", True),
    ):
        variables = dict.fromkeys(DECISIONS, False) | {
            decision: True,
            "account": variable("account", user),
        }
        may = lets("decision by a ServiceAccount", user, setting=setting, variables=variables)
        assert may is passes_, (user, setting)


def test_s11_a_serviceaccount_may_do_what_decides_nothing() -> None:
    variables = dict.fromkeys(DECISIONS, False) | {"account": True}
    assert lets("decision by a ServiceAccount", ACCOUNT, variables=variables)


def an_answer(request: str, **changes: str) -> dict[str, Any]:
    """The spec of a flow with an answer to `request`."""
    return {"spec": {"approval": {"requestId": request, "decidedBy": "bob"} | changes}}


@pytest.mark.parametrize(
    ("before", "after", "withdrawn"),
    [
        (an_answer(OPEN), {"spec": {}}, True),
        (an_answer(OPEN), an_answer(OPEN, decision="Reject"), True),
        (an_answer(OPEN), an_answer(OLD), True),
        (an_answer(OPEN), an_answer(OPEN), False),
        (an_answer(OLD), {"spec": {}}, False),
        (an_answer(OLD), an_answer(OPEN), False),
        ({"spec": {}}, an_answer(OPEN), False),
    ],
)
def test_s16_an_answer_is_unread_while_its_request_is_the_open_one(
    before: dict[str, Any], after: dict[str, Any], withdrawn: bool
) -> None:
    asked = before | {"status": {"approvalRequest": {"requestId": OPEN}}}
    found = variable("withdrawing", object=after, oldObject=asked, variables={"asked": True})
    assert found is withdrawn
    assert not variable(
        "withdrawing", object=after, oldObject=before | {"status": {}}, variables={"asked": False}
    )


@pytest.mark.parametrize("missing", ["listed", "separate", "approves", None])
def test_s16_only_who_may_answer_takes_an_unread_answer_back(missing: str | None) -> None:
    variables = {"withdrawing": True, "listed": True, "separate": True}
    if missing in variables:
        variables[missing] = False
    rule_ = "answer withdrawn by somebody else"
    may = lets(rule_, PERSON, variables=variables, approves=missing != "approves")
    assert may is (missing is None)
    assert lets(rule_, PERSON, variables=variables | {"withdrawing": False})


def test_s06_only_who_may_purge_says_how_long_data_stays() -> None:
    rule_ = "retention without the verb purge"
    for retaining, approves, passes_ in (
        (True, False, False), (True, True, True), (False, False, True),
    ):  # fmt: skip
        variables = {"retaining": retaining}
        assert lets(rule_, PERSON, variables=variables, approves=approves) is passes_
    for before, after, retaining in (
        ({}, {"retention": "1h"}, True), ({"retention": "1h"}, {}, False), ({}, {}, False),
    ):  # fmt: skip
        made: dict[str, Any] = {"object": {"spec": after}, "oldObject": {"spec": before}}
        assert variable("retaining", **made, variables={"creating": True}) is retaining
    for changed in ([], ["retention"], ["state"]):
        found = variable(
            "retaining", object={"spec": {}}, variables={"creating": False, "changed": changed}
        )
        assert found is ("retention" in changed)
