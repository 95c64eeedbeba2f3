"""What `make test` installs on a machine."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from tools import system_packages


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bytes | None]]:
    """The commands that were to be run, with their input. None is run."""
    run: list[tuple[str, bytes | None]] = []

    def note(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        run.append((" ".join(command), options.get("input")))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", note)
    return run


def test_servers_are_optional() -> None:
    names = {need.name: need for need in system_packages.needs()}

    packages = {
        "a PostgreSQL server": "postgresql",
        "PostGIS": "postgresql-postgis",
        "PgBouncer": "pgbouncer",
    }
    for name, package in packages.items():
        assert names[name].optional
        assert names[name].packages == [package]


@pytest.mark.parametrize("package", ["postgresql", "postgresql-postgis"])
def test_package_of_postgresql_makes_no_cluster(
    commands: list[tuple[str, bytes | None]], package: str
) -> None:
    assert system_packages.install(["gcc", package], ["sudo", "-n"])

    update, write, install, remove = commands
    settings = "/etc/postgresql-common/createcluster.d/poollife.conf"
    assert update[0].endswith("apt-get -qq update")
    assert write == (
        f"sudo -n install -D -m 644 /dev/stdin {settings}",
        b"create_main_cluster = false\n",
    )
    assert install[0].endswith(f"install -y --no-install-recommends gcc {package}")
    assert remove[0] == f"sudo -n rm -f {settings}"


def test_other_packages_leave_the_settings_of_clusters_alone(
    commands: list[tuple[str, bytes | None]],
) -> None:
    assert system_packages.install(["gcc"], [])

    assert not [command for command, _ in commands if "postgresql" in command]


def test_server_that_the_tests_find_is_not_installed_again() -> None:
    from servers import PostgreSQL

    assert system_packages.has_postgresql() == (PostgreSQL.find() is not None)
