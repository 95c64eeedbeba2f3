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

#: The package of the newest version that the distribution has. The versions' own packages can't be named by
#: an expression: where more sources of packages are set up, it stands for all versions.
POSTGRESQL = "postgresql"
#: That of PostGIS for this version. It brings the server along.
POSTGIS = "postgresql-postgis"
#: A file that Debian's postgresql-common reads before it makes a cluster for a server that is new.
CLUSTER_SETTINGS = "/etc/postgresql-common/createcluster.d/poollife.conf"

#: JDBC drivers, where Debian puts them.
MARIADB_JAR = Path("/usr/share/java/mariadb-java-client.jar")
POSTGRESQL_JAR = Path("/usr/share/java/postgresql.jar")
H2_JAR = Path("/usr/share/java/h2.jar")


class Need(NamedTuple):
    """A requirement of `make test`, which the machine must meet."""

    name: str
    is_met: Callable[[], bool]
    packages: list[str]
    #: Whether tests that need it are skipped without it.
    optional: bool = False


def needs() -> list[Need]:
    """Return all that `make test` needs.

    The server comes without the system service around it (that is the package mariadb-server): the tests
    start their own. Its script that makes the system tables requires a tool of the client's package.
    """
    return [
        Need("MariaDB's server", has_server, ["mariadb-server-core", "mariadb-client-core"], optional=True),
        # Django clones test databases with them, for `test --parallel`.
        Need("MariaDB's client programs", has_client_programs, ["mariadb-client"], optional=True),
        # Its package also makes a cluster and starts it; install() prevents that.
        Need("a PostgreSQL server", has_postgresql, [POSTGRESQL], optional=True),
        Need("PostGIS", has_postgis, [POSTGIS], optional=True),
        # Its package starts a service, which leads to no database.
        Need("PgBouncer", lambda: has_program("pgbouncer"), ["pgbouncer"], optional=True),
        # For failovers. Its package starts a service that listens nowhere.
        Need("HAProxy", lambda: has_program("haproxy"), ["haproxy"], optional=True),
        # A library that the server loads only if it is told to.
        Need("Galera", has_galera, ["galera-4"], optional=True),
        # For Celery and RQ. The package has the server's binary, without the system service around it.
        Need("a Redis server", has_redis, ["redis-tools"], optional=True),
        # Its own program, without the system service around it (that is the package uwsgi).
        Need(
            "uWSGI with this Python in a plugin",
            has_uwsgi,
            ["uwsgi-core", "uwsgi-plugin-python3"],
            optional=True,
        ),
        # For the status page, which tests look at in a browser.
        Need("Chromium and ChromeDriver", has_chromium, ["chromium", "chromium-driver"], optional=True),
        # For JDBC: raw SQL through a JVM.
        Need("a Java runtime", has_java, ["default-jre-headless"], optional=True),
        # For stubs of drivers that can't be had.
        Need("a Java compiler", lambda: has_program("javac"), ["default-jdk-headless"], optional=True),
        Need("MariaDB's JDBC driver", MARIADB_JAR.exists, ["libmariadb-java"], optional=True),
        Need("PostgreSQL's JDBC driver", POSTGRESQL_JAR.exists, ["libpostgresql-jdbc-java"], optional=True),
        Need("the database H2", H2_JAR.exists, ["libh2-java"], optional=True),
        Need("pkg-config", lambda: has_program("pkg-config"), ["pkg-config"]),
        Need("the headers of MariaDB's or MySQL's client library", has_client_headers, ["libmariadb-dev"]),
        Need("a C compiler", has_compiler, ["gcc", "libc6-dev"]),
        Need("the headers of this Python", has_python_headers, [python_package("dev")]),
        Need("the modules venv and ensurepip of this Python", has_venv, [python_package("venv")]),
        # For GeoDjango. The package's name has its version in it: hence the expression. GEOS comes with it.
        Need("the libraries of GDAL and GEOS", has_gis_libraries, ["^libgdal[0-9]+(t64)?$"], optional=True),
    ]


