"""Comments before and behind a statement, which differ each time and mean nothing."""

from __future__ import annotations

#: White space for the server in every character set.
BLANK = " \t\n\r"


def without_comments_around(sql: object, is_template: bool = False) -> object:
    """Return a text without the comments before and behind its statement, and itself if there are none.

    Tools put into these what differs each time (a traceparent), so that no text would be remembered.
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
        if not _means_nothing(bare[start:], is_template):
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
    """Whether this is a whole comment, neither code nor a hint for the optimizer, that takes no parameter."""
    if len(comment) < 4 or comment[2] in "!+" or comment[2:4].upper() == "M!":
        return False
    return not (is_template and "%" in comment.replace("%%", ""))
