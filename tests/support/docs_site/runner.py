"""Running programs in the documentation's site, from tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers import MariaDB, OracleStandIn, PostgreSQL
from tests.support import ROOT

#: Seconds for one program.
LIMIT = 60.0
#: Forks with threads alive are what some pages are about; Python 3.12 and later warn of them.
WARNINGS = ("-W", "error", "-W", "ignore:This process:DeprecationWarning")


class Runner:
    """Runs programs in the documentation's site."""

    def __init__(self, server: MariaDB, postgresql: PostgreSQL, oracle: OracleStandIn, folder: Path) -> None:
        self.server = server
        self.folder = folder
        entry, other = server.database(""), postgresql.database("")
        oracle.create_database("docs")
        place = ("USER", "PASSWORD", "HOST", "PORT")
        self.environment = {
            **os.environ,
            "DOCS_SITE_FOLDER": str(folder),
            "DOCS_SITE_SERVER": json.dumps({key: entry[key] for key in place}),
            "DOCS_SITE_POSTGRESQL": json.dumps({key: other[key] for key in (*place, "OPTIONS")}),
            "DOCS_SITE_ORACLE": json.dumps({key: oracle.database("docs")[key] for key in (*place, "NAME")}),
            "DJANGO_SETTINGS_MODULE": "tests.support.docs_site.settings",
            "PYTHONPATH": os.pathsep.join(map(str, [folder, ROOT / "tests/support/docs_site", ROOT])),
        }

    def python(self, *arguments: str | Path, **environment: str) -> str:
        """Run Python; what it prints. Anything on stderr is a failure."""
        # With a board of its own: the page shows what one site has.
        board = {"POOLLIFE_RUN_DIR": tempfile.mkdtemp(prefix="board-", dir=self.folder)}
        done = subprocess.run(
            [sys.executable, *WARNINGS, *arguments],
            cwd=ROOT,
            env={**self.environment, **board, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        assert (done.returncode, done.stderr) == (0, ""), f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def file(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path


@contextmanager
def new_runner(
    server: MariaDB, postgresql: PostgreSQL, oracle: OracleStandIn, folder: Path
) -> Iterator[Runner]:
    """A runner; the databases that its programs have made in MariaDB are dropped at the end."""
    before = server.execute("SHOW DATABASES")
    yield Runner(server, postgresql, oracle, folder)
    for row in server.execute("SHOW DATABASES"):
        if row not in before:
            server.execute(f"DROP DATABASE `{row[0]}`")
