"""The versions that poollife runs on: `make matrix` runs the cells whose Python is on this machine.

`make test` runs everything in one cell; here the tests that depend on versions run in the others.
"""

from __future__ import annotations

from itertools import product

import nox

nox.needs_version = ">=2024.10.9"
nox.options.default_venv_backend = "virtualenv"

DJANGOS = {"3.11": ["5.2"], "3.12": ["5.2", "6.0", "6.1"], "3.13": ["5.2", "6.0", "6.1"]}
#: The oldest drivers that are supported go with the older SQLAlchemy; oracledb 2.3 is older than Python 3.13.
DRIVERS = {
    "2.0": ["mysqlclient==2.2.*", "oracledb==2.3.*; python_version < '3.13'"],
    "2.1": ["mysqlclient>=2.3", "oracledb>=26"],
}
#: Beside that of `make test` (3.11, 5.2, 2.1): each other version that is supported is in one of these.
CI = {("3.12", "6.0", "2.0"), ("3.13", "6.1", "2.1")}
CELLS = [
    nox.param(
        *cell,
        id="django{1}-sqlalchemy{2}-python{0}".format(*cell),
        tags=["ci"] if cell in CI else [],
    )
    for python, djangos in DJANGOS.items()
    for cell in product([python], djangos, DRIVERS)
]
ORACLE = [
    "tests/compatibility/test_oracledb.py",
    "tests/compatibility/test_oracledb_processes.py",
    "tests/invariants/inv7_dead_sessions/test_oracle_errors.py",
]
PSYCOPG = ["tests/kit", "tests/compatibility/test_psycopg.py"]
TESTS = [
    "tests/interface/test_conf.py",
    "tests/compatibility/test_private_names.py",
    "tests/compatibility/test_composed.py",
    "tests/invariants/inv1_fork/test_forks.py",
    "tests/invariants/inv1_fork/test_sqlite_forks.py",
    "tests/invariants/inv2_return/test_requests.py",
    "tests/invariants/inv2_return/test_asynchronous_exceptions.py",
    "tests/invariants/inv2_return/test_thread_ends.py",
    "tests/invariants/inv2_return/test_every_kind_of_work.py",
    "tests/invariants/inv2_return/test_threads.py",
    "tests/invariants/inv2_return/test_auto_close_db.py",
    "tests/invariants/inv2_return/test_without_hooks.py",
    "tests/invariants/inv2_return/test_one_session.py",
    "tests/invariants/inv2_return/test_reclaim.py",
    "tests/invariants/inv2_return/test_copies.py",
    "tests/invariants/inv3_isolation/test_cursors.py",
    "tests/invariants/inv3_isolation/test_marks.py",
    "tests/invariants/inv3_isolation/test_orm.py",
    "tests/invariants/inv5_warm_checkout/test_calls.py",
    "tests/hooks/test_wsgi.py",
    *PSYCOPG,
    *ORACLE,
    "tests/transactions/test_lazy_begin.py",
    "tests/transactions/test_packets.py",
]


@nox.session
@nox.parametrize("python,django,sqlalchemy", CELLS)
def tests(session: nox.Session, django: str, sqlalchemy: str) -> None:
    """Run the tests of one cell."""
    session.install(
        "-e", ".[dev,mysql]", f"Django=={django}.*", f"SQLAlchemy=={sqlalchemy}.*", *DRIVERS[sqlalchemy]
    )
    session.run(
        "python",
        "-m",
        "pytest",
        "-q",
        "-n",
        "2",
        "--dist",
        "loadfile",
        "--no-loadscope-reorder",
        *(session.posargs or TESTS),
    )


@nox.session(default=False)
def psycopg_c(session: nox.Session) -> None:
    """Run the kit with psycopg's implementation in C. It is built here, with the headers of libpq."""
    session.install("-e", ".[dev,mysql]", "psycopg[c]")
    environment = {"PSYCOPG_IMPL": "c"}
    # Otherwise Django takes psycopg2 if the implementation can't be imported.
    session.run("python", "-c", "import psycopg", env=environment)
    session.run("python", "-m", "pytest", "-q", *(session.posargs or PSYCOPG), env=environment)


@nox.session(default=False)
def django_main(session: nox.Session) -> None:
    """Run the tests of a cell with Django's development version. They may fail."""
    session.install("-e", ".[dev,mysql]")
    # Without its dependencies, and not as a requirement: pyproject.toml excludes versions that are not out.
    session.install("--no-deps", "https://github.com/django/django/archive/main.tar.gz")
    session.run("python", "-m", "pytest", "-q", *(session.posargs or TESTS))