def has_program(name: str) -> bool:
    """Return whether a program is on PATH, or in a folder that only root has on PATH."""
    folders = [os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/usr/local/mysql/bin"]
    path = os.pathsep.join(folders)
    return shutil.which(name, path=path) is not None


def has_server() -> bool:
    """Return whether the server and the script that makes its system tables are installed."""
    return has_program("mariadbd") and has_program("mariadb-install-db")


def has_client_programs() -> bool:
    """Return whether the client programs are installed, under the names that Django calls."""
    return has_program("mysqldump") and has_program("mysql")


def has_postgresql() -> bool:
    """Return whether the server and its tool initdb are installed, which Debian keeps out of PATH."""
    if has_program("postgres") and has_program("initdb"):
        return True
    folders = ["lib/postgresql/*/bin", "pgsql-*/bin", "local/pgsql/bin", "local/opt/postgresql*/bin"]
    found = [path for folder in folders for path in Path("/usr").glob(folder + "/initdb")]
    return any(path.with_name("postgres").exists() for path in found)


def has_postgis() -> bool:
    """Return whether PostGIS is installed for some version of the server."""
    folders = ["share/postgresql/*", "pgsql-*/share", "local/pgsql/share", "local/share/postgresql*"]
    return any(any(Path("/usr").glob(f"{folder}/extension/postgis.control")) for folder in folders)


def has_galera() -> bool:
    """Return whether the library is installed that makes a MariaDB server the node of a cluster."""
    places = ["lib/libgalera_smm.so", "lib/galera/libgalera_smm.so", "lib64/galera-4/libgalera_smm.so"]
    return any(Path("/usr", place).exists() for place in places)


def has_redis() -> bool:
    """Return whether the Redis server is installed.

    redis-check-rdb is the server, too, if it is called by the server's name.
    """
    names = ["redis-server", "valkey-server", "redis-check-rdb", "valkey-check-rdb"]
    return any(has_program(name) for name in names)


def has_chromium() -> bool:
    """Return whether a browser that a program can drive is installed, under Debian's names."""
    return has_program("chromium") and has_program("chromedriver")


def has_java() -> bool:
    """Return whether a Java runtime is installed, as JPype looks for one: a library, in JAVA_HOME first."""
    homes = [Path(os.environ.get("JAVA_HOME") or "/nonexistent"), *Path("/usr/lib/jvm").glob("*")]
    return any((home / "lib/server/libjvm.so").exists() for home in homes)


def has_uwsgi() -> bool:
    """Return whether uWSGI is installed, or not required.

    Debian's uWSGI has the system's Python. So it is required only if that has the same version as this
    Python.
    """
    version = "python{}.{}".format(*sys.version_info)
    if not has_program("apt-get") or Path("/usr/bin/python3").resolve().name != version:
        return True
    plugin = Path("/usr/lib/uwsgi/plugins", f"{version.replace('.', '')}_plugin.so")
    return has_program("uwsgi-core") and plugin.exists()


def has_client_headers() -> bool:
    """Return whether the client's headers are installed, by the test of mysqlclient's build.

    The build looks for these names in the files of pkg-config.
    """
    if not has_program("pkg-config"):
        return has_program("mariadb_config")
    names = ["mysqlclient", "mariadb", "libmariadb", "perconaserverclient"]
    return any(succeeds(["pkg-config", "--exists", name]) for name in names)


def has_compiler() -> bool:
    """Return whether a C file compiles: a compiler without the C library's headers is of no use."""
    command = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
    return succeeds([*command, "-x", "c", "-fsyntax-only", "-"], b"#include <stdio.h>\n")


def has_python_headers() -> bool:
    """Return whether Python.h is where this Python says that it is."""
    return (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file()


def has_venv() -> bool:
    """Return whether `python3 -m venv` works: Debian takes ensurepip out of Python."""
    return all(importlib.util.find_spec(module) for module in ("venv", "ensurepip"))


def python_package(suffix: str) -> str:
    """Return the name of a package that completes this Python, which is the system's or another version."""
    default = Path("/usr/bin/python3")
    if default.exists() and default.resolve() == Path(sys.executable).resolve():
        return f"python3-{suffix}"
    return f"python{sys.version_info[0]}.{sys.version_info[1]}-{suffix}"


def has_gis_libraries() -> bool:
    """Return whether the libraries are installed, by Django's test."""
    return all(ctypes.util.find_library(name) for name in ("gdal", "geos_c"))


def succeeds(command: list[str], stdin: bytes = b"") -> bool:
    """Run a command without its output, and return whether it succeeds."""
    try:
        done = subprocess.run(command, input=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError:
        return False
    return done.returncode == 0


def privileges() -> list[str] | None:
    """Return the words to put before apt-get, or None if the user may not install packages."""
    if not shutil.which("apt-get"):
        return None
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") and succeeds(["sudo", "-n", "true"]):
        return ["sudo", "-n"]
    return None


def install(packages: list[str], before: list[str]) -> bool:
    """Install packages with apt-get, which prints what it does, and return whether it succeeds."""
    apt = [*before, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
    print("Installing", *packages, flush=True)
    # An error here does not count: the packages may come from another source than the one that failed.
    subprocess.run([*apt, "update"])
    command = [*apt, "install", "-y", "--no-install-recommends", *packages]
    if not {POSTGRESQL, POSTGIS}.intersection(packages):
        return subprocess.run(command).returncode == 0
    # The tests start their own server: no other is to be made, and to run from now on.
    write = [*before, "install", "-D", "-m", "644", "/dev/stdin", CLUSTER_SETTINGS]
    subprocess.run(write, input=b"create_main_cluster = false\n")
    try:
        return subprocess.run(command).returncode == 0
    finally:
        # A version that the user installs later gets its cluster as usual.
        subprocess.run([*before, "rm", "-f", CLUSTER_SETTINGS])


def report(missing: list[Need]) -> None:
    """Print the missing requirements, and the command that installs them on Debian and Ubuntu."""
    print("This machine misses:", file=sys.stderr)
    for need in missing:
        remark = " (tests that need it are skipped)" if need.optional else ""
        print(f"  - {need.name}{remark}", file=sys.stderr)
    packages = " ".join(shlex.quote(package) for need in missing for package in need.packages)
    sudo = "" if os.geteuid() == 0 else "sudo "
    print(f"On Debian or Ubuntu:\n  {sudo}apt install {packages}", file=sys.stderr)


def main() -> int:
    """Check, install if that is asked for and possible, and check again."""
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
