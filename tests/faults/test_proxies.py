"""The proxies do what their faults say: a fault that does nothing would prove nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import psycopg
import pytest

from tests.faults import api_faults, database_faults
from tests.faults.api_proxy import Answer, ApiFault, Call, Events, Raw, ResetError
from tests.faults.database_faults import At, Counting, Of
from tests.faults.database_proxy import DatabaseFault, DatabaseProxy, Statement, Strike
from tests.postgres import DatabaseUrls

WATCH = Call("GET", "/api/v1/pods?watch=true&resourceVersion=1", watch=True, ours=True)
WRITE = Call("PATCH", "/api/v1/pods/a", watch=False, ours=True)
READ = Call("GET", "/api/v1/pods/a", watch=False, ours=True)
WELL = Answer(200, b"{}")


# -- the database ------------------------------------------------------------------------------


@pytest.fixture
def behind(database_urls: DatabaseUrls) -> Callable[[DatabaseFault], DatabaseProxy]:
    """Makes proxies in front of the database."""
    with psycopg.connect(database_urls.superuser) as connection:
        connection.execute("CREATE TABLE kept (value text)")
    return lambda fault: DatabaseProxy(database_urls.superuser, fault)


async def write(address: str, value: str = "a") -> None:
    async with await psycopg.AsyncConnection.connect(address, prepare_threshold=0) as connection:
        await connection.execute("INSERT INTO kept VALUES (%s)", [value])


async def _insert_and_commit(connection: psycopg.AsyncConnection) -> None:
    await connection.execute("INSERT INTO kept VALUES ('a')")
    await connection.commit()


def kept(urls: DatabaseUrls) -> list[str]:
    with psycopg.connect(urls.superuser) as connection:
        return [row[0] for row in connection.execute("SELECT value FROM kept").fetchall()]


async def test_without_a_fault_all_passes_and_is_counted(
    behind: Callable[[DatabaseFault], DatabaseProxy], database_urls: DatabaseUrls
) -> None:
    counting = Counting()
    async with behind(counting) as proxy:
        await write(proxy.url(database_urls.superuser), "a" * 100_000)
    assert kept(database_urls) == ["a" * 100_000]
    assert counting.counted["commits of a write"] == 1
    assert counting.counted["statements of a transaction"] >= 2  # INSERT and COMMIT
    assert counting.counted["statements"] > counting.counted["statements of a transaction"]  # BEGIN


@pytest.mark.parametrize(
    ("strike", "of", "there"),
    [
        (database_faults.LOSE, "commits of a write", True),
        (database_faults.CUT, "commits of a write", False),
        (database_faults.LOSE, "statements of a transaction", False),
        (Strike("restart", seconds=0.0), "commits of a write", False),
    ],
)
async def test_a_lost_answer_is_a_lost_answer_and_a_cut_is_a_cut(
    behind: Callable[[DatabaseFault], DatabaseProxy],
    database_urls: DatabaseUrls,
    strike: Strike,
    of: Of,
    there: bool,
) -> None:
    fault = At(strike, of, 1)
    async with behind(fault) as proxy:
        with pytest.raises(psycopg.OperationalError):
            await write(proxy.url(database_urls.superuser))
        assert fault.strikes == 1
        assert kept(database_urls) == (["a"] if there else [])
        await write(proxy.url(database_urls.superuser), "b")
    assert kept(database_urls) == (["a", "b"] if there else ["b"])


@pytest.mark.parametrize("of", ["statements of a transaction", "commits of a write"])
@pytest.mark.parametrize(
    ("strike", "error"),
    [
        (database_faults.SERIALIZATION, psycopg.errors.SerializationFailure),
        (database_faults.DEADLOCK, psycopg.errors.DeadlockDetected),
    ],
)
async def test_a_refused_statement_has_rolled_its_transaction_back(
    behind: Callable[[DatabaseFault], DatabaseProxy],
    database_urls: DatabaseUrls,
    strike: Strike,
    error: type[psycopg.Error],
    of: Of,
) -> None:
    fault = At(strike, of, 1)
    async with behind(fault) as proxy:
        address = proxy.url(database_urls.superuser)
        async with await psycopg.AsyncConnection.connect(address) as connection:
            with pytest.raises(error):
                await _insert_and_commit(connection)
            await connection.rollback()
            # the same connection goes on
            await connection.execute("INSERT INTO kept VALUES ('b')")
    assert fault.strikes == 1
    assert kept(database_urls) == ["b"]


def test_a_statement_that_a_run_does_not_reach_is_replaced_by_its_next() -> None:
    fault = At(database_faults.CUT, "statements", 9)
    statement = Statement("SELECT 1", in_transaction=False, writes=False)
    assert [fault.strike(statement) for _ in range(3)] == [None, None, None]
    fault.hurry()
    assert [fault.strike(statement) for _ in range(9)] == [database_faults.CUT, *[None] * 8]
    assert fault.strikes == 1


async def test_a_pool_gets_one_connection(
    behind: Callable[[DatabaseFault], DatabaseProxy], database_urls: DatabaseUrls
) -> None:
    fault = database_faults.TooManyClients()
    async with behind(fault) as proxy:
        address = proxy.url(database_urls.superuser) + "&application_name="
        async with await psycopg.AsyncConnection.connect(address + "one") as connection:
            with pytest.raises(psycopg.OperationalError, match="too many clients"):
                await psycopg.AsyncConnection.connect(address + "one")
            await (await psycopg.AsyncConnection.connect(address + "another")).close()
            await connection.execute("SELECT 1")
    assert fault.strikes == 1


async def test_held_statements_come_through_later(
    behind: Callable[[DatabaseFault], DatabaseProxy], database_urls: DatabaseUrls
) -> None:
    fault = At(Strike("hold", seconds=0.3), "commits of a write", 1)
    loop = asyncio.get_running_loop()
    async with behind(fault) as proxy:
        began = loop.time()
        await write(proxy.url(database_urls.superuser))
    assert loop.time() - began >= 0.3
    assert kept(database_urls) == ["a"]


# -- the API server ----------------------------------------------------------------------------


def event(number: int, kind: str = "MODIFIED") -> Raw:
    return {"type": kind, "object": {"metadata": {"resourceVersion": str(number)}}}


async def stream(*numbers: int) -> Events:
    for number in numbers:
        yield event(number)


async def told(fault: ApiFault, *numbers: int) -> list[str]:
    events = fault.events(WATCH, stream(*numbers))
    return [
        one["object"]["metadata"].get("resourceVersion") or one["object"]["code"]
        async for one in events
    ]


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (ApiFault(), ["1", "2", "3", "4"]),
        (api_faults.Dropped(), ["1", "2"]),
        (api_faults.Lost(), ["1", "3"]),
        (api_faults.Duplicated(), ["1", "1", "2", "2", "3", "3", "4", "4"]),
        (api_faults.Reordered(), ["2", "1", "4", "3"]),
        (api_faults.Delayed(), ["1", "2", "3", "4"]),
        (api_faults.Replayed(), ["1", "2", "1", "3", "1", "2", "4", "1", "2", "3"]),
        (api_faults.GoneEvent(), ["1", "2", 410]),
    ],
    ids=lambda value: value.name if isinstance(value, ApiFault) else "",
)
async def test_events_come_as_the_fault_says(fault: ApiFault, seen: list[str]) -> None:
    assert await told(fault, 1, 2, 3, 4) == seen
    assert bool(fault.strikes) is (type(fault) is not ApiFault)


async def test_a_silent_stream_says_nothing() -> None:
    fault = api_faults.Silent()
    coming = asyncio.ensure_future(anext(fault.events(WATCH, stream(1))))
    await asyncio.wait([coming], timeout=0.2)
    assert not coming.done()
    assert fault.strikes == 1
    coming.cancel()


async def test_writes_are_refused_or_answered_wrongly_in_turns() -> None:
    conflict, applied = api_faults.Conflict(), api_faults.Applied(504, "Timeout")
    refused = [await conflict.before(WRITE) for _ in range(4)]
    assert [answer and answer.status for answer in refused] == [409, None, 409, None]
    assert await conflict.before(READ) is None
    answers = [await applied.after(WRITE, WELL) for _ in range(4)]
    assert [answer.status for answer in answers] == [504, 200, 504, 200]
    assert (await applied.after(READ, WELL)).status == 200


async def test_connections_are_reset_before_and_after() -> None:
    fault, reset = api_faults.Reset(), []
    for number in range(1, 9):
        try:
            await fault.before(READ)
            await fault.after(READ, WELL)
        except ResetError:
            reset.append(number)
    assert reset == [1, 5]
    assert fault.strikes == 2


async def test_watches_are_refused_as_gone_in_turns() -> None:
    fault = api_faults.GoneStatus()
    answers = [await fault.before(WATCH) for _ in range(3)]
    assert [answer and answer.status for answer in answers] == [410, None, 410]


async def test_who_comes_back_too_early_is_named() -> None:
    fault = api_faults.TooMany()
    answers = [await fault.before(READ) for _ in range(3)]
    assert answers[:2] == [None, None]
    assert answers[2] is not None
    assert ("Retry-After", "1") in answers[2].headers
    await fault.before(READ)
    assert len(fault.broken) == 1


async def test_who_waits_is_not_named() -> None:
    fault = api_faults.TooMany()
    for _ in range(3):
        await fault.before(READ)
    await asyncio.sleep(api_faults.RETRY_AFTER)
    await fault.before(READ)
    assert fault.broken == []
