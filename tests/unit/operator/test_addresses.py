"""A webhook's address is compared as it will be asked, whatever it looks like."""

from __future__ import annotations

import pytest
from discovery_operator.addresses import address_of, is_allowed
from discovery_operator.settings import OperatorSettings
from pydantic import ValidationError

ALLOWED = (
    "https://hooks.example.org/team-a",
    "http://chat.svc:8065/hooks/",
    "https://root.example",
)


def taken(text: str) -> bool:
    url = address_of(text)
    return url is not None and is_allowed(url, ALLOWED)


@pytest.mark.parametrize(
    "text",
    [
        "https://hooks.example.org/team-a",
        "https://hooks.example.org/team-a/",
        "https://hooks.example.org/team-a/x/y?key=1%2B2&other=..",
        "https://hooks.example.org/team-a/x?sig=a%2Fb%25",
        "https://HOOKS.example.ORG/team-a/x",
        "HTTPS://hooks.example.org:443/team-a/x",
        "https://hooks.example.org/team-a/a..b/.hidden",
        "https://hooks.example.org/%74eam-a/x",
        "http://chat.svc:8065/hooks/abc",
        "https://root.example",
        "https://root.example/anything",
    ],
)
def test_s13_addresses_below_an_allowed_one_are_taken(text: str) -> None:
    assert taken(text)


@pytest.mark.parametrize(
    "text",
    [
        # dots that leave the path
        "https://hooks.example.org/team-a/../team-b",
        "https://hooks.example.org/team-a/%2e%2e/team-b",
        "https://hooks.example.org/team-a/%2E./team-b",
        "https://hooks.example.org/team-a/.%2e/team-b",
        "https://hooks.example.org/team-a/%252e%252e/team-b",
        "https://hooks.example.org/team-a/..;x=1/team-b",
        "https://hooks.example.org/team-a/..%2fteam-b",
        "https://hooks.example.org/team-a/..%5cteam-b",
        "https://hooks.example.org/team-a/..\\team-b",
        "https://hooks.example.org/team-a/..",
        # another path, host, port or scheme
        "https://hooks.example.org/team-ab",
        "https://hooks.example.org/team-b",
        "https://hooks.example.org/Team-A/x",
        "https://hooks.example.org//team-a/x",
        "https://hooks.example.org:8443/team-a",
        "https://hooks.example.org:0/team-a",
        "https://hooks.example.org.evil.example/team-a",
        "https://evil.example/team-a",
        "http://hooks.example.org/team-a",
        "http://chat.svc/hooks/abc",
        "ftp://hooks.example.org/team-a",
        # names, passwords, and signs that are read differently
        "https://user:pw@hooks.example.org/team-a",
        "https://@hooks.example.org/team-a",
        "https://hooks.example.org@evil.example/team-a",
        "https://evil.example\\@hooks.example.org/team-a",
        "https://hooks.example.org\\@evil.example/team-a",
        "https://evil.example#@hooks.example.org/team-a",
        "https://hooks.example.org#/team-a",
        "https://root.example/a#b",
        "https://hooks.example.org/team-a\r\nHost: evil.example",
        "https://hooks.example.org/team-a\t/x",
        "https://hooks.example.org/team-a%00/x",
        "https:///team-a",
        "https:hooks.example.org/team-a",
        "//hooks.example.org/team-a",
        "https://[::1/team-a",
        "https://hooks.example.org:99999/team-a",
        "",
    ],
)  # fmt: skip
def test_s13_what_only_looks_like_an_allowed_one_is_refused(text: str) -> None:
    assert not taken(text)


def test_s13_what_was_compared_is_what_is_asked() -> None:
    url = address_of("https://HOOKS.example.org:443/%74eam-a/x?key=%2B")
    assert str(url) == "https://hooks.example.org/team-a/x?key=%2B"


def test_s13_an_installation_that_allows_what_is_no_address_does_not_start() -> None:
    with pytest.raises(ValidationError, match="no address such as https"):
        OperatorSettings(
            database_url="postgresql://x/y", crew_image="c", execution_url="e",
            webhook_endpoints=("https://hooks.example.org/a/../b",),
        )  # fmt: skip
