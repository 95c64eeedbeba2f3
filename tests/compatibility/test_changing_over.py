"""``docs/changing-over.md``: applications of other pools run after exactly the change that it tells."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from servers import MariaDB, OracleStandIn, PostgreSQL
from tests.support import ROOT, needs
from tests.support.docs_site.runner import Runner, new_runner
from tests.support.pages import Block, page

pytestmark = pytest.mark.slow

PAGE = page("docs/changing-over.md")
PREDECESSORS = ROOT / "tests/support/predecessors"
DIFFS = [block for block in PAGE.blocks if block.language == "diff"]
#: The sections whose application goes through all of their changes at once, in the order of the page.
NAMES = [name for name in dict.fromkeys(block.section for block in DIFFS) if name != "Going back"]


class Change(NamedTuple):
    """A diff of the page."""

    file: str
    before: str
    after: str
    added: int

    @classmethod
    def read(cls, block: Block) -> Change:
        """:raises AssertionError: it is not a diff as this page writes them."""
        head, new, *lines = block.text.splitlines()
        file = head.removeprefix("--- ")
        assert (head, new) == (f"--- {file}", f"+++ {file}")
        assert {line[:1] for line in lines} <= {" ", "+", "-"}
        return cls(
            file,
            "".join(f"{line[1:]}\n" for line in lines if line[0] in " -"),
            "".join(f"{line[1:]}\n" for line in lines if line[0] in " +"),
            sum(line[0] == "+" for line in lines),
        )


class Application:
    """An application as it was, in a folder of its own."""

    def __init__(self, section: str, runner: Runner) -> None:
        source = PREDECESSORS / re.sub(r"\W+", "_", section).lower()
        self.changes = [Change.read(block) for block in DIFFS if block.section == section]
        self.files = {path.name.removesuffix(".before"): path.read_text() for path in source.glob("*.before")}
        self.expected = (source / "printed.txt").read_text()
        self._runner = runner
        if "JDBC" in section:
            runner.environment.update(needs.java())

    def apply(self, change: Change) -> None:
        """As an editor would: the text that the page shows is there once."""
        assert self.files[change.file].count(change.before) == 1, change.before
        self.files[change.file] = self.files[change.file].replace(change.before, change.after)

    def complete(self) -> None:
        """The app and the middleware, as the README has them."""
        start = page("README.md").blocks[1].text
        for name in ("INSTALLED_APPS", "MIDDLEWARE"):
            lines = re.findall(rf'^{name} = \[("[\w.]+"), \*{name}\]', start, re.MULTILINE)
            assert len(lines) == 1
            if lines[0] not in self.files["settings.py"]:
                self.files["settings.py"] += f"{name}.insert(0, {lines[0]})\n"

    def run(self) -> set[str]:
        """Run it, and compare what it prints; the ids of what the system checks find."""
        output = self._python("-m", "tests.support.docs_site.run", "app.py", "--issues")
        issues, printed = output.split("\n", 1)
        assert printed == self.expected
        return set(issues.split())

    def issues(self) -> set[str]:
        """The same where it can't run."""
        return set(self._python("-m", "tests.support.docs_site.check").split())

    def _python(self, *arguments: str) -> str:
        for name, text in self.files.items():
            self._runner.file(name, text)
        self._runner.file(
            "site_settings.py",
            "from tests.support.docs_site.base import *\n"
            "from tests.support.docs_site.base import fill_in\n"
            "from settings import *\n"
            "from settings import DATABASES\n\n"
            "fill_in(DATABASES)\n",
        )
        paths = [self._runner.folder / each if each == "app.py" else each for each in arguments]
        return self._runner.python(*paths, DJANGO_SETTINGS_MODULE="site_settings")


@pytest.fixture
def runner(
    mariadb: MariaDB, postgresql: PostgreSQL, oracle: OracleStandIn, tmp_path: Path
) -> Iterator[Runner]:
    with new_runner(mariadb, postgresql, oracle, tmp_path) as runner:
        yield runner


@pytest.mark.parametrize("section", NAMES)
def test_change(runner: Runner, section: str) -> None:
    application = Application(section, runner)
    for change in application.changes:
        assert change.added <= 2
        application.apply(change)
    # What is missing still is told; with that, nothing is.
    assert application.run() <= {"poollife.W001", "poollife.W002"}
    application.complete()
    assert application.run() == set()


#: What the checks say of settings where nothing but the ENGINE was changed.
LEFT_OVER = {
    "Django's own pool": {"poollife.E002"},
    "django-db-connection-pool on PostgreSQL": {"poollife.W011"},
    "django-db-geventpool": {"poollife.E004"},
    "django-pg-real-pool": {"poollife.E002", "poollife.W011"},
    "django-mysqlpool": {"poollife.W011"},
    "django-db-connection-pool": {"poollife.W011"},
    # The other alias has the ENGINE, too, and no JDBC_URL.
    "django-db-connection-pool on JDBC": {"poollife.E009", "poollife.W011", "poollife.I002"},
    "django-db-conn-pool": {"poollife.E001"},
    "django-mysql-geventpool": {"poollife.E004"},
    # It has two aliases on one server.
    "django-mysql-pool": {"poollife.W011", "poollife.I002"},
    "MySQL Connector/Python": {"poollife.E004"},
    "CONN_MAX_AGE": {"poollife.E003", "poollife.W005"},
}


@pytest.mark.parametrize("section", NAMES)
def test_what_is_left_over_is_told(runner: Runner, section: str) -> None:
    application = Application(section, runner)
    settings = application.files["settings.py"].replace('"django_mysql_geventpool",', "")
    (engine,) = {
        name
        for change in application.changes
        for name in re.findall(r"poollife\.backends\.\w+", change.after)
    }
    application.files["settings.py"] = re.sub('"ENGINE": "[^"]+"', f'"ENGINE": "{engine}"', settings)
    application.complete()
    assert application.issues() == LEFT_OVER[section]


def test_going_back(runner: Runner) -> None:
    application = Application("Going back", runner)
    assert application.run() == set()
    assert len(application.changes) == 2
    for change in application.changes:
        application.apply(change)
        assert application.run() == set()


def test_no_application_is_forgotten() -> None:
    sections = {re.sub(r"\W+", "_", name).lower() for name in [*NAMES, "Going back"]}
    assert sections == {path.parent.name for path in PREDECESSORS.glob("*/settings.py.before")}
