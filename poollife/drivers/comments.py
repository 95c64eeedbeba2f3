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
    # By index: with a copy of the text for each comment, a text of many comments would take minutes.
    last = _without_comments_behind(bare, is_template) if bare.endswith("*/") else len(bare)
    first = _without_comments_before(bare, last, is_template) if bare.startswith("/*") else 0
    bare, found = bare[first:last], first > 0 or last < len(bare)
    # Behind a semicolon even a comment is another statement.
    return bare if found and not bare.endswith(";") else sql


def _without_comments_behind(text: str, is_template: bool) -> int:
    """Return the end of a text without the comments and the white space at its end."""
    last = len(text)
    has_line_comments = "--" in text or "#" in text
    while text.endswith("*/", 0, last):
        before = text.rfind("*/", 0, last - 2)
        start = text.find("/*", before + 2 if before >= 0 else 0, last)
        if not _means_nothing(text[start:last], is_template):
            break
        if has_line_comments and _may_be_in_line_comment(text, start):
            break
        last = start
        while last and text[last - 1] in BLANK:
            last -= 1
    return last


def _without_comments_before(text: str, last: int, is_template: bool) -> int:
    """Return the beginning of a text without the comments and the white space before it."""
    first = 0
    while text.startswith("/*", first, last):
        end = text.find("*/", first + 2, last) + 2
        if not _means_nothing(text[first:end], is_template):
            break
        first = end
        while first < last and text[first] in BLANK:
            first += 1
    return first


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
    line = text.rfind("\n", 0, start) + 1
    return text.find("--", line, start) >= 0 or text.find("#", line, start) >= 0
