"""Tags and labels reach a vendor in its own form, or people are told why not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from discovery_crews.phases.migration_strategy.phase import run

from tests.crews.test_exports import google, rows
from tests.crews.test_strategy import _day, asset, context

__all__ = ["_day"]

COMPLETE: dict[str, Any] = {
    "os_name": "RHEL 9",
    "cpu_cores": 4,
    "memory_gb": 8.0,
    "storage_gb": 100.0,
}
LONG = "x" * 64


def labels(tmp_path: Path, *tags: str) -> tuple[dict[str, str], str]:
    """The labels that a server with these tags gets, and what is said of them."""
    outcome = run(context(tmp_path, [asset("a", tags=list(tags), **COMPLETE)]))
    (warned,) = rows(outcome, "google-import-warnings")
    found = {row["Key"]: row["Value"] for row in google(outcome)["tagInfo"]}
    return found, warned["warning"]


def test_capitals_and_spaces_are_only_form(tmp_path: Path) -> None:
    found, told = labels(tmp_path, "Cost Center=4711", "Straße=Am Markt")
    assert found == {"cost_center": "4711", "straße": "am_markt"}
    assert "tag" not in told


def test_what_a_label_cannot_hold_is_told(tmp_path: Path) -> None:
    found, told = labels(
        tmp_path, "Owner=Müller & Söhne GmbH", "2nd Line=yes", f"Description={LONG}", "loose"
    )
    assert found == {"owner": "müller_söhne_gmbh"}
    assert 'tag "Owner=Müller & Söhne GmbH" is written as owner=müller_söhne_gmbh' in told
    assert 'tag "2nd Line=yes" is not in the file: a label begins with a letter' in told
    assert 'tag "Description=xxx' in told
    assert 'tag "loose" is not in the file' in told


def test_two_keys_that_become_one_label_are_told(tmp_path: Path) -> None:
    found, told = labels(tmp_path, "Cost Center=4711", "cost_center=4712", "COST CENTER=4711")
    assert found == {"cost_center": "4711"}
    assert 'tag "cost_center=4712" is not in the file: its key becomes the same label as' in told
    assert "COST CENTER" not in told


def test_more_labels_than_google_takes_are_told(tmp_path: Path) -> None:
    found, told = labels(tmp_path, *(f"key{n}=v" for n in range(65)))
    assert len(found) == 64
    assert "more than 64 labels" in told


def test_every_label_has_googles_form(tmp_path: Path) -> None:
    found, _ = labels(tmp_path, "Ä.B/C=D:E", "_x_=  ", "naïve=Été 2024", "日本=東京", "a=")
    for key, value in found.items():
        assert re.fullmatch(r"[^\W\d_A-Z][\w-]{0,62}", key), key
        assert re.fullmatch(r"[\w-]{0,63}", value), value
        assert (key, value) == (key.lower(), value.lower())


def test_aws_takes_names_with_values(tmp_path: Path) -> None:
    tags = ["env=prod", "team: web", "url=https://example.org", "loose", "empty="]
    given = asset("a", tags=tags, application_name=["ERP, Core", "CRM"], **COMPLETE)
    outcome = run(context(tmp_path, [given]))
    (aws,) = rows(outcome, "aws-import")
    assert aws["Tags"] == "env:prod, team:web"
    (warned,) = rows(outcome, "aws-import-warnings")
    for told in ("url=https://example.org", "loose", "empty=", "an application's name has a comma"):
        assert told in warned["warning"]
