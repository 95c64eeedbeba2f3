"""The files of deploy/ for what stands around a site: the programs that read them take them."""

from __future__ import annotations

import configparser
import runpy
import subprocess
from pathlib import Path

import pytest
import yaml

from servers import MariaDB, PgBouncer, PostgreSQL
from servers.haproxy import HAProxy
from servers.role_agent import RoleAgent
from tests.support import ROOT

DEPLOY = ROOT / "deploy"


def test_haproxy_takes_its_configuration(tmp_path: Path) -> None:
    program = HAProxy.binary()
    text = (DEPLOY / "haproxy.cfg").read_text().replace("/run/haproxy/", f"{tmp_path}/")
    (tmp_path / "haproxy.cfg").write_text(text)
    done = subprocess.run(
        [program, "-c", "-f", tmp_path / "haproxy.cfg"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert text.count("on-marked-down shutdown-sessions") == 1


def test_pgbouncer_starts_with_its_configuration(postgresql: PostgreSQL) -> None:
    read = configparser.ConfigParser(inline_comment_prefixes=(";",))
    read.read_string((DEPLOY / "pgbouncer.ini").read_text())
    own = {"listen_addr", "listen_port", "auth_file"}
    settings = {name: value for name, value in read["pgbouncer"].items() if name not in own}
    with PgBouncer(postgresql, "transaction", settings=settings) as pgbouncer:
        rows = {row["key"]: row["value"] for row in pgbouncer.ask("SHOW CONFIG")}
        log = (pgbouncer.folder / "server.log").read_text()
    assert {name: rows[name] for name in settings} == settings
    assert "WARNING" not in log


def graceful_timeout() -> int:
    """Return the seconds that gunicorn gives its workers."""
    seconds: int = runpy.run_path(str(DEPLOY / "gunicorn.conf.py"))["graceful_timeout"]
    return seconds


def test_pods_have_time_to_end() -> None:
    """preStop and gunicorn's graceful_timeout come first."""
    pod = yaml.safe_load((DEPLOY / "kubernetes.yaml").read_text())["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    stop = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] >= stop + graceful_timeout() + 5


def test_systemd_waits_for_gunicorn() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string((DEPLOY / "site.service").read_text())
    assert int(unit["Service"]["TimeoutStopSec"]) > graceful_timeout()
    assert unit["Service"]["Environment"] == f"POOLLIFE_RUN_DIR=/run/{unit['Service']['RuntimeDirectory']}"


def test_agent_tells_the_role_of_a_mysql_server(mariadb: MariaDB) -> None:
    with RoleAgent(mariadb) as agent:
        assert [agent.ask(path) for path in ("/primary", "/replica", "/galera")] == [200, 503, 503]
        mariadb.execute("SET GLOBAL read_only = ON")
        try:
            assert [agent.ask(path) for path in ("/primary", "/replica", "/galera")] == [503, 200, 503]
        finally:
            mariadb.execute("SET GLOBAL read_only = OFF")


@pytest.mark.slow
def test_agent_tells_the_role_of_a_postgresql_server() -> None:
    from servers.postgresql import REPLICATES

    with PostgreSQL(options=REPLICATES) as primary, primary.standby() as standby:
        with RoleAgent(primary) as agent:
            assert [agent.ask(path) for path in ("/primary", "/replica", "/galera")] == [200, 503, 503]
        with RoleAgent(standby) as agent:
            assert [agent.ask(path) for path in ("/primary", "/replica", "/galera")] == [503, 200, 503]
            standby.halt(immediate=True)
            assert [agent.ask(path) for path in ("/primary", "/replica")] == [503, 503]
