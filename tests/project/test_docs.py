"""The documentation is true: its blocks run, its links lead somewhere, and what it names is there."""

from __future__ import annotations

import ast
import doctest
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

import pytest
from django.core.management import get_commands

from poollife.conf import DEFAULTS, PoolOptions
from poollife.option_values import READERS
from servers import MariaDB, OracleStandIn, PostgreSQL
from tests.support import ROOT, needs
from tests.support.docs_site.runner import LIMIT, Runner, new_runner
from tests.support.pages import Block, Page, code, page, pages

PAGES = pages()
#: tests/project/test_examples.py proves the blocks of the other page.
BLOCKS = [block for page in PAGES for block in page.blocks if page.path.name != "five-minutes.md"]


# --- every fenced block ---------------------------------------------------------------------------------


@pytest.fixture
def runner(
    mariadb: MariaDB, postgresql: PostgreSQL, oracle: OracleStandIn, tmp_path: Path
) -> Iterator[Runner]:
    with new_runner(mariadb, postgresql, oracle, tmp_path) as runner:
        yield runner


class Rule(NamedTuple):
    """How blocks of one kind are proved."""

    matches: Callable[[Block], bool]
    prove: Callable[[Block, Runner], None]


RULES: list[Rule] = []


def rule(matches: Callable[[Block], bool]) -> Callable[[Callable[[Block, Runner], None]], Any]:
    """Prove with this what matches; each block has to match exactly one rule."""

    def add(prove: Callable[[Block, Runner], None]) -> Callable[[Block, Runner], None]:
        RULES.append(Rule(matches, prove))
        return prove

    return add


def is_settings(block: Block) -> bool:
    return block.language == "python" and bool(re.search(r"^DATABASES\b", block.text, re.MULTILINE))


def is_gunicorn(block: Block) -> bool:
    return block.language == "python" and "poollife.gunicorn.install(" in block.text


def is_tests(block: Block) -> bool:
    return block.language == "python" and bool(
        re.search(r"^(?:def test_|class \w+\(\w*TestCase)", block.text, re.M)
    )


def is_code(block: Block) -> bool:
    return block.language == "python" and not any(
        matches(block) for matches in (is_settings, is_gunicorn, is_tests)
    )


def is_tree(block: Block) -> bool:
    return block.language == "" and block.text.startswith("poollife/\n")


@rule(is_settings)
def starts(block: Block, runner: Runner) -> None:
    """Django starts with these settings, finds nothing wrong with them, and queries each database."""
    check_settings(block.text, runner)


def check_settings(text: str, runner: Runner) -> None:
    """What a page leaves out comes from the site."""
    if "JDBC_URL" in text:
        runner.environment.update(needs.java())
    base = "tests.support.docs_site.base"
    top, end = f"from {base} import *", f"from {base} import fill_in"
    if "*INSTALLED_APPS" in text:
        top += "\nINSTALLED_APPS, MIDDLEWARE = [], []"  # of a site before its change
    runner.file("page_settings.py", f"{top}\n\n{text}\n{end}\n\nfill_in(DATABASES)\n")
    told = runner.python("-m", "tests.support.docs_site.start", DJANGO_SETTINGS_MODULE="page_settings")
    assert told == "System check identified no issues (0 silenced).\n"


@rule(is_code)
def runs(block: Block, runner: Runner) -> None:
    """It does what the next block shows, if that shows anything, and keeps no connection."""
    path = runner.file("block.py", block.text)
    apps = ""
    if "django_tenants" in block.text:
        needs.django_tenants()
        apps = "django.contrib.contenttypes"
    printed = runner.python("-m", "tests.support.docs_site.run", path, DOCS_SITE_APPS=apps)
    expected = output_of(block)
    flags = doctest.ELLIPSIS
    assert doctest.OutputChecker().check_output(expected, printed, flags), (
        f"{printed}\ninstead of\n{expected}"
    )


def output_of(block: Block) -> str:
    """The text block behind it."""
    blocks = page(str(block.page.relative_to(ROOT))).blocks
    following = blocks[blocks.index(block) + 1 : blocks.index(block) + 2]
    return following[0].text if following and following[0].language == "text" else ""


@rule(is_tests)
def passes(block: Block, runner: Runner) -> None:
    """A project's tests: Django's own runner or pytest-django finds and runs all of them."""
    runner.file("test_page.py", block.text)
    number = len(re.findall(r"^ *def test_", block.text, re.MULTILINE))
    if "import pytest" in block.text:
        # Not with this project's own configuration.
        options = (
            "-c",
            runner.file("pytest.ini", "[pytest]"),
            "-p",
            "pytest_django",
            "-p",
            "no:cacheprovider",
        )
        printed = runner.python("-m", "pytest", "-q", *options, runner.folder / "test_page.py")
        assert f"{number} passed" in printed
    else:
        runner.python("-m", "tests.support.docs_site.test", "test_page", str(number))


