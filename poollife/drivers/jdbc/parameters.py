"""Parameters: ``%s`` and ``%(name)s`` become JDBC's ``?``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from poollife.drivers.jdbc.dbapi import ProgrammingError

_LINE_COMMENT = r"--[^\n]*"
_COMMENT = r"/\*.*?(?:\*/|\Z)"
_STRING = r"'(?:[^']++|'')*(?:'|\Z)"
_NAME = r'"(?:[^"]++|"")*(?:"|\Z)'
_ESCAPED_STRING = r"'(?:[^'\\]++|''|\\.)*(?:'|\Z)"
_DOUBLE_QUOTED = r'"(?:[^"\\]++|""|\\.)*(?:"|\Z)'
_BACKQUOTED = r"`(?:[^`]++|``)*(?:`|\Z)"
_DOLLAR_QUOTED = r"(?<![\w$])\$(?P<tag>\w*)\$.*?(?:\$(?P=tag)\$|\Z)"
#: Oracle's strings with a quote of the author's choice: the brackets, or any other character.
_Q_QUOTED = (
    r"(?<![\w$#])[nN]?[qQ]'(?:\[.*?\]|\{.*?\}|<.*?>|\(.*?\)|(?P<quote>[^\s\[{<(]).*?(?P=quote))(?:'|\Z)"
)
_PARAMETER = r"(?P<parameter>%(?:\((?P<name>[^)]+)\))?s)"


def _pattern(*texts: str) -> re.Pattern[str]:
    return re.compile("|".join([f"(?P<text>{'|'.join(texts)})", _PARAMETER, "(?P<percent>%%)"]), re.DOTALL)


#: Patterns of literals, names in quotes and comments, in which nothing is a parameter, and of parameters.
STANDARD = _pattern(_STRING, _NAME, _LINE_COMMENT, _COMMENT)
MYSQL = _pattern(_ESCAPED_STRING, _DOUBLE_QUOTED, _BACKQUOTED, r"--(?=\s|\Z)[^\n]*", r"\#[^\n]*", _COMMENT)
POSTGRESQL = _pattern(
    rf"(?<![\w$])[eE]{_ESCAPED_STRING}", _STRING, _NAME, _LINE_COMMENT, _COMMENT, _DOLLAR_QUOTED
)
ORACLE = _pattern(_Q_QUOTED, _STRING, _NAME, _LINE_COMMENT, _COMMENT)


class Template:
    """A statement with parameters: its text for JDBC, and the order of its parameters."""

    def __init__(self, sql: str, pattern: re.Pattern[str]) -> None:
        """Read a statement.

        :param sql: the statement with ``%s`` or ``%(name)s``. Two percent signs are one, in literals, too,
            as with Django's other backends.
        :param pattern: the pattern of its database.
        """
        #: The names of the parameters in their order; None in place of the name of ``%s``.
        self.names: list[str | None] = []
        #: The statement with ``?``.
        self.text = pattern.sub(self._replace, sql)

    def _replace(self, match: re.Match[str]) -> str:
        if text := match["text"]:
            return str(text).replace("%%", "%")
        if match["percent"]:
            return "%"
        self.names.append(match["name"])
        return "?"

    def values(self, params: Mapping[str, Any] | Sequence[Any]) -> Sequence[Any]:
        """Return the values of the parameters in the order of the statement.

        :param params: a mapping for names, otherwise a sequence.
        :raises ProgrammingError: a parameter has no value, or a value has no parameter.
        """
        if isinstance(params, Mapping):
            if missing := [name for name in self.names if name is None or name not in params]:
                told = ", ".join("%s" if name is None else f"%({name})s" for name in missing)
                raise ProgrammingError(f"the statement has {told}, and params is a mapping without it")
            return [params[name] for name in self.names if name is not None]
        if named := [name for name in self.names if name is not None]:
            raise ProgrammingError(f"the statement has %({named[0]})s, and params is no mapping")
        # A "?" of the statement's own is a parameter, too, so the driver counts.
        if len(params) < len(self.names):
            raise ProgrammingError(f"the statement has {len(self.names)} parameters, params {len(params)}")
        return params
