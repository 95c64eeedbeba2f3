"""Tables of the management commands, as text."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import Any

from django.core.management.base import CommandError, OutputWrapper

#: The width of tables that go into a file or a pipe, in characters.
WIDTH = 200
#: A table: its title, its columns, and its rows.
Table = tuple[str, Sequence[str], Sequence[Sequence[Any]]]


def write_table(out: OutputWrapper, table: Table) -> None:
    """Write a table to the output of a command.

    :param out: the ``stdout`` of the command.
    :param table: None in a cell leaves it empty.
    :raises CommandError: rich is not installed.
    """
    try:
        from rich.console import Console
        from rich.table import Table as RichTable
        from rich.text import Text
    except ImportError:
        raise CommandError(
            "Tables need rich: pip install 'poollife[status]'. --json needs nothing."
        ) from None
    title, columns, rows = table
    rich = RichTable()
    for column in columns:
        rich.add_column(column)
    for row in rows:
        rich.add_row(*(Text("" if value is None else str(value)) for value in row))
    text = StringIO()
    Console(file=text, width=None if out.isatty() else WIDTH).print(rich)
    out.write(title)  # not the table's, which would break it at the width of the table
    out.write("\n".join(line.rstrip() for line in text.getvalue().splitlines()))