@rule(lambda block: block.language == "text")
def is_output(block: Block, runner: Runner) -> None:
    """Code stands before it, whose proof compares the two."""
    blocks = page(str(block.page.relative_to(ROOT))).blocks
    number = blocks.index(block)
    assert number
    assert is_code(blocks[number - 1])


@rule(is_gunicorn)
def configures_gunicorn(block: Block, runner: Runner) -> None:
    """gunicorn takes it as its configuration, with the hooks."""
    check_gunicorn(runner.file("gunicorn.conf.py", block.text), runner)


def check_gunicorn(config: Path, runner: Runner) -> None:
    printed = runner.python(
        *("-m", "gunicorn", "--config", config, "--print-config", "tests.support.docs_site.wsgi:application")
    )
    # gunicorn's own would be <PreFork.pre_fork()>.
    assert re.search(r"^pre_fork += <pre_fork\(\)>$", printed, re.MULTILINE), printed


@rule(lambda block: block.language == "ini")
def configures_uwsgi(block: Block, runner: Runner) -> None:
    """uWSGI takes it as its configuration, and loads a site with it."""
    check_uwsgi(runner.file("uwsgi.ini", block.text), runner)


def check_uwsgi(config: Path, runner: Runner) -> None:
    program = Path(sys.executable).with_name("uwsgi")
    # Strictly: unknown options are errors. It ends where it would begin to serve.
    options = ("--strict", "--no-server", "--need-app", "--single-interpreter")
    done = subprocess.run(
        [program, *options, "--ini", config, "--module", "tests.support.docs_site.wsgi"],
        cwd=ROOT,
        env=runner.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stdout
    assert "WSGI app 0 (mountpoint='') ready" in done.stdout
    assert "Error" not in done.stdout, done.stdout


def is_about_locks(block: Block) -> bool:
    return block.language == "sql" and "has_the_lock" in block.text


@rule(is_about_locks)
def names_the_holder_of_a_lock(block: Block, runner: Runner) -> None:
    """Asked by tests/operate/test_situations.py, where a session waits for a lock."""
    assert block.page.name == "operating.md"


@rule(lambda block: block.language == "sql" and not is_about_locks(block))
def is_understood(block: Block, runner: Runner) -> None:
    """The server answers each statement."""
    for statement in block.text.split(";"):
        if statement.strip():
            assert runner.server.execute(statement), statement


@rule(lambda block: block.language == "diff")
def leads_somewhere(block: Block, runner: Runner) -> None:
    """Applied by tests/compatibility/test_changing_over.py, which reads this page only."""
    assert block.page.name == "changing-over.md"


@rule(is_tree)
def is_there(block: Block, runner: Runner) -> None:
    """A drawing of files and folders: all of them exist."""
    drawn = list(paths_of(block.text))
    assert len(drawn) > 10
    assert [str(path) for path in drawn if not (ROOT / path).exists()] == []


def paths_of(drawing: str) -> Iterator[Path]:
    """Names end in ``.py`` or ``/``, and stand before what is said about them; indented ones are below."""
    above: list[tuple[int, Path]] = []
    for line in drawing.splitlines():
        indent = len(line) - len(line.lstrip())
        above = [(outer, path) for outer, path in above if outer < indent]
        folder = above[-1][1] if above else Path()
        for name in line.split():
            if not name.endswith((".py", "/")):
                break
            yield folder / name
        if line.strip():
            above.append((indent, folder / line.split()[0]))


@rule(lambda block: block.language == "" and not is_tree(block))
def is_a_command(block: Block, runner: Runner) -> None:
    """Each line is a command that exists."""
    for line in block.text.splitlines():
        if words := shlex.split(line, comments=True):
            check_command(words, runner)


def check_command(words: list[str], runner: Runner) -> None:
    match words:
        case ["pip", "install", requirement]:
            name, _, extra = requirement.rstrip("]").partition("[")
            project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
            assert name == project["name"]
            assert set(extra.split(",")) - {""} <= project["optional-dependencies"].keys()
        case ["make", target, *variables]:
            assert target in make_targets()
            assert [word for word in variables if not re.fullmatch(r"[A-Z]+=.*", word)] == []
            done = subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        case ["python", "manage.py", command, *options]:
            # "help" knows the options of a command, but runs nothing.
            known = runner.python("-m", "django", "help", command)
            assert [word for word in options if word.startswith("-") and word not in known] == []
        case ["python", "-m", "poollife.selftest", *_]:
            assert "--yes" in runner.python("-m", "poollife.selftest", "--help")
        case ["gunicorn", "--config", config]:
            check_gunicorn(ROOT / config, runner)
        case ["uwsgi", "--ini", config]:
            check_uwsgi(ROOT / config, runner)
        case _:
            raise AssertionError(f"no rule for the command {shlex.join(words)}")


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_block(block: Block, runner: Runner) -> None:
    matching = [rule for rule in RULES if rule.matches(block)]
    assert len(matching) == 1, f"{len(matching)} rules for this block of {block.language!r}:\n{block.text}"
    matching[0].prove(block, runner)


# --- what it names --------------------------------------------------------------------------------------


@cache
def make_targets() -> set[str]:
    """Those that `make help` tells of."""
    return set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))


