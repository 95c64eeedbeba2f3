"""Marks: attributes that borrowers set on a driver connection.

Code that sets up a session once often leaves a mark: ``if not hasattr(connection, "ready"): ...``. The mark
has to be removed together with the state that it stands for.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any


def marks_of(connection: Any, changing: AbstractSet[str]) -> dict[str, Any]:
    """Return the attributes of an object by name.

    :param connection: the object.
    :param changing: names that are left out, because poollife or the driver itself assigns to them.
    """
    return {name: value for name, value in vars(connection).items() if name not in changing}


def restore(connection: Any, marks: dict[str, Any], changing: AbstractSet[str]) -> None:
    """Give an object these attributes again, and no others. Attributes in ``changing`` stay.

    :param marks: the result of ``marks_of()``.
    """
    attributes = vars(connection)
    # Not by delattr(), which mysqlclient forbids.
    for name in attributes.keys() - marks.keys() - changing:
        del attributes[name]
    attributes.update(marks)
