"""The rule by which the soak calls a reading flat."""

from __future__ import annotations

import random

from bench.soak import FLAT, growth


def readings(leak_per_second: float, outliers: int = 0) -> list[tuple[float, float]]:
    drawn = random.Random(7)
    points = [
        (at, 180 + leak_per_second * at + drawn.uniform(-3, 3))
        for at in (5.0 * n for n in range(200))
    ]
    for position in drawn.sample(range(200), outliers):
        points[position] = (points[position][0], 400.0)
    return points


def test_noise_and_single_peaks_are_flat() -> None:
    assert abs(growth(readings(0))) < FLAT
    assert abs(growth(readings(0, outliers=20))) < FLAT


def test_a_leak_is_not() -> None:
    assert growth(readings(0.02)) > FLAT
    assert growth(readings(0.02, outliers=20)) > FLAT
