"""Compilers that refuse Django's queries. ``Model.objects.raw()`` needs one, and has it compile nothing."""

from __future__ import annotations

from typing import Any, NoReturn

from django.db import NotSupportedError
from django.db.models.sql import compiler

from poollife.backends.jdbc.operations import RAW_ONLY


class SQLCompiler(compiler.SQLCompiler):
    """A compiler that refuses to compile."""

    def as_sql(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse the query.

        :raises NotSupportedError: always. It says what this ENGINE is for.
        """
        raise NotSupportedError(RAW_ONLY)


SQLInsertCompiler = SQLDeleteCompiler = SQLUpdateCompiler = SQLAggregateCompiler = SQLCompiler
