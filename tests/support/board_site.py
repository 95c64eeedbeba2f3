"""A site with a board of its own, and its processes: see ``programs/board_cases.py``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from poollife.board import past
from poollife.board.page import page
from poollife.board.reader import Board, read_board
from tests.support import ROOT

PROGRAM = "tests.support.programs.board_cases"


def read_as_owner(folder: Path) -> Board:
    with past.exclusively(folder, page.turn, wait=10) as alone:
        assert alone
        past.fold(folder, page.names)
    return read_board(folder)


class Program:
    """A process of the site."""

    def __init__(self, environment: dict[str, str], *arguments: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-m", PROGRAM, *map(json.dumps, arguments)],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    def said(self) -> dict[str, Any]:
        assert self._process.stdout
        report: dict[str, Any] = json.loads(self._process.stdout.readline())
        return report

    def end(self) -> int:
        """End it in order."""
        self._process.communicate()
        return self._process.returncode

    def last_words(self) -> dict[str, Any]:
        """End it in order; return its last report."""
        said, _ = self._process.communicate()
        report: dict[str, Any] = json.loads(said.splitlines()[-1])
        return report

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


class Site:
    """A site with a board of its own."""

    def __init__(self, base: Path, database: dict[str, Any] | None = None) -> None:
        """
        :param base: the folder of the boards.
        :param database: the entry of ``DATABASES``, without ``POOL``; None: one of SQLite.
        """
        self.base = base
        self.database = database or {
            "ENGINE": "poollife.backends.sqlite3",
            "NAME": str(base.parent / "site.sqlite3"),
        }
        self._programs: list[Program] = []

    def start(self, *arguments: Any, pool: dict[str, Any] | bool = True, **environment: str) -> Program:
        database = {**self.database, "POOL": pool}
        program = Program({"POOLLIFE_RUN_DIR": str(self.base), **environment}, database, *arguments)
        self._programs.append(program)
        return program

    @property
    def folder(self) -> Path:
        (folder,) = [each for each in self.base.iterdir() if each.is_dir()]
        return folder

    def order(self, *arguments: str) -> str:
        """Run a command of ``manage.py`` in a process of its own; return what it printed."""
        program = self.start("command", *arguments)
        printed: str = program.last_words()["printed"]
        return printed

    def read(self) -> Board:
        """Read the board, as a process of the site does: that adds up the past."""
        return read_as_owner(self.folder)

    def end(self) -> None:
        for program in self._programs:
            program.kill()
