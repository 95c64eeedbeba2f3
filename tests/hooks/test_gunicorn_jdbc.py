"""gunicorn with JDBC: each worker has a JVM of its own, and a worker of a master with a JVM is refused."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import MariaDB
from tests.hooks.conftest import JDBC
from tests.hooks.test_gunicorn import Gunicorn
from tests.support.web_server import PATIENCE, eventually, fetch

pytestmark = [pytest.mark.slow, pytest.mark.servers]

#: ``tests/support/gunicorn_site`` queries when it is imported.
CONFIG = """
wsgi_app = "tests.support.gunicorn_site.wsgi"
control_socket_disable = True
workers = 2

from tests.support.gunicorn_site.notes import note, session


def post_worker_init(worker):
    try:
        session()
    except Exception as error:
        worker.log.error("%s", error)
    note("ready")


import poollife.gunicorn; poollife.gunicorn.install(globals())
"""


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDB]:
    """A server whose sessions are all this module's."""
    with MariaDB() as server:
        server.create_database("site")
        yield server


@pytest.fixture
def gunicorn(
    request: pytest.FixtureRequest, tmp_path: Path, server: MariaDB, java_environment: None
) -> Iterator[Gunicorn]:
    """A gunicorn with the arguments that the test names."""
    found = Gunicorn(tmp_path, server, CONFIG, *request.param, **JDBC)
    found.start()
    yield found
    found.kill()


def ended_well(gunicorn: Gunicorn) -> bool:
    """Send TERM, wait for the end, and return whether each worker has ended in good order."""
    gunicorn.master.send_signal(signal.SIGTERM)
    status = gunicorn.master.wait(PATIENCE)
    exiting = re.findall(r"Worker exiting \(pid: \d+\)", gunicorn.log)
    return status == 0 and len(exiting) >= 2 and "TIMEOUT" not in gunicorn.log


@pytest.mark.parametrize("gunicorn", [(), ("--worker-class", "gthread", "--threads", "4")], indirect=True)
def test_workers_have_a_jvm_each_and_end_in_good_order(gunicorn: Gunicorn, server: MariaDB) -> None:
    gunicorn.wait_for_workers(2)
    answers = gunicorn.get_from_all()
    assert len(set(answers.values())) == 2
    assert ended_well(gunicorn), gunicorn.log
    eventually("all sessions end", lambda: not gunicorn.sessions())
    # A JVM that takes SIGTERM for itself would end the worker before its sessions are closed.
    assert gunicorn.aborted == 0


@pytest.mark.parametrize("gunicorn", [("--preload",)], indirect=True)
def test_workers_of_a_master_with_a_jvm_are_refused_and_end_in_good_order(gunicorn: Gunicorn) -> None:
    """The application has queried in the master."""
    gunicorn.wait_for_workers(2)
    (imported,) = gunicorn.notes("import")
    assert imported.pid == gunicorn.master.pid
    for _ in range(4):
        assert fetch(gunicorn.port, "/one").status == 500
    assert f"was forked from process {gunicorn.master.pid}, in which a JVM was running" in gunicorn.log
    assert ended_well(gunicorn), gunicorn.log
    eventually("all sessions end", lambda: not gunicorn.sessions())
