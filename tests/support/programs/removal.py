"""Taking the invariants' code out, piece by piece: what the tests prove themselves with."""

from __future__ import annotations

from typing import Any


def take_out(part: str) -> None:
    """Make a part of the package do nothing, in this process and its children.

    :param part: "hooks", "gate", "guard", or "" for nothing at all.
    """
    from poollife.process import atfork, guard

    def nothing(*_: Any) -> None:
        """Instead of what is taken out."""

    if part == "hooks":
        for name in ("before", "after_in_parent", "after_in_child"):
            setattr(atfork.AtFork, name, nothing)
    elif part == "gate":
        setattr(atfork.Gate, "close", lambda self: [])  # noqa: B010
        setattr(atfork.Gate, "open", nothing)  # noqa: B010
    elif part == "guard":
        # Every process takes itself for the owner, and nothing that is inherited is given up: the page keeps
        # in a child what the parent wrote (MADV_KEEPONFORK).
        guard.process.alive.obj.madvise(19)
        guard.Guard.pid = property(lambda self: guard.process.pid, nothing)  # type: ignore[assignment, misc]
        setattr(guard.Guard, "cover", nothing)  # noqa: B010
        setattr(guard.Guard, "abandon", nothing)  # noqa: B010
    else:
        assert not part
