"""The labelled inventories of the bench: the scores that the product promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.mapping import CASES, Score, cases, profiles, score

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def total(tmp_path_factory: pytest.TempPathFactory) -> Score:
    found = Score()
    workdir: Path = tmp_path_factory.mktemp("cases")
    for folder in ("tuning", "held_out"):
        for case in cases(CASES / folder):
            found.merge(score(case, profiles(case, workdir)))
    return found


def test_there_is_enough_to_measure(total: Score) -> None:
    assert total.targets > 450
    assert total.none > 120


def test_first_choices(total: Score) -> None:
    assert total.first / total.targets >= 0.9


def test_the_right_field_is_among_five(total: Score) -> None:
    assert total.five / total.targets >= 0.97


def test_columns_without_a_field_are_left_alone(total: Score) -> None:
    assert total.none_right / total.none >= 0.88


def test_confidence_is_calibrated(total: Score) -> None:
    for low, high in ((0.85, 1.0), (0.5, 0.85)):
        shown = [(sure, right) for sure, right in total.shown if low <= sure <= high]
        assert len(shown) >= 30
        mean = sum(sure for sure, _ in shown) / len(shown)
        right = sum(right for _, right in shown) / len(shown)
        assert abs(mean - right) < 0.15
