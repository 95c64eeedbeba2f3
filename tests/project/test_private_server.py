"""The private server that the other tests rely on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import MySQLdb
import pytest

from servers import Certificates, MariaDB, Missing
from servers.ports import RANGE, free_port

pytestmark = pytest.mark.slow


@contextmanager
def cursor(settings: dict[str, Any]) -> Iterator[Any]:
    """Connect as Django's own backend would with these settings."""
    place: dict[str, Any] = {"host": settings["HOST"], "port": int(settings["PORT"] or 0)}
    if settings["HOST"].startswith("/"):
        place = {"unix_socket": settings["HOST"]}
    connection = MySQLdb.connect(
        database=settings["NAME"],
        user=settings["USER"],
        password=settings["PASSWORD"],
        **place,
        **settings["OPTIONS"],
    )
    with closing(connection), connection.cursor() as result:
        yield result


def ask(settings: dict[str, Any], sql: str) -> tuple[Any, ...]:
    """Return the first row of the answer."""
    with cursor(settings) as result:
        result.execute(sql)
        row: tuple[Any, ...] = result.fetchone()
        return row


def is_alive(pid: int) -> bool:
    """Does the process run, or at least wait for its end to be noticed?"""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def pid_of(server: MariaDB) -> int:
    return int((server.folder / "server.pid").read_text())


@pytest.mark.parametrize(
    ("via", "host"), [("tcp", "127.0.0.1"), ("socket", "localhost"), ("tls", "127.0.0.1")]
)
def test_answers(
    mariadb: MariaDB,
    new_database: Callable[[], str],
    via: Literal["tcp", "socket", "tls"],
    host: str,
):
    name = new_database()
    settings = mariadb.database(name, via=via)

    assert ask(settings, "SELECT DATABASE(), SUBSTRING_INDEX(USER(), '@', -1)") == (name, host)
    # Without "tls" it is up to the client library whether the connection is encrypted.
    assert via != "tls" or ask(settings, "SHOW STATUS LIKE 'Ssl_cipher'")[1]


def test_tls_verifies_the_certificate(mariadb: MariaDB, tmp_path: Path):
    settings = mariadb.database("", via="tls")
    settings["OPTIONS"]["ssl"]["ca"] = str(Certificates(tmp_path).ca)

    with pytest.raises(MySQLdb.OperationalError, match=r"(?i)certificate|SSL"):
        ask(settings, "SELECT 1")


def test_user_may_do_everything(mariadb: MariaDB):
    with cursor(mariadb.database("")) as result:
        result.execute("CREATE DATABASE made_by_user")
        result.execute("CREATE USER limited@'%' IDENTIFIED BY 'limited'")
        result.execute("GRANT SELECT ON made_by_user.* TO limited@'%'")
        result.execute("DROP USER limited@'%'")
        result.execute("DROP DATABASE made_by_user")


def test_root_is_not_let_in_over_tcp(mariadb: MariaDB):
    settings = mariadb.database("") | {"USER": "root", "PASSWORD": ""}

    with pytest.raises(MySQLdb.OperationalError):
        ask(settings, "SELECT 1")


def test_many_connections_are_allowed(mariadb: MariaDB):
    assert mariadb.execute("SELECT @@max_connections")[0][0] >= 500


def test_sessions(mariadb: MariaDB, new_database: Callable[[], str]):
    name = new_database()

    with cursor(mariadb.database(name)) as result:
        result.execute("SELECT CONNECTION_ID()")
        found = [session for session in mariadb.sessions() if session.db == name]
        assert [(session.id, session.user, session.command) for session in found] == [
            (result.fetchone()[0], "poollife", "Sleep")
        ]
        assert mariadb.sessions(user="nobody") == []


def test_what_looking_at_the_counters_adds_to_them(mariadb: MariaDB):
    questions = [mariadb.status("Questions") for _ in range(20)]
    connections = [mariadb.status("Connections") for _ in range(20)]

    assert {b - a for a, b in pairwise(questions)} == {MariaDB.QUESTIONS_PER_EXECUTE}
    assert {b - a for a, b in pairwise(connections)} == {1}


def test_stop_removes_everything():
    with MariaDB() as server:
        pid = pid_of(server)
        assert server.execute("SELECT %s + 1", 1) == [(2,)]

    assert not is_alive(pid)
    assert not server.folder.exists()
    server.stop()


def test_data_in_a_given_folder_stay(tmp_path: Path):
    with MariaDB(tmp_path) as server:
        server.create_database("kept")
        pid = pid_of(server)
        server.restart()
        assert pid_of(server) != pid

    with MariaDB(tmp_path) as server:
        assert server.execute("SHOW DATABASES LIKE 'kept'") == [("kept",)]


def test_forked_child_leaves_the_server_alone(mariadb: MariaDB):
    """It exits normally, with all that atexit and the ends of with blocks bring along."""
    program = """
import os, sys
from servers import MariaDB

with MariaDB() as server:
    pid = os.fork()
    if pid == 0:
        sys.exit(0)
    assert os.waitpid(pid, 0) == (pid, 0)
    assert server.folder.exists()
    print(server.execute("SELECT 'still there'")[0][0])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

    assert (done.stdout, done.stderr) == ("still there\n", "")


def test_server_ends_when_its_owner_is_killed():
    program = """
import sys
from servers import MariaDB

server = MariaDB().start()
print((server.folder / "server.pid").read_text().strip(), server.folder, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout
        pid, folder = owner.stdout.readline().split()
        assert is_alive(int(pid))
        owner.send_signal(signal.SIGKILL)

    deadline = time.monotonic() + 30
    while Path(folder).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(folder).exists()


def test_bad_option_is_reported():
    server = MariaDB(options=["--no-such-option"])

    with pytest.raises(RuntimeError, match="unknown option '--no-such-option'"):
        server.start()
    assert not server.folder.exists()


def test_missing_server_is_reported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(MariaDB, "find", staticmethod(lambda: None))

    with pytest.raises(Missing, match="missing: a MariaDB server"):
        MariaDB().start()


def test_tls_needs_certificates(tmp_path: Path):
    with pytest.raises(ValueError, match="no certificates"):
        MariaDB(tmp_path).database("", via="tls")


def test_too_long_a_path_is_reported(tmp_path: Path):
    with pytest.raises(ValueError, match="too long"):
        MariaDB(tmp_path / ("long" * 25)).start()


def test_free_port():
    assert free_port() in RANGE
