"""Build the archives of a release, and use the wheel as a stranger would: ``make release-check``.

The archives are left in ``dist``. The wheel is installed in a new environment, far from this folder. There it
serves a request of a site on SQLite, and a user's file is read by mypy and pyright. The exit status is 0 if
all of that worked.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from email import message_from_bytes
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
#: The extras for users, and a module that each brings.
EXTRAS = {
    "mysql": "MySQLdb",
    "pymysql": "pymysql",
    "postgresql": "psycopg",
    "postgresql-psycopg2": "psycopg2",
    "oracle": "oracledb",
    "jdbc": "jpype",
    "status": "rich",
    "prometheus": "prometheus_client",
    "opentelemetry": "opentelemetry.metrics",
}
#: psycopg2 is built from source, for which its build asks this program.
BUILDS_PSYCOPG2 = "pg_config"
USER = ROOT / "tests/support/typed_user.py"
#: A line that a checker has to refuse: else the others prove nothing.
MISTAKE = "\n\nwrong: int = count(1)\n"
#: The domain of the addresses that docs/releasing.md says to replace.
PLACEHOLDER = "poollife.example"

SETTINGS = """
SECRET_KEY = "smoke"
ALLOWED_HOSTS = ["testserver"]
INSTALLED_APPS = ["poollife"]
MIDDLEWARE = ["poollife.middleware.PoolMiddleware"]
ROOT_URLCONF = "smoke_urls"
USE_TZ = True
DATABASES = {"default": {"ENGINE": "poollife.backends.sqlite3", "NAME": "smoke.sqlite3"}}
"""
URLS = """
from django.db import connection
from django.http import HttpResponse
from django.urls import include, path

def view(request):
    with connection.cursor() as cursor:
        cursor.execute("SELECT sqlite_version()")
        return HttpResponse(cursor.fetchone()[0])

urlpatterns = [path("", view), path("pools/", include("poollife.urls"))]
"""
REQUEST = """
import sys
import django
django.setup()
from django.test import Client
import poollife
assert poollife.__file__.startswith(sys.prefix), poollife.__file__
for _ in range(2):
    assert Client().get("/").status_code == 200
assert Client().get("/pools/status.js").status_code == 403  # no member of the staff
stats = poollife.pool_stats()["default"]
assert (stats["checkouts"], stats["opened"], stats["out"]) == (2, 1, 0), stats
"""


FIND = """
import sys
from importlib.util import find_spec
print(*(name for name in sys.argv[1:] if not find_spec(name)))
"""


class Refused(Exception):
    """A step that did not succeed; the text says why."""


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    """Run a command, and return what it prints.

    :raises Refused: its exit status is not 0.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DJANGO_"))}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**clean, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise Refused(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


