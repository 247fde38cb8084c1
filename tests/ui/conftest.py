"""A real browser before the real application; only Kubernetes is a stand-in here.

The pages on a real cluster are tests/cluster/test_pages.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.postgres import DatabaseUrls
from tests.ui.browser import ARGUMENTS, EXECUTABLE
from tests.ui.desk import Desk, open_desk, sign_in


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/ui/" in item.nodeid:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, headless."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=EXECUTABLE, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def desk(database_urls: DatabaseUrls) -> Iterator[Desk]:
    """The application over a fresh database."""
    with open_desk(database_urls) as opened:
        yield opened


@pytest.fixture
def window(browser: Browser) -> Iterator[Page]:
    """A window without a session. Errors of its scripts and of its policy fail the test."""
    context = browser.new_context()
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda message: (
            problems.append(message.text) if "Content Security Policy" in message.text else None
        ),
    )
    yield page
    context.close()
    assert problems == []


@pytest.fixture
def page(window: Page, desk: Desk) -> Page:
    """A window of ann, who has signed in."""
    sign_in(window, desk.address)
    return window
