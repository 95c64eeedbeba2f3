"""The part of the mixin that knows which code may use a wrapper: its thread, other threads, its copies."""

from __future__ import annotations

import threading
import weakref
from typing import Any, Self

from poollife.backends.opening import OpeningMixin
from poollife.pools.base import BorrowerReference


class SharingMixin(OpeningMixin):
    """A DatabaseWrapper that threads and shallow copies may share. ``PooledMixin`` borrows for them."""

    #: The number of permissions for other threads, Django's; the stubs leave it out.
    _thread_sharing_count: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: The shallow copies of this wrapper and of its copies, if there are any.
        self._copies: weakref.WeakSet[Self] | None = None
        super().__init__(*args, **kwargs)
        #: The weak reference by which each lease of this wrapper finds it.
        self.reference = BorrowerReference(self)
        #: The thread that made this wrapper and may use it. Another thread may connect a shared wrapper, and
        #: end before the owner.
        self.owner = threading.current_thread()

    def __copy__(self) -> Self:
        """Return a shallow copy that uses the same session, as with Django's backends.

        The lease stays with the original: the end of the copy ends nothing. After the original has returned
        its session, the copy borrows another.
        """
        twin = type(self).__new__(type(self))
        if self._copies is None:
            self._copies = weakref.WeakSet()
        self._copies.add(twin)
        vars(twin).update(vars(self))
        twin.reference = BorrowerReference(twin)
        return twin

    @property
    def allow_thread_sharing(self) -> bool:
        """True if other threads may use this wrapper, too.

        Django takes a lock for this, with each cursor. To read one number takes none.
        """
        return self._thread_sharing_count > 0

    @property
    def is_shared(self) -> bool:
        """True if other threads, or shallow copies of this wrapper, may use its session."""
        return self.allow_thread_sharing or bool(self._copies)
