"""The driver's converters of a connection, which know when they were changed."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any


def changing(method: Callable[..., Any]) -> Any:
    """Return a method of a dictionary that changes it, and notes that."""

    @wraps(method)
    def call(self: Converters, *args: Any, **kwargs: Any) -> Any:
        self.changed = True
        return method(self, *args, **kwargs)

    return call


class Converters(dict[Any, Any]):
    """The driver's converters, of parameters or of columns, which note that they were changed."""

    __slots__ = ("changed",)

    changed: bool

    def __init__(self, converters: Any) -> None:
        super().__init__(converters)
        self.changed = False

    __setitem__ = changing(dict.__setitem__)
    __delitem__ = changing(dict.__delitem__)
    __ior__ = changing(dict.__ior__)
    clear = changing(dict.clear)
    pop = changing(dict.pop)
    popitem = changing(dict.popitem)
    setdefault = changing(dict.setdefault)
    update = changing(dict.update)
