"""The changelog and the page on upgrading: versions, dates, and names that exist or do not exist any more."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import NamedTuple

import poollife
import poollife.uwsgi
from poollife.backends.mysql.base import DatabaseWrapper
from tests.support import ROOT
from tests.support.pages import page

#: The groups of Keep a Changelog.
GROUPS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
UPGRADING = page("docs/upgrading.md")


class Section(NamedTuple):
    """A version in the changelog."""

    number: str
    released: date
    groups: list[str]


def sections() -> list[Section]:
    """Return the versions in the order of the file, without the part that is not released."""
    _, unreleased, *rest = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert unreleased.startswith("[Unreleased]\n")
    found = []
    for text in rest:
        head = re.match(r"\[?(\d+\.\d+\.\d+)\]? - (\d{4}-\d\d-\d\d)\n", text)
        assert head, text.splitlines()[0]
        groups = re.findall(r"^### (.+)$", text, re.MULTILINE)
        found.append(Section(head[1], date.fromisoformat(head[2]), groups))
    return found


def test_newest_section_of_the_changelog_is_the_version() -> None:
    assert sections()[0].number == poollife.__version__


def test_sections_of_the_changelog_are_in_order_and_have_known_groups() -> None:
    found = sections()
    numbers = [tuple(map(int, section.number.split("."))) for section in found]
    assert numbers == sorted(numbers, reverse=True)
    dates = [section.released for section in found]
    assert dates == sorted(dates, reverse=True)
    for section in found:
        assert section.groups
        assert len(section.groups) == len(set(section.groups))
        assert set(section.groups) <= GROUPS


def test_page_on_upgrading_begins_with_the_version() -> None:
    newest = ".".join(poollife.__version__.split(".")[:2])
    first = next(heading for heading in UPGRADING.headings if heading.startswith("From "))
    assert first.endswith(f" to {newest}")


def names(cell: str) -> list[str]:
    """Return the names between backticks, without arguments."""
    return [text.partition("(")[0] for text in re.findall(r"`([^`]+)`", cell)]


def tables() -> list[list[list[str]]]:
    """Return the cells of the tables with the columns "was" and "is"."""
    found = re.findall(r"^ *\| was \| is \|\n.*\n((?: *\|.*\n)+)", UPGRADING.prose, re.MULTILINE)
    return [[line.strip(" |").split(" | ") for line in table.splitlines()] for table in found]


def test_names_of_wrappers_on_the_page_on_upgrading() -> None:
    _, wrappers, _ = tables()
    assert len(wrappers) == 6
    for was, now in wrappers:
        (old,), (new,) = names(was), names(now)
        assert hasattr(DatabaseWrapper, new)
        assert not hasattr(DatabaseWrapper, old)


def test_function_for_the_end_of_a_master_of_uwsgi_has_the_documented_name() -> None:
    (((was, now),), _, _) = tables()
    assert was.count("goodbye()") == now.count("close_pools_on_exit()") == 1
    assert callable(poollife.uwsgi.close_pools_on_exit)
    assert not hasattr(poollife.uwsgi, "goodbye")


def test_modules_on_the_page_on_upgrading() -> None:
    _, _, modules = tables()
    assert len(modules) == 9
    package = Path(poollife.__file__).parent
    for was, now in modules:
        *files, old = paths(was)
        *kept, new = paths(now)
        for file, renamed in zip(files, kept or files, strict=True):
            assert not (package / old / f"{file}.py").exists()
            assert (package / new.removeprefix("poollife/") / f"{renamed}.py").exists()


def paths(cell: str) -> list[str]:
    """Return the names of modules, and at the end that of their folder; classes are left out."""
    return [name for name in names(cell) if name.islower()]


def test_pages_on_the_version_name_the_newest_system_checks() -> None:
    """Such as "`poollife.E005` to `poollife.E009`": the last one is the last of its letter."""
    ids = re.findall(r"^\| `(poollife\.[EWI]\d+)`", page("docs/checks.md").prose, re.MULTILINE)
    newest = {max(each for each in ids if each[9] == letter) for letter in "EWI"}
    for prose in (UPGRADING.prose, (ROOT / "CHANGELOG.md").read_text()):
        ranges = re.findall(r"`poollife\.[EWI]\d+`\s+to\s+`(poollife\.[EWI]\d+)`", prose)
        assert set(ranges) == newest
