"""Comments before and behind a statement, which differ each time and have no effect."""

from __future__ import annotations

#: White space for the server in every character set.
BLANK = " \t\n\r"


def without_comments_around(sql: object, is_template: bool = False) -> object:
    """Return a text without the comments before and behind its statement, or the text itself without any.

    Tools write values into these comments that differ each time (a traceparent). With them no text would be
    found again in a ``Memory``.

    :param sql: the text; all other objects are returned as they are.
    :param is_template: whether the driver puts parameters in place of ``%s`` and ``%(name)s``.
    """
    if not isinstance(sql, str):
        return sql
    bare = sql.strip(BLANK)
    if bare.endswith("*/;"):
        bare = bare[:-1]
    found = False
    while bare.endswith("*/"):
        before = bare.rfind("*/", 0, -2)
        start = bare.find("/*", before + 2 if before >= 0 else 0)
        if not _means_nothing(bare[start:], is_template) or _may_be_in_line_comment(bare, start):
            break
        found, bare = True, bare[:start].rstrip(BLANK)
    while bare.startswith("/*"):
        end = bare.find("*/", 2) + 2
        if not _means_nothing(bare[:end], is_template):
            break
        found, bare = True, bare[end:].lstrip(BLANK)
    # Behind a semicolon even a comment is another statement.
    return bare if found and not bare.endswith(";") else sql


def _means_nothing(comment: str, is_template: bool) -> bool:
    """Return whether a text is one comment without a parameter, and neither code nor an optimizer hint."""
    if len(comment) < 4 or comment[2] in "!+" or comment[2:4].upper() == "M!":
        return False
    # PostgreSQL's comments nest: the first "*/" does not end one that has a comment in it.
    return "/*" not in comment[2:] and not (is_template and "%" in comment.replace("%%", ""))


def _may_be_in_line_comment(text: str, start: int) -> bool:
    """Return whether a line comment may begin before a position in its line.

    ``SELECT 1 -- /*``, with ``, f() -- */`` in the next line, has no comment of several lines.
    """
    line = text[text.rfind("\n", 0, start) + 1 : start]
    return "--" in line or "#" in line
