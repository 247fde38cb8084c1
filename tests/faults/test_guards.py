"""A sample of the guards is taken away (all of them: `python -m tests.faults.mutate_guards`)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults import seeds
from tests.faults.guards import GUARDS, DatabaseGuard, Guard
from tests.faults.mutate_guards import ROOT, drawn, main, mutate, table

SAMPLE = 4


@pytest.mark.slow
def test_a_test_fails_without_each_guard_of_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    # the sample has servers and a template of its own
    for name in ("DATABASE_URL", "TEMPLATE", "TEMPLATE_SQL"):
        monkeypatch.delenv(f"DISCOVERY_TEST_{name}", raising=False)
    guards = GUARDS if seeds.full() else drawn(SAMPLE, seeds.seed())
    outcomes = mutate(guards)
    print(f"FAULTS_SEED={seeds.seed()}\n{table(outcomes)}")
    assert [outcome for outcome in outcomes if outcome.problem] == []


@pytest.mark.slow
def test_what_proves_nothing_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A guard that no test misses, one that is not there, and two whose removal breaks the run."""
    real = next(guard for guard in GUARDS if isinstance(guard, Guard))
    idle = replace(real, name="idle", new=real.old)
    lost = replace(real, name="lost", old="no such text")
    senseless = replace(real, name="senseless", new="no_such_name")
    broken = DatabaseGuard("broken", "database", "DROP TABLE no_such_table", real.test)
    unnoticed = DatabaseGuard("unnoticed", "database", "SELECT 1", real.test)
    problems = {o.guard.name: o.problem for o in mutate([idle, lost, senseless, broken, unnoticed])}
    assert problems["idle"] == problems["unnoticed"] == "its test stays green"
    assert problems["lost"].startswith("its text stands 0 times")
    assert "NameError" in problems["senseless"]
    assert problems["broken"].startswith("no verdict")
    with pytest.raises(SystemExit):
        main(["--only", "no such guard"])
    assert "no guard has" in capsys.readouterr().err


def test_every_guard_is_found_and_named_once() -> None:
    assert len({guard.name for guard in GUARDS}) == len(GUARDS)
    for guard in GUARDS:
        assert Path(ROOT, guard.test.split("::")[0]).is_file(), guard.test
        if isinstance(guard, Guard):
            assert Path(ROOT, guard.where).read_text().count(guard.old) == 1, guard.name
            assert guard.old != guard.new
