"""Marks: attributes that borrowers set on a driver connection.

Code that sets up a session once often leaves a mark: ``if not hasattr(connection, "ready"): ...``. The mark
has to be removed together with the state that it stands for.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any

#: Types of which an equal value is as good as another.
PLAIN = {str, bytes, int, float, bool, type(None)}


def marks_of(connection: Any, changing: AbstractSet[str]) -> dict[str, Any]:
    """Return the attributes of an object by name.

    :param connection: the object.
    :param changing: names that are left out, because poollife or the driver itself assigns to them.
    """
    return {name: value for name, value in vars(connection).items() if name not in changing}


def split(marks: dict[str, Any]) -> tuple[tuple[str, ...], tuple[tuple[str, Any], ...]]:
    """Return the names of the marks that are compared by value, and the other marks.

    An equal number or text is as good as the one before. Another object may be shared with a borrower.

    :param marks: the result of ``marks_of()``.
    """
    by_value = tuple(name for name, value in marks.items() if _is_plain(value))
    return by_value, tuple((name, value) for name, value in marks.items() if name not in by_value)


def _is_plain(value: Any) -> bool:
    return type(value) in PLAIN or (type(value) is tuple and all(map(_is_plain, value)))


def restore(connection: Any, marks: dict[str, Any], changing: AbstractSet[str]) -> None:
    """Give an object these attributes again, and no others. Attributes in ``changing`` stay.

    :param marks: the result of ``marks_of()``.
    """
    attributes = vars(connection)
    for name in attributes.keys() - marks.keys() - changing:
        del attributes[name]
    attributes.update(marks)
