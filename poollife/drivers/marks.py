"""Attributes that borrowers put on a driver's connection object.

"Set up this session once" is often written as a mark: ``if not hasattr(connection, "ready"): ...``. The mark
has to go together with what it stands for.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any


def marks_of(connection: Any, changing: AbstractSet[str]) -> dict[str, Any]:
    """Return the attributes of an object by name.

    :param changing: names that are left out, because poollife or the driver itself assigns to them.
    """
    return {name: value for name, value in vars(connection).items() if name not in changing}


def restore(connection: Any, marks: dict[str, Any], changing: AbstractSet[str]) -> None:
    """Have an object's attributes be these again, and no others. Attributes in ``changing`` stay."""
    attributes = vars(connection)
    # Not by delattr(): mysqlclient forbids that.
    for name in attributes.keys() - marks.keys() - changing:
        del attributes[name]
    attributes.update(marks)
