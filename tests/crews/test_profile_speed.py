"""The profile's short cuts change no count."""

from __future__ import annotations

import duckdb
import pytest
from discovery_crews.profile import _GUARDS
from discovery_crews.tables.patterns import PATTERNS, matches
from hypothesis import given, settings
from hypothesis import strategies as st

# one value or more of every pattern, and what lies close to it
VALUES = [
    "10.0.0.1", "10.0.0.1/24", "255.255.255.255/32", "fe80::1%eth0", "::", "1:2:3:4:5:6:7:8/64",
    "00:11:22:33:44:55", "0011.2233.4455", "00-11-22-33-44-55",
    "{500b85c1-ef0d-37fb-6897-61c47157f858}", "500b85c1-ef0d-37fb-6897-61c47157f858",
    "srv01.example.com", "srv01.example.com.", "web-01", "a_b", "a@b.example", "https://x/y",
    "-5", "+7", "42", "1.234,5", "1 234", "-1,5", "1'234", "2024-01-02", "01/02/2024", "1 Jan 24",
    "2024-01-02T03:04:05Z", "01.02.2024 3:04 pm", "true", "N", "DISABLED", "50%", "-1.5 %",
    "16 GB", "1,024MiB", "2.4GHz", "100 Mb/s", "8 vCPUs", "a=b;c=d", "a;b", "a|b|", "a, b", "[1]",
    "Windows Server 2019", "Red Hat\nEnterprise Linux", "v1.2.3", "1.2-rc1", "7.9.2009", "n/a",
    "-" * 40, "?" * 30, "." * 30, "To be filled by O.E.M.", "#NAME?", "Default string", "",
    "\u017f", "\u212a", "é", " 5 ", "\u0661",
]  # fmt: skip


def differences(values: list[str]) -> list[tuple[str, str]]:
    """Pairs of value and pattern where the guard is false although the pattern matches."""
    wrong = []
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE v (t VARCHAR, l BIGINT)")
        connection.executemany("INSERT INTO v VALUES (trim(?), 0)", [[value] for value in values])
        connection.execute("UPDATE v SET l = length(t)")
        for pattern, guard in _GUARDS.items():
            query = f"SELECT t FROM v WHERE t <> '' AND {matches('t', pattern)} AND NOT ({guard})"
            wrong += [(row[0], pattern) for row in connection.execute(query).fetchall()]
    return wrong


def test_guards_follow_from_the_patterns() -> None:
    assert differences(VALUES) == []
    assert set(_GUARDS) <= set(PATTERNS)


def test_every_guarded_pattern_is_tried() -> None:
    with duckdb.connect() as connection:
        for pattern in _GUARDS:
            test = " OR ".join(matches("?::VARCHAR", pattern) for _ in VALUES)
            row = connection.execute(f"SELECT {test}", VALUES).fetchone()
            assert row == (True,), pattern


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(VALUES),
            st.text(alphabet="019aFkMg.,:;-+/%@=|[] {}'\nvV?#", max_size=40),
            *(st.from_regex(f"(?is:{p})", fullmatch=True) for p in PATTERNS.values()),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_guards_follow_from_the_patterns_for_any_text(values: list[str]) -> None:
    assert differences([*values, "-"]) == []
