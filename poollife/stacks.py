"""Stacks of threads: cheap to note, and made into text only when that is needed."""

from __future__ import annotations

import linecache
import os
import sysconfig
import threading
from collections.abc import Iterable
from types import CodeType, FrameType

import django

from poollife.executors import current_frames

#: Code and the line in it, the innermost first. No frames: a frame would keep the values of its variables.
Stack = tuple[tuple[CodeType, int], ...]

#: The number of frames that are noted, at most; a recursion may have many more.
DEPTH = 100
#: The number of lines that are named: often a site's own helpers are between its views and Django.
CALLERS = 3
#: The folders whose code is not the site's own.
LIBRARIES = tuple(
    os.path.join(folder, "")  # noqa: PTH118  # compared with file names as text
    for folder in {
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        *(os.path.dirname(str(file)) for file in (django.__file__, __file__)),  # noqa: PTH120
    }
)


def stack_of(frame: FrameType | None) -> Stack:
    """Return the code and the line of a frame and of the frames around it, ``DEPTH`` of them at most."""
    stack: list[tuple[CodeType, int]] = []
    while frame is not None and len(stack) < DEPTH:
        stack.append((frame.f_code, frame.f_lineno or frame.f_code.co_firstlineno))
        frame = frame.f_back
    return tuple(stack)


def stacks_of(threads: Iterable[threading.Thread]) -> dict[threading.Thread, Stack]:
    """Return the present stacks of these threads.

    Threads that have ended, and greenlets that are not running, are left out.
    """
    by_ident = {thread.ident: thread for thread in threads}
    return {
        by_ident[ident]: stack_of(frame) for ident, frame in current_frames().items() if ident in by_ident
    }


def line_in(stack: Stack, *, fallback: bool = False) -> str | None:
    """Return the innermost line that is the site's own, and the lines that called it, for people.

    :param fallback: return the innermost line of all, if no line is the site's own.
    """
    own = [step for step in stack if is_own(step[0].co_filename)][:CALLERS]
    if fallback and not own:
        own = list(stack[:1])
    lines = [f"{code.co_filename}:{number} in {code.co_name}" for code, number in own]
    return ", called at ".join(lines) or None


def text_of(stack: Stack) -> str:
    """Return a stack as in a traceback, the innermost line last.

    Only the part between the site's own lines is shown, if there are any.
    """
    own = [number for number, (code, _) in enumerate(stack) if is_own(code.co_filename)]
    # Around this part is the web server, inside of it are Django and the pool.
    shown = stack[own[0] : own[-1] + 1] if own else stack
    return "\n".join(_text_of_step(code, number) for code, number in reversed(shown))


def is_own(filename: str) -> bool:
    """Return whether a file is the site's own, and not of Python, Django or a package."""
    return not (
        filename.startswith((*LIBRARIES, "<")) or "site-packages" in filename or "dist-packages" in filename
    )


def _text_of_step(code: CodeType, number: int) -> str:
    source = linecache.getline(code.co_filename, number).strip()
    head = f'  File "{code.co_filename}", line {number}, in {code.co_name}'
    return f"{head}\n    {source}" if source else head
