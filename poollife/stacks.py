"""Where in the code somebody is, or was: cheap to note, and only made into text when somebody asks."""

from __future__ import annotations

import linecache
import os
import sys
import sysconfig
import threading
from collections.abc import Iterable
from types import CodeType, FrameType

import django

#: Code and the line in it, the innermost first. No frames: those would keep what their variables hold.
Stack = tuple[tuple[CodeType, int], ...]

#: Frames that are noted; a recursion may have many more.
DEPTH = 100
#: Lines that are named: a site's own helpers often stand between its views and Django.
CALLERS = 3
#: Whose code is nobody's own.
LIBRARIES = tuple(
    os.path.join(folder, "")  # noqa: PTH118  # compared with file names as text
    for folder in {
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        *(os.path.dirname(str(file)) for file in (django.__file__, __file__)),  # noqa: PTH120
    }
)


def stack_of(frame: FrameType | None) -> Stack:
    """What this frame and those around it are at."""
    stack: list[tuple[CodeType, int]] = []
    while frame is not None and len(stack) < DEPTH:
        stack.append((frame.f_code, frame.f_lineno or frame.f_code.co_firstlineno))
        frame = frame.f_back
    return tuple(stack)


def stacks_of(threads: Iterable[threading.Thread]) -> dict[threading.Thread, Stack]:
    """What these threads are at now; nothing of one that has ended, and of greenlets that are not running."""
    by_ident = {thread.ident: thread for thread in threads}
    return {
        by_ident[ident]: stack_of(frame)
        for ident, frame in sys._current_frames().items()
        if ident in by_ident
    }


def line_in(stack: Stack, *, fallback: bool = False) -> str | None:
    """The innermost line that is the site's own, and those that led there, for people.

    :param fallback: where there is none, the innermost of all.
    """
    own = [step for step in stack if is_own(step[0].co_filename)][:CALLERS]
    if fallback and not own:
        own = list(stack[:1])
    lines = [f"{code.co_filename}:{number} in {code.co_name}" for code, number in own]
    return ", called at ".join(lines) or None


def text_of(stack: Stack) -> str:
    """As in a traceback, the innermost last, from the first line that is the site's own."""
    own = [number for number, (code, _) in enumerate(stack) if is_own(code.co_filename)]
    # Around it stands the web server, inside of it Django and the pool.
    shown = stack[own[0] : own[-1] + 1] if own else stack
    return "\n".join(_text_of_step(code, number) for code, number in reversed(shown))


def is_own(filename: str) -> bool:
    """Whether it is of the site, and not of Python, Django or a package."""
    return not (
        filename.startswith((*LIBRARIES, "<")) or "site-packages" in filename or "dist-packages" in filename
    )


def _text_of_step(code: CodeType, number: int) -> str:
    source = linecache.getline(code.co_filename, number).strip()
    head = f'  File "{code.co_filename}", line {number}, in {code.co_name}'
    return f"{head}\n    {source}" if source else head
