"""What code makes of a mapping crew's answer: it can change proposals, never break them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from discovery_core.wire.results import FieldMapping, MappingCandidate
from discovery_crews.phases.field_mapping.judgement import (
    Doubts,
    MappingDecisions,
    apply_decisions,
    check_decisions,
    check_doubts,
)
from hypothesis import given
from hypothesis import strategies as st

TARGETS = ["hostname", "asset_name", "memory_gb"]


def proposal(column: str, target: str | None, role: str = "primary") -> FieldMapping:
    return FieldMapping.model_validate(
        {
            "column": column,
            "target": target,
            "role": role,
            "confidence": 0.8,
            "reason": "It fits.",
            "candidates": [MappingCandidate(target=name, score=0.5) for name in TARGETS],
            "transform": "unit:MB" if target == "memory_gb" else None,
        }
    )


PROPOSED = [
    proposal("Server", "hostname"),
    proposal("VM", "asset_name"),
    proposal("RAM MB", "memory_gb"),
    proposal("RAM GB", "memory_gb", "alternate"),
    proposal("Note", None),
]


def judged(*decisions: dict[str, Any], doubts: Iterable[str] = ()) -> dict[str, FieldMapping]:
    accepted = check_decisions(PROPOSED, {"decisions": list(decisions)})
    doubted = check_doubts(PROPOSED, {"doubts": [{"column": column} for column in doubts]})
    return {entry.column: entry for entry in apply_decisions(PROPOSED, accepted, doubted)}


def test_an_empty_answer_accepts_every_proposal() -> None:
    assert list(judged().values()) == PROPOSED


def test_a_column_that_takes_over_a_field_is_its_primary_source() -> None:
    after = judged({"column": "VM", "target": "hostname", "reason": "It is the name."})
    assert (after["VM"].target, after["VM"].role) == ("hostname", "primary")
    assert after["VM"].decided_by == "agent"
    assert after["VM"].reason == "Chosen by the crew from the shortlist: It is the name."
    assert after["VM"].confidence == pytest.approx(0.3 + 0.6 * 0.5 + 0.05)
    assert (after["Server"].role, after["Server"].decided_by) == ("alternate", "engine")
    assert [after[column] for column in ("RAM MB", "RAM GB", "Note")] == PROPOSED[2:]


def test_a_declined_primary_leaves_its_place_to_the_alternate() -> None:
    after = judged({"column": "RAM MB", "target": None})
    assert (after["RAM MB"].target, after["RAM MB"].transform) == (None, None)
    assert (after["RAM GB"].target, after["RAM GB"].role) == ("memory_gb", "primary")


def test_confirming_an_alternate_changes_nothing() -> None:
    assert list(judged({"column": "RAM GB", "target": "memory_gb"}).values()) == PROPOSED


def test_a_doubted_primary_gives_way_to_a_column_that_takes_its_field() -> None:
    after = judged({"column": "VM", "target": "hostname"}, doubts=["Server"])
    assert after["Server"].role == "alternate"
    assert after["Server"].confidence == pytest.approx(0.8 * 0.6)
    assert after["Server"].reason.endswith("Doubted: the values do not look like it")


@pytest.mark.parametrize(
    ("decision", "problem"),
    [
        ({"column": "VM", "target": "serial_number"}, "is not on its shortlist"),
        ({"column": "no such", "target": None}, "there is no column 'no such'"),
        ({"column": "VM", "target": "hostname", "confidence": 1}, "Extra inputs"),
        ({"column": 7}, "column"),
    ],
)
def test_answers_that_are_refused(decision: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        check_decisions(PROPOSED, {"decisions": [decision]})


def test_deciding_a_column_twice_is_refused() -> None:
    twice = [{"column": "VM", "target": "hostname"}, {"column": "VM", "target": None}]
    with pytest.raises(ValueError, match="decided twice"):
        check_decisions(PROPOSED, {"decisions": twice})


def test_a_doubt_about_a_column_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="no column 'x'"):
        check_doubts(PROPOSED, {"doubts": [{"column": "x"}]})


CHOICES = st.dictionaries(
    st.sampled_from([entry.column for entry in PROPOSED]), st.sampled_from([*TARGETS, None])
)


@given(CHOICES, st.sets(st.sampled_from([entry.column for entry in PROPOSED])))
def test_no_accepted_answer_makes_the_result_invalid(
    choices: dict[str, str | None], doubted: set[str]
) -> None:
    decisions = [{"column": column, "target": target} for column, target in choices.items()]
    after = apply_decisions(
        PROPOSED,
        MappingDecisions.model_validate({"decisions": decisions}),
        Doubts.model_validate({"doubts": [{"column": column} for column in doubted]}),
    )
    assert [entry.column for entry in after] == [entry.column for entry in PROPOSED]
    for before, entry in zip(PROPOSED, after, strict=True):
        assert entry.target == choices.get(entry.column, before.target)
        assert 0 <= entry.confidence <= 1
        assert (entry.decided_by == "agent") == (entry.target != before.target)
    for target in TARGETS:
        roles = [entry.role for entry in after if entry.target == target]
        assert roles.count("primary") == (1 if roles else 0), target