def named(pattern: str) -> list[Any]:
    """What stands between backticks somewhere and matches, with its page."""
    return [
        pytest.param(text, id=f"{page.path.name}: {text}")
        for page in PAGES
        for text in sorted(set(re.findall(rf"`({pattern})`", page.prose)))
    ]


def anchors(page: Page) -> set[str]:
    """The headings as GitHub links to them."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in page.headings}


@pytest.mark.parametrize("source", PAGES, ids=lambda page: page.path.name)
def test_links(source: Page) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", source.prose):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (source.path.parent / path).resolve() if path else source.path
        if not found.exists() or (
            anchor and found.suffix == ".md" and anchor not in anchors(page(str(found.relative_to(ROOT))))
        ):
            broken.append(target)
    assert broken == []


def test_every_page_is_linked_from_the_readme() -> None:
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)", page("README.md").prose))
    pages = {str(page.path.relative_to(ROOT)) for page in PAGES if page.path.parent.name == "docs"}
    # It is CHANGELOG.md, for the site.
    assert linked == pages - {"docs/changelog.md"}


def test_contributing_names_every_folder_of_tests() -> None:
    named = set(re.findall(r"`(tests/[\w/]+)/`", page("docs/contributing.md").prose))
    folders = {str(path.parent.relative_to(ROOT)) for path in ROOT.glob("tests/*/**/test_*.py")}
    assert folders - {"tests/invariants"} <= named


@pytest.mark.parametrize("command", named(r"make [a-z][^`]*"))
def test_make_targets(command: str) -> None:
    assert command.split()[1] in make_targets()


@pytest.mark.parametrize("name", named(r"poollife(?:\.\w+)+(?:\(\))?"))
def test_dotted_names(name: str) -> None:
    if re.fullmatch(r"poollife\.[EWI]\d{3}", name):
        # tests/interface/test_checks.py compares that page with the code.
        assert f"| `{name}` |" in page("docs/checks.md").prose
    else:
        resolve_name(name.removesuffix("()"))


@pytest.mark.parametrize("pool", named(r"\{[\"'][^`]+\}"))
def test_pool_options(pool: str) -> None:
    PoolOptions.from_settings("default", {"POOL": ast.literal_eval(pool)})


@pytest.mark.parametrize("command", named(r"(?:python )?manage\.py \w+[^`]*"))
def test_management_commands(command: str) -> None:
    assert command.removeprefix("python ").split()[1] in get_commands()


@pytest.mark.parametrize("path", named(r"(?:[\w<>*-]+/)+[\w<>*.-]*"))
def test_paths(path: str) -> None:
    pattern = re.sub(r"<\w+>", "*", path)
    # docs/design.md speaks of poollife's own folders by their names.
    assert list(ROOT.glob(pattern)) or list((ROOT / "poollife").glob(pattern))


# --- settings -------------------------------------------------------------------------------------------


def same(cell: str, value: object) -> bool:
    """Whether this cell of a table gives this value of an option: a class by its name."""
    text = code(cell)
    if text == "FairQueuePool":
        return value is None  # who names no class has this one
    return text == value.__name__ if isinstance(value, type) else ast.literal_eval(text) == value


def test_every_option_is_documented_with_its_default() -> None:
    rows = {code(row["key"]): row["default"] for row in page("docs/settings.md").table("key | type")}
    assert rows.keys() == READERS.keys()
    assert [key for key, cell in rows.items() if not same(cell, getattr(DEFAULTS, key))] == []


def test_defaults_elsewhere() -> None:
    """Pages that name some of them."""
    readme = re.findall(r"^- `(\w+)` \(([^)]+)\):", page("README.md").prose, re.MULTILINE)
    table = page("docs/changing-over.md").table("was | its default")
    named = [
        *readme,
        *((code(row["is"]), row["default"]) for row in table if row["is"].strip("`") in READERS),
    ]
    assert len(named) == 8
    assert [key for key, cell in named if " " not in cell and not same(cell, getattr(DEFAULTS, key))] == []
