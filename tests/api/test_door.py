"""Who gets a connection: places are counted as sockets are accepted."""

from __future__ import annotations

import contextlib
import gc
import resource
import socket
import warnings
from collections.abc import Iterator

import pytest
from discovery_api.addresses import counted_as
from discovery_api.door import Door, Places, as_many_as_fit, doors

MANY = 10_000


def taken(places: Places, *hosts: str) -> int:
    """For how many of them there was a place."""
    return sum(places.take(host) is not None for host in hosts)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
        ("x" * 9999, "x" * 64),
        ("", ""),
    ],
)
def test_s07_a_host_s_own_network_is_one_address(host: str, name: str) -> None:
    assert counted_as(host) == name


def test_s02_an_address_has_so_many_connections() -> None:
    places = Places(MANY, 3)
    assert taken(places, *["192.0.2.1"] * 9) == 3
    assert taken(places, *(f"2001:db8::{n}" for n in range(9))) == 3
    assert taken(places, "192.0.2.2", "2001:db8:0:1::1") == 2


def test_s02_only_the_whole_counts_for_a_proxy() -> None:
    places = Places(100, 3, {"192.0.2.1"}.__contains__)
    assert taken(places, *["192.0.2.1"] * 200) == 90
    assert taken(places, "192.0.2.2") == 1


def test_s02_the_last_places_are_for_those_who_hold_few() -> None:
    """Whoever fills the server from some addresses keeps no probe and no person out."""
    places = Places(100, 50)
    assert taken(places, *["192.0.2.1"] * 60, *["192.0.2.2"] * 60) == 90
    assert taken(places, *["192.0.2.3"] * 9) == 8
    assert taken(places, *(f"192.0.2.{n}" for n in range(4, 9))) == 2, "in the end it is full"


def test_s02_places_that_were_given_back_are_free_and_forgotten() -> None:
    places = Places(MANY, 3)
    held = [places.take(f"192.0.2.{n % 5}") for n in range(15)]
    assert taken(places, "192.0.2.0") == 0
    for give_back in held:
        assert give_back is not None
        give_back()
    assert (places._taken, dict(places._held)) == (0, {})


@pytest.fixture
def door() -> Iterator[Door]:
    """One with a place for one connection of each address."""
    (door,) = doors("127.0.0.1", 0, Places(MANY, 1))
    door.listen()
    yield door
    door.close()


def connected(door: Door, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(door.getsockname(), timeout=30, source_address=(source, 0))


def test_s02_whom_there_is_no_place_for_is_closed_at_once(door: Door) -> None:
    with connected(door), connected(door) as second, connected(door, "127.0.0.2"):
        first, _ = door.accept()
        with pytest.raises(ConnectionAbortedError):
            door.accept()
        with contextlib.suppress(ConnectionError):
            assert second.recv(1) == b""
        other, address = door.accept()
        assert address[0] == "127.0.0.2"
        first.close()
        other.close()


def test_s02_a_connection_that_ends_makes_room(door: Door) -> None:
    for _ in range(3):
        with connected(door):
            accepted, _ = door.accept()
            accepted.close()
            accepted.close()


def test_s02_a_connection_that_is_lost_makes_room(door: Door) -> None:
    """Where asyncio fails to make a transport of it, nobody closes it."""
    for _ in range(3):
        with connected(door), warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            door.accept()
            gc.collect()
        assert door.places._taken == 0


@pytest.mark.parametrize(
    ("soft", "hard", "connections", "files"),
    [
        (1024, 524_288, 2000, 2512),
        (1024, resource.RLIM_INFINITY, 2000, 2512),
        (1024, 2048, 1536, 2048),
        (600, 600, 300, 600),
        (4096, 4096, 2000, 4096),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 2000, resource.RLIM_INFINITY),
    ],
)
def test_s02_connections_leave_files_for_the_database(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, connections: int, files: int
) -> None:
    limits = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: limits.append(pair))
    assert as_many_as_fit(2000) == connections
    assert limits[-1] == (files, hard)


def test_a_port_in_use_is_told(door: Door) -> None:
    with pytest.raises(OSError, match="in use"):
        doors("127.0.0.1", door.getsockname()[1], Places(MANY, 1))
