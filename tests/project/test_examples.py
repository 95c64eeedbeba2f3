"""The sites in ``examples/`` run by one command each, and are what docs/five-minutes.md shows."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.core.management import get_commands

from servers import PrivateServer
from tests.support import ROOT
from tests.support.pages import Block, page
from tests.support.redis_server import Redis
from tools.examples import EXAMPLES, FOLDER, run

PAGE = page("docs/five-minutes.md")
#: The sets of the page, by their headings.
SETS = {
    "gunicorn": "gunicorn_mysql",
    "uWSGI": "uwsgi_postgresql",
    "ASGI, with Channels": "channels_asgi",
    "Celery": "celery_tasks",
    "A command that runs for days, with threads": "daemon_threads",
}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Redis(tmp_path_factory.mktemp("redis")) as redis:
        yield redis.url


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs_by_its_command_and_keeps_its_limit(
    name: str,
    new_database: Callable[..., str],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    fixture = {"mysql": "mariadb", "postgresql": "postgresql"}[EXAMPLES[name].database]
    server: PrivateServer = request.getfixturevalue(fixture)
    url = request.getfixturevalue("broker") if name == "celery_tasks" else ""
    report = run(name, server, new_database(server), tmp_path, url)
    # run() has compared the sessions with the limit. Without a pool each answer has a session of its own.
    assert report.answers
    assert report.sessions


def test_every_folder_has_a_set_on_the_page() -> None:
    folders = {path.parent.name for path in FOLDER.glob("*/manage.py")}
    assert folders == set(EXAMPLES) == set(SETS.values())
    assert [name for name in SETS if name not in PAGE.headings] == []


def test_list_of_examples_has_their_commands() -> None:
    text = (FOLDER / "README.md").read_text()
    assert [
        name
        for name, each in EXAMPLES.items()
        if f"| `{name}` |" not in text or f"`{each.command}`" not in text
    ] == []


FILES = [block for block in PAGE.blocks if block.language in ("python", "ini")]
COMMANDS = [block for block in PAGE.blocks if block.language == ""]


@pytest.mark.parametrize("block", FILES, ids=str)
def test_file_of_the_page_is_a_part_of_its_example(block: Block) -> None:
    """The first line names the file. The example was run with this text."""
    name, _, where = block.text.splitlines()[0].strip("#; ").partition(", ")
    folders = [SETS[block.section]] if block.section in SETS else list(EXAMPLES)
    texts = [path.read_text() for folder in folders if (path := FOLDER / folder / name).exists()]
    assert texts, f"no example has the file {name}"
    # A file is shown whole, or the first line says which part is shown.
    part = block.text.partition("\n")[2]
    assert any(part in text if where else block.text == text for text in texts)


@pytest.mark.parametrize("block", COMMANDS, ids=str)
def test_command_of_the_page_exists(block: Block) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for line in block.text.splitlines():
        match shlex.split(line, comments=True):
            case ["pip", "install", *requirements]:
                for requirement in requirements:
                    name, _, extras = requirement.rstrip("]").partition("[")
                    known = project["optional-dependencies"].keys() if name == "poollife" else {"", "binary"}
                    assert set(extras.split(",")) <= known
            case ["python", "manage.py", command, *_] if command in get_commands():
                pass
            case _:
                assert line == EXAMPLES[SETS[block.section]].command
