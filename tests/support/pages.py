"""The documentation as tests read it: pages, their fenced blocks and their tables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.support import ROOT

FENCE = re.compile(r"^(?P<fence>`{3,})(?P<language>[\w+-]*)[ \t]*$")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: Path
    #: Of its opening fence.
    line: int
    #: The text of the last heading before it.
    section: str
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Page:
    """A Markdown file."""

    path: Path
    text: str
    #: All but the fenced blocks.
    prose: str
    #: Without their marks.
    headings: tuple[str, ...]
    blocks: tuple[Block, ...]

    def table(self, head: str) -> list[dict[str, str]]:
        """The rows of the table whose head begins with this, by heading.

        :raises AssertionError: there is not exactly one.
        """
        tables = re.findall(rf"^\| {re.escape(head)} \|.*\n(?:\|.*\n?)+", self.prose, re.MULTILINE)
        assert len(tables) == 1, f"{self.path.name} has {len(tables)} tables of {head!r}"
        headings, _, *rows = [_cells(line) for line in tables[0].splitlines()]
        return [dict(zip(headings, row, strict=True)) for row in rows]


@cache
def page(name: str) -> Page:
    """Read a page.

    :param name: its path from the root of the project.
    :raises AssertionError: a fence that is not of the plain kind, or not closed.
    """
    path = ROOT / name
    text = path.read_text()
    prose, blocks, headings = [], [], [""]
    opening, inside = None, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if opening:
            if line == opening[1]["fence"]:
                start, fence = opening
                blocks.append(
                    Block(path, start, headings[-1], fence["language"], "".join(f"{it}\n" for it in inside))
                )
                opening, inside = None, []
            else:
                inside.append(line)
        elif line.lstrip().startswith(("```", "~~~")):
            match = FENCE.match(line)
            assert match, f"{name}:{number}: a fence that tests can't read: {line}"
            opening = number, match
        else:
            prose.append(f"{line}\n")
            if line.startswith("#"):
                headings.append(line.lstrip("# "))
    assert not opening, f"{name}: a fence is not closed"
    return Page(path, text, "".join(prose), tuple(headings[1:]), tuple(blocks))


def pages() -> list[Page]:
    """All of them."""
    paths = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("**/*.md"))]
    return [page(str(path.relative_to(ROOT))) for path in paths]


def code(cell: str) -> str:
    """What stands between backticks in a cell of a table, where that is all there is.

    :raises AssertionError: there is more, or less.
    """
    match = re.fullmatch(r"`([^`]+)`|([\d.]+)", cell)
    assert match, f"not just code or a number: {cell}"
    return match[1] or match[2]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().removeprefix("|").removesuffix("|"))]
