"""How the tests start a browser, and what they ask of every page."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from playwright.sync_api import Error, Page, Response, expect

ROOT = Path(__file__).resolve().parents[2]
EXECUTABLE = shutil.which("chromium") or "/usr/bin/chromium"
# without them Chromium looks for its maker's hosts all the time
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
AXE = ROOT / "web-assets" / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]


def visit(page: Page, address: str) -> Response | None:
    """Opens a page; again where a pod's network interface came or went meanwhile.

    Chromium gives up what it is loading then (ERR_NETWORK_CHANGED), and loads it again for people.
    """
    try:
        return page.goto(address)
    except Error as error:
        if "ERR_NETWORK_CHANGED" not in str(error):
            raise
        return page.goto(address)


def ready(page: Page) -> None:
    """Waits for the page's own script: rows are sorted, and what is typed is heard."""
    expect(page.locator("html")).to_have_attribute("data-ready", "yes")


def open_tab(page: Page, name: str) -> None:
    """Goes to another page of the flow, and waits for it."""
    page.click(f".tabs >> text={name}")
    expect(page.locator(".tabs [aria-current=page]")).to_have_text(name)
    ready(page)


def confirm(page: Page, *said: str) -> None:
    """Says yes to the page's own question, which says all of that."""
    question = page.get_by_role("dialog")
    for words in said:
        expect(question).to_contain_text(words)
    question.locator("button[value=yes]").click()


def accessibility_problems(page: Page) -> list[str]:
    """What axe finds wrong with the page as it is now, by WCAG A and AA."""
    ready(page)
    # by the debugger, because the page's own policy lets no foreign script in
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found: dict[str, Any] = page.evaluate(
        "rules => axe.run(document, {runOnly: {type: 'tag', values: rules}})", RULES
    )
    return [
        f"{problem['id']}: {problem['help']} at {problem['nodes'][0]['target']}"
        for problem in found["violations"]
    ]