class Release:
    """The archives, and the environment in which the wheel is used."""

    def __init__(self, folder: Path) -> None:
        """Prepare it.

        :param folder: an empty folder, outside of the project.
        """
        self._folder = folder
        self._python = folder / "env/bin/python"

    @property
    def wheel(self) -> Path:
        """The wheel in ``dist``."""
        (wheel,) = DIST.glob("*.whl")
        return wheel

    def build(self) -> str:
        """Build both archives, the wheel from the source archive."""
        shutil.rmtree(DIST, ignore_errors=True)
        run(sys.executable, "-m", "build", "--outdir", DIST)
        return ", ".join(sorted(path.name for path in DIST.iterdir()))

    def check(self) -> str:
        """Have twine check what the index of packages will show."""
        run(sys.executable, "-m", "twine", "check", "--strict", *sorted(DIST.iterdir()))
        return "twine has nothing to say"

    def look_inside(self) -> str:
        """Look for what belongs into a wheel, and for what does not."""
        with zipfile.ZipFile(self.wheel) as archive:
            names = archive.namelist()
            (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
            message = message_from_bytes(archive.read(metadata))
        expected = {f"poollife/{path.relative_to(ROOT / 'poollife')}" for path in files_of(ROOT / "poollife")}
        if missing := expected - set(names):
            raise Refused(f"not in the wheel: {sorted(missing)}")
        if strange := [name for name in set(names) - expected if ".dist-info/" not in name]:
            raise Refused(f"strange in the wheel: {sorted(strange)}")
        page = str(message.get_payload())
        if relative := re.findall(r"\]\((?!#|https?://)([^)]*)", page):
            raise Refused(f"relative links on the page of the package: {relative}")
        note = f"; replace the addresses below {PLACEHOLDER} before an upload" if PLACEHOLDER in page else ""
        return f"{len(names)} files{note}"

    def install(self) -> str:
        """Install the wheel in a new environment."""
        run(sys.executable, "-m", "venv", self._folder / "env")
        self._pip(self.wheel)
        run(self._python, "-m", "pip", "check")
        return run(self._python, "-c", "import poollife; print(poollife.__version__)").strip()

    def serve(self) -> str:
        """Check a site on SQLite by Django's command, and have it answer requests."""
        place = self._folder / "site"
        place.mkdir()
        for name, text in (("smoke_settings", SETTINGS), ("smoke_urls", URLS), ("smoke", REQUEST)):
            (place / f"{name}.py").write_text(text)
        environment = {"DJANGO_SETTINGS_MODULE": "smoke_settings", "PYTHONPATH": str(place)}
        run(
            *(self._python, "-W", "error", "-m", "django", "check", "--fail-level", "WARNING"),
            cwd=place,
            **environment,
        )
        run(self._python, "-W", "error", "smoke.py", cwd=place, **environment)
        return "two requests in one session, the status page refused"

    def read_types(self) -> str:
        """Have mypy and pyright read a user's file, and refuse a mistake in it."""
        for name, command in self._checkers().items():
            place = self._folder / name
            place.mkdir()
            shutil.copy(USER, place / "user.py")
            run(*command, "user.py", cwd=place)
            (place / "wrong.py").write_text(USER.read_text() + MISTAKE)
            try:
                run(*command, "wrong.py", cwd=place)
            except Refused as refused:
                if "wrong.py" not in str(refused):
                    raise
            else:
                raise Refused(f"{name} does not see a mistake")
        return " and ".join(self._checkers())

    def _checkers(self) -> dict[str, tuple[str | Path, ...]]:
        return {
            "mypy": (
                *(sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file="),
                f"--python-executable={self._python}",
            ),
            "pyright": (sys.executable, "-m", "pyright", f"--pythonpath={self._python}"),
        }

    def install_extras(self) -> str:
        """Install each extra for users, and look for the module that it is for."""
        able = [name for name in EXTRAS if name != "postgresql-psycopg2" or shutil.which(BUILDS_PSYCOPG2)]
        self._pip(f"poollife[{','.join(able)}] @ {self.wheel.as_uri()}")
        modules = [EXTRAS[name] for name in able]
        if missing := run(self._python, "-c", FIND, *modules).split():
            raise Refused(f"the extras did not bring {missing}")
        left_out = sorted(set(EXTRAS) - set(able))
        note = f"; left out, as {BUILDS_PSYCOPG2} is missing: {', '.join(left_out)}" if left_out else ""
        return f"{', '.join(able)}{note}"

    def _pip(self, requirement: str | Path) -> None:
        run(self._python, "-m", "pip", "install", "-q", "--disable-pip-version-check", requirement)


def files_of(folder: Path) -> list[Path]:
    """Return the files of the package, without what Python has compiled."""
    return [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def main() -> int:
    """Take all steps, and stop at the first that does not succeed."""
    with tempfile.TemporaryDirectory(prefix="poollife-release-") as folder:
        release = Release(Path(folder))
        steps: list[Callable[[], str]] = [
            release.build,
            release.check,
            release.look_inside,
            release.install,
            release.serve,
            release.read_types,
            release.install_extras,
        ]
        for step in steps:
            try:
                print(f"{step.__name__.replace('_', ' ')}: {step()}", flush=True)
            except Refused as refused:
                print(f"{step.__name__.replace('_', ' ')}: FAILED\n{refused}", flush=True)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
