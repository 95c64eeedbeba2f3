"""Looks for what some tests need beside Python packages: programs, libraries, privileges.

Each function raises ``servers.Missing`` where this machine lacks it. tests/conftest.py makes that a skipped
test, or a failed one where the environment variable ``CI`` is set.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess

from servers import Missing, PostgreSQL
from tools import conformance, system_packages

INSTALL = "python3 tools/system_packages.py installs it"


def client_programs() -> None:
    """Look for mysql and mysqldump: Django clones test databases with them."""
    if not system_packages.has_client_programs():
        raise Missing(f"missing: MariaDB's client programs mysql and mysqldump; {INSTALL}")


def pgbouncer() -> None:
    """Look for PgBouncer."""
    if not system_packages.has_program("pgbouncer"):
        raise Missing(f"missing: PgBouncer; {INSTALL}")


def gis_libraries() -> None:
    """Look for the libraries that GeoDjango loads."""
    if not system_packages.has_gis_libraries():
        raise Missing(f"missing: the libraries of GDAL and GEOS; {INSTALL}")


def postgis(server: PostgreSQL) -> None:
    """Look for PostGIS of the server's version."""
    if not server.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'postgis'"):
        raise Missing(f"missing: PostGIS for this version of PostgreSQL; {INSTALL}")


def python_oracledb() -> None:
    """Look for python-oracledb, the driver of Oracle."""
    if importlib.util.find_spec("oracledb") is None:
        raise Missing("missing: python-oracledb; pip install oracledb")


def django_tenants() -> None:
    """Look for django-tenants, which each new version of Django has to wait for."""
    if importlib.util.find_spec("django_tenants") is None:
        raise Missing("missing: django-tenants; pip install django-tenants")


def chromium() -> None:
    """Look for Chromium and ChromeDriver."""
    if not system_packages.has_chromium():
        raise Missing(f"missing: Chromium and ChromeDriver; {INSTALL}")


def java() -> dict[str, str]:
    """Look for JPype, a Java runtime and JDBC drivers; return the environment of a program that uses them."""
    if importlib.util.find_spec("jpype") is None:
        raise Missing("missing: JPype; pip install JPype1")
    if not system_packages.has_java():
        raise Missing(f"missing: a Java runtime; {INSTALL}")
    jars = system_packages.MARIADB_JAR, system_packages.POSTGRESQL_JAR
    if missing := [str(jar) for jar in jars if not jar.exists()]:
        raise Missing(f"missing: the JDBC drivers {' and '.join(missing)}; {INSTALL}")
    # A driver takes its time zone from the JVM, and that from TZ.
    return {"CLASSPATH": ":".join(map(str, jars)), "TZ": "UTC"}


def java_compiler() -> None:
    """Look for javac, which compiles the stubs of JDBC drivers."""
    if not system_packages.has_program("javac"):
        raise Missing(f"missing: a Java compiler; {INSTALL}")


def h2() -> None:
    """Look for H2, a database in the process of the JVM."""
    if not system_packages.H2_JAR.exists():
        raise Missing(f"missing: the database H2; {INSTALL}")


def uwsgi_of_debian() -> None:
    """Look for Debian's uWSGI, if there is one for this Python."""
    if not system_packages.has_uwsgi():
        raise Missing(f"missing: Debian's uWSGI with the plugin for this Python; {INSTALL}")


def tests_of_django() -> None:
    """Download the source of the installed Django, which has its tests, where that is not done yet."""
    try:
        conformance.tests_of_django()
    except subprocess.CalledProcessError as error:
        raise Missing("missing: the source of Django, which pip could not download") from error


def namespace(flag: str) -> list[str]:
    """Return the beginning of a command that runs another command in a namespace of its own.

    :param flag: of unshare, for the kind: ``-n`` for the network, ``-m`` for mounts.
    """
    unshare = shutil.which("unshare")
    for flags in ([flag], ["-r", flag]):
        if unshare and subprocess.run([unshare, *flags, "true"], capture_output=True).returncode == 0:
            return [unshare, *flags]
    raise Missing(
        f"missing: the privilege to make a namespace (neither 'unshare {flag}' nor 'unshare -r {flag}' "
        "works). "
        "As root in a container: give it CAP_SYS_ADMIN. As another user: allow user namespaces "
        "(sysctl kernel.unprivileged_userns_clone=1, or kernel.apparmor_restrict_unprivileged_userns=0)."
    )
