"""Find out which system packages `make test` misses on this machine, and install them where that is possible.

Run it with the Python that the virtual environment is to be made with; nothing but the standard library is
needed. With --check it only reports. The exit status is 1 if something is still missing that Python packages
are built with. It is 0 if nothing but what tests run is missing: these tests are skipped. Where the
environment variable CI is set, they fail, and so does this program.
"""

from __future__ import annotations

import argparse
import ctypes.util
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Callable, NamedTuple

OLDEST_PYTHON = (3, 11)


class Need(NamedTuple):
    """Something the machine must have."""

    name: str
    is_met: Callable[[], bool]
    packages: list[str]
    #: Whether tests that need it are skipped without it.
    optional: bool = False


def needs() -> list[Need]:
    """Return all that `make test` needs.

    The server comes without the system service around it (that is the package mariadb-server): the tests
    start their own. Its script that makes the system tables wants a tool of the client's.
    """
    return [
        Need("MariaDB's server", has_server, ["mariadb-server-core", "mariadb-client-core"], optional=True),
        # Django clones test databases with them, for `test --parallel`.
        Need("MariaDB's client programs", has_client_programs, ["mariadb-client"], optional=True),
        # For Celery and RQ. The package has the server's binary, without the system service around it.
        Need("a Redis server", has_redis, ["redis-tools"], optional=True),
        # Its own program, without the system service around it (that is the package uwsgi).
        Need(
            "uWSGI with this Python in a plugin",
            has_uwsgi,
            ["uwsgi-core", "uwsgi-plugin-python3"],
            optional=True,
        ),
        Need("pkg-config", lambda: has_program("pkg-config"), ["pkg-config"]),
        Need("the headers of MariaDB's or MySQL's client library", has_client_headers, ["libmariadb-dev"]),
        Need("a C compiler", has_compiler, ["gcc", "libc6-dev"]),
        Need("the headers of this Python", has_python_headers, [python_package("dev")]),
        Need("the modules venv and ensurepip of this Python", has_venv, [python_package("venv")]),
        # For GeoDjango. The package is called after its version: hence the expression. GEOS comes with it.
        Need("the libraries of GDAL and GEOS", has_gis_libraries, ["^libgdal[0-9]+(t64)?$"], optional=True),
    ]


def has_program(name: str) -> bool:
    """Is it on PATH, or where only root's PATH leads?"""
    folders = [os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/usr/local/mysql/bin"]
    path = os.pathsep.join(folders)
    return shutil.which(name, path=path) is not None


def has_server() -> bool:
    """The server, and the script that makes its system tables."""
    return has_program("mariadbd") and has_program("mariadb-install-db")


def has_client_programs() -> bool:
    """Under the names that Django calls."""
    return has_program("mysqldump") and has_program("mysql")


def has_redis() -> bool:
    """redis-check-rdb is the server too, if it is called by the server's name."""
    names = ["redis-server", "valkey-server", "redis-check-rdb", "valkey-check-rdb"]
    return any(has_program(name) for name in names)


def has_uwsgi() -> bool:
    """Debian's has the system's Python, so it is missed only where that is the same version as this one."""
    version = "python{}.{}".format(*sys.version_info)
    if not has_program("apt-get") or Path("/usr/bin/python3").resolve().name != version:
        return True
    plugin = Path("/usr/lib/uwsgi/plugins", f"{version.replace('.', '')}_plugin.so")
    return has_program("uwsgi-core") and plugin.exists()


def has_client_headers() -> bool:
    """Ask as mysqlclient does when it is built: it looks for these names, in pkg-config's files."""
    if not has_program("pkg-config"):
        return has_program("mariadb_config")
    names = ["mysqlclient", "mariadb", "libmariadb", "perconaserverclient"]
    return any(succeeds(["pkg-config", "--exists", name]) for name in names)


def has_compiler() -> bool:
    """Compile something: a compiler without the C library's headers is of no use."""
    command = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
    return succeeds([*command, "-x", "c", "-fsyntax-only", "-"], b"#include <stdio.h>\n")


def has_python_headers() -> bool:
    """Python.h, where this Python says it is."""
    return (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file()


def has_venv() -> bool:
    """Debian takes ensurepip out of Python, and `python3 -m venv` fails without it."""
    return all(importlib.util.find_spec(module) for module in ("venv", "ensurepip"))


def python_package(suffix: str) -> str:
    """Return the package that completes this Python: the system's own, or another version beside it."""
    default = Path("/usr/bin/python3")
    if default.exists() and default.resolve() == Path(sys.executable).resolve():
        return f"python3-{suffix}"
    return f"python{sys.version_info[0]}.{sys.version_info[1]}-{suffix}"


def has_gis_libraries() -> bool:
    """Ask as Django does."""
    return all(ctypes.util.find_library(name) for name in ("gdal", "geos_c"))


def succeeds(command: list[str], stdin: bytes = b"") -> bool:
    """Run a command without showing what it prints."""
    try:
        done = subprocess.run(command, input=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError:
        return False
    return done.returncode == 0


def privileges() -> list[str] | None:
    """Return what to put before apt-get, or None if we may not install anything."""
    if not shutil.which("apt-get"):
        return None
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") and succeeds(["sudo", "-n", "true"]):
        return ["sudo", "-n"]
    return None


def install(packages: list[str], before: list[str]) -> bool:
    """Install packages with apt-get, and let it say what it does."""
    apt = [*before, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    print("Installing", *packages, flush=True)
    # A source of packages that does not answer need not be one that we want something from.
    subprocess.run([*apt, "update"])
    return subprocess.run([*apt, "install", "-y", "--no-install-recommends", *packages]).returncode == 0


def report(missing: list[Need]) -> None:
    """Say what is missing, and the one command that installs it on Debian and Ubuntu."""
    print("This machine misses:", file=sys.stderr)
    for need in missing:
        remark = " (tests that need it are skipped)" if need.optional else ""
        print(f"  - {need.name}{remark}", file=sys.stderr)
    packages = " ".join(shlex.quote(package) for need in missing for package in need.packages)
    sudo = "" if os.geteuid() == 0 else "sudo "
    print(f"On Debian or Ubuntu:\n  {sudo}apt install {packages}", file=sys.stderr)


def main() -> int:
    """Check, install where that is wanted and possible, and check again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only report what is missing")
    check_only = parser.parse_args().check

    if sys.version_info < OLDEST_PYTHON:
        print("Python {}.{} or later is needed; this is {}.".format(*OLDEST_PYTHON, sys.version.split()[0]))
        print("Name another one like this: make test PYTHON=python3.12")
        return 1
    missing = [need for need in needs() if not need.is_met()]
    before = None if check_only or not missing else privileges()
    if before is not None:
        install([package for need in missing for package in need.packages], before)
        missing = [need for need in missing if not need.is_met()]
    if missing:
        report(missing)
    return int(any(not need.optional or os.environ.get("CI") for need in missing))


if __name__ == "__main__":
    sys.exit(main())
