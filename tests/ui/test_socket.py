"""The WebSocket as scripts in a real browser use it: with the session's cookie, from our origin.

The pages themselves follow by server-sent events; the socket is for scripts and other front ends.
"""

from __future__ import annotations

from playwright.sync_api import Page

from tests.store.flows import Flow
from tests.ui.desk import Desk, sign_in
from tests.ui.elsewhere import another_application

# keeps what arrives on `window`; the last id is what a reconnect continues from
FOLLOW = """address => {
    window.heard = window.heard || [];
    window.closed = null;
    window.socket = new WebSocket(address);
    window.socket.onmessage = message => window.heard.push(JSON.parse(message.data));
    window.socket.onclose = event => { window.closed = event.code; };
    return new Promise(done => {
        window.socket.onopen = () => done("open");
        window.socket.onerror = () => done("refused");
    });
}"""
LAST = "Math.max(0, ...window.heard.filter(m => m.event === 'entry').map(m => Number(m.id)))"
LEAVE = "() => { window.socket.close(); }"


def address(desk: Desk, query: str = "") -> str:
    """The socket's address."""
    return f"{desk.address.replace('http', 'ws', 1)}/api/v1/discovery/ws{query}"


def entries(page: Page) -> list[int]:
    """Numbers of the history entries that arrived, in the order of their arrival."""
    found: list[int] = page.evaluate(
        "window.heard.filter(m => m.event === 'entry').map(m => m.data.sequence)"
    )
    return found


def history(desk: Desk, flow: Flow) -> list[int]:
    """Numbers of all history entries that there are."""
    rows = desk.do(desk.stores.api.history(flow.tenant_id, flow.flow_id))
    return [row.sequence for row in rows]


def hears_all(page: Page, desk: Desk, flow: Flow) -> None:
    """Waits for the latest entry, then compares: nothing missed, nothing twice, in order."""
    expected = history(desk, flow)
    page.wait_for_function(f"last => {LAST} >= last", arg=expected[-1])
    assert entries(page) == expected


def test_a_script_misses_nothing_over_reconnects(page: Page, desk: Desk) -> None:
    flow = desk.flow(to_gate=False)
    assert page.evaluate(FOLLOW, address(desk, f"?flow_id={flow.flow_id}")) == "open"
    desk.do(flow.run_phase())
    hears_all(page, desk, flow)
    for _ in range(2):
        page.evaluate(LEAVE)
        page.wait_for_function("() => window.closed !== null")
        before = entries(page)
        # nobody listens, and the flow goes on
        desk.do(flow.run_phase())
        assert entries(page) == before
        after = page.evaluate(LAST)
        assert after == before[-1] < history(desk, flow)[-1]
        query = f"?flow_id={flow.flow_id}&after={after}"
        assert page.evaluate(FOLLOW, address(desk, query)) == "open"
        hears_all(page, desk, flow)
    # and what comes next arrives at once again
    desk.do(flow.answer("Reject", by="bob"))
    hears_all(page, desk, flow)
    page.wait_for_function(
        "() => window.heard.some(m => m.event === 'progress' && m.data.state === 'Rejected')"
    )


def test_a_script_that_follows_all_flows_begins_with_where_they_stand(
    page: Page, desk: Desk
) -> None:
    flow = desk.flow(to_gate=False)
    desk.show(flow)
    assert page.evaluate(FOLLOW, address(desk)) == "open"
    page.wait_for_function("() => window.heard.some(m => m.event === 'flow')")
    page.evaluate(LEAVE)
    desk.do(flow.run_phase())
    assert page.evaluate(FOLLOW, address(desk)) == "open"
    page.wait_for_function(
        "() => window.heard.some(m => m.event === 'flow' && m.data.phase === 'data_cleansing')"
    )


def test_who_may_not_see_a_flow_hears_nothing_of_it(window: Page, desk: Desk) -> None:
    flow = desk.flow(to_gate=False)
    sign_in(window, desk.address, "token-eve")
    query = f"?flow_id={flow.flow_id}"
    assert window.evaluate(FOLLOW, address(desk, query)) == "refused"
    assert window.evaluate("window.heard") == []
    sign_out(window)
    assert window.evaluate(FOLLOW, address(desk, query)) == "refused"


def sign_out(page: Page) -> None:
    """By the button, and what follows."""
    page.click("text=Sign out")
    page.wait_for_url("**/sign-in*")


def test_another_application_s_script_gets_no_socket(page: Page, desk: Desk) -> None:
    """Though the browser adds the session's cookie: for it, that page is of the same site."""
    flow = desk.flow(to_gate=False)
    query = f"?flow_id={flow.flow_id}"
    assert page.evaluate(FOLLOW, address(desk, query)) == "open"
    with another_application() as port:
        foreign = page.context.new_page()
        foreign.goto(f"http://localhost:{port}/")
        assert foreign.evaluate(FOLLOW, address(desk, query)) == "refused"
        assert foreign.evaluate("window.heard") == []
