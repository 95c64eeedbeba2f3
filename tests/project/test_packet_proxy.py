"""The proxy by which tests count what clients of PostgreSQL send."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import psycopg2
import pytest

from servers import PacketProxy, PostgreSQL
from tests.support.web_server import eventually


@pytest.fixture
def proxy(postgresql: PostgreSQL) -> Iterator[PacketProxy]:
    with PacketProxy(postgresql.host, postgresql.port) as proxy:
        yield proxy


@pytest.fixture
def login(postgresql: PostgreSQL, proxy: PacketProxy) -> dict[str, Any]:
    """The arguments of a driver's connect()."""
    return {
        "host": "127.0.0.1",
        "port": proxy.port,
        "user": postgresql.user,
        "password": postgresql.password,
        "dbname": "postgres",
        "sslmode": "disable",
        "gssencmode": "disable",
    }


@pytest.fixture
def connection(login: dict[str, Any]) -> Iterator[psycopg.Connection]:
    """A connection in autocommit mode, as Django has it."""
    with closing(psycopg.connect(**login, autocommit=True, prepare_threshold=None)) as connection:
        yield connection


def test_select_is_one_round_trip(proxy: PacketProxy, connection: psycopg.Connection) -> None:
    with proxy.counting() as count:
        connection.execute("SELECT 1")

    assert (count.total, count.texts, count.kinds) == (1, ["SELECT 1"], {"Query": 1})


def test_statement_with_parameters_is_one_round_trip(
    proxy: PacketProxy, connection: psycopg.Connection
) -> None:
    with proxy.counting() as count:
        connection.execute("SELECT %s::text", ["ä"])

    assert (count.total, count.texts) == (1, ["SELECT $1::text"])
    assert count.kinds == {"Parse": 1, "Bind": 1, "Describe": 1, "Execute": 1, "Sync": 1}


def test_preparing_is_a_round_trip_of_its_own(login: dict[str, Any], proxy: PacketProxy) -> None:
    with closing(psycopg.connect(**login, autocommit=True, prepare_threshold=0)) as connection:
        totals = []
        for _ in range(3):
            with proxy.counting() as count:
                connection.execute("SELECT 1")
            totals.append(count.total)

    assert totals == [2, 1, 1]


def test_transaction_has_a_begin_and_a_commit(proxy: PacketProxy, connection: psycopg.Connection) -> None:
    with proxy.counting() as count, connection.transaction():
        connection.execute("SELECT 1")
        connection.execute("SELECT 2")

    assert (count.total, count.texts) == (4, ["BEGIN", "SELECT 1", "SELECT 2", "COMMIT"])


def test_pipeline_is_one_round_trip(proxy: PacketProxy, connection: psycopg.Connection) -> None:
    with proxy.counting() as count, connection.pipeline():
        for number in range(3):
            connection.execute(f"SELECT {number}")

    assert (count.total, count.kinds["Execute"]) == (1, 3)


def test_psycopg2_sends_its_begin_alone(login: dict[str, Any], proxy: PacketProxy) -> None:
    with (
        closing(psycopg2.connect(**login)) as connection,
        proxy.counting() as count,
        connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT 'ä'")

    assert (count.total, count.texts) == (3, ["BEGIN", "SELECT 'ä'", "COMMIT"])


def test_data_of_copy_are_no_round_trips(proxy: PacketProxy, connection: psycopg.Connection) -> None:
    connection.execute("CREATE TEMP TABLE things (id integer)")
    with proxy.counting() as count, connection.cursor().copy("COPY things FROM STDIN") as copy:
        for number in range(10_000):
            copy.write_row([number])

    assert (count.total, count.texts) == (1, ["COPY things FROM STDIN"])
    assert count.kinds["CopyData"] > 0
    assert count.kinds["CopyDone"] == 1


def test_login_and_end_are_no_round_trips(proxy: PacketProxy, login: dict[str, Any]) -> None:
    with proxy.counting() as count:
        psycopg.connect(**login).close()
        eventually("the end is counted", lambda: count.kinds["Terminate"] == 1)

    assert count.total == 0
    # SCRAM: the first and the last message of the client.
    assert count.kinds == {"Startup": 1, "Password": 2, "Terminate": 1}


def test_cancel_is_counted(proxy: PacketProxy, connection: psycopg.Connection) -> None:
    with proxy.counting() as count:
        connection.cancel_safe()

    assert count.kinds == {"CancelRequest": 1}


def test_counts_may_overlap(proxy: PacketProxy, connection: psycopg.Connection) -> None:
    before = proxy.packets
    with proxy.counting() as outer:
        connection.execute("SELECT 1")
        with proxy.counting() as inner:
            connection.execute("SELECT 2")
        connection.execute("SELECT 3")

    assert (outer.total, inner.total, proxy.packets - before) == (3, 1, 3)
    assert inner.texts == ["SELECT 2"]
    connection.execute("SELECT 4")
    assert outer.total == 3


def test_encrypted_connection_is_an_error(proxy: PacketProxy, login: dict[str, Any]) -> None:
    with pytest.raises(RuntimeError, match="sslmode=disable"), proxy.counting():
        psycopg.connect(**login | {"sslmode": "require"}).close()


def test_pieces_of_messages_are_put_together() -> None:
    """Data may be cut anywhere."""
    startup = b"\0\0\0\x08" + (196608).to_bytes(4)
    query = b"Q" + (4 + 9).to_bytes(4) + b"SELECT 1\0"
    sent = startup + query + b"S\0\0\0\x04" + query
    with PacketProxy("127.0.0.1", 1) as proxy, socket.socket() as client, proxy.counting() as count:
        for number in range(len(sent)):
            proxy.hear(client, sent[number : number + 1])

    assert (count.total, count.texts) == (3, ["SELECT 1"] * 2)
    assert count.kinds == {"Startup": 1, "Query": 2, "Sync": 1}
