"""The JVM of a process: when it starts, what a fork leaves of it, and the threads that use it.

JPype has a JVM run inside of the process. A JVM does not survive a fork: the child has its memory, but none
of its threads. JPype's user guide ("Multiprocessing") says that forks are not supported.
"""

from __future__ import annotations

import gc
import os
import threading
import warnings
from functools import cache
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from poollife.errors import ForkedJVM
from poollife.process.atfork import at_fork
from poollife.process.greenlets import is_patched
from poollife.process.guard import getpid, process

try:
    import jpype
    import jpype.config
except ImportError as missing:
    raise ImportError('JDBC needs JPype: pip install "poollife[jdbc]"') from missing

#: The longest time, in seconds, that a fork waits for the start of the JVM, which takes about one second.
START_WAIT = 10.0
#: Seconds after which drivers that ask ``DriverManager`` give up a login.
LOGIN_TIMEOUT = 30
#: The base class of the exceptions of Java.
Throwable: Any = jpype.JException

FORKED = (
    "Process {me} was forked from process {owner}, in which a JVM was running. A JVM does not survive a "
    "fork, and a process can't have a second one: no JDBC database can be used here. Three ways out: (1) "
    "query no JDBC database before the fork: gunicorn without preload_app, uWSGI with lazy-apps, no query "
    "when modules are imported or in AppConfig.ready(). (2) Start this process by spawn or forkserver. (3) "
    "Have process {owner} make the queries."
)

BLOCKS_GREENLETS = (
    "gevent has patched this process, but Java does not know it: while one greenlet waits for a JDBC "
    "database, all others stand still. If it waits for a lock that another greenlet holds, they wait until "
    "the server gives up. Use threads for JDBC: gunicorn's gthread, Celery's threads or prefork."
)


class JVM:
    """The JVM of this process.

    Synchronization: ``_starting`` is held while the JVM starts. It is reentrant, so that a signal handler
    that queries meanwhile gets an error. A child never waits for it.
    """

    def __init__(self) -> None:
        #: The process that has started a JVM, or has begun to; None: neither this process nor a parent has.
        self.owner: int | None = None
        self._starting = threading.RLock()

    def start(self) -> None:
        """Start the JVM, unless it runs already.

        :raises ForkedJVM: in a process that was forked from one with a JVM.
        :raises ImproperlyConfigured: there is no JVM, or it does not start. The message says what was looked
            for, and where.
        """
        if self.owner not in (None, getpid()):
            raise ForkedJVM(FORKED.format(me=getpid(), owner=self.owner))
        if self.owner is None or not jpype.isJVMStarted():
            with self._starting, at_fork.gate.handshake(wait=START_WAIT):
                self._start()

    def _start(self) -> None:
        if is_patched("socket"):
            warnings.warn(BLOCKS_GREENLETS, RuntimeWarning, stacklevel=2)
        if not jpype.isJVMStarted():
            path = path_of_jvm()
            self.owner = getpid()
            try:
                # -Xrs leaves SIGTERM, SIGINT and SIGHUP to Python: otherwise a worker of gunicorn would end
                # in the JVM's handler. ``interrupt`` is JPype's own handler of SIGINT.
                jpype.startJVM("-Xrs", jvmpath=path, interrupt=False)
            except (OSError, RuntimeError, Throwable) as error:
                self.owner = None
                raise ImproperlyConfigured(f"The JVM {path} does not start: {error}") from error
        self.owner = getpid()
        manager = java_class("java.sql.DriverManager")
        if not manager.getLoginTimeout():
            manager.setLoginTimeout(LOGIN_TIMEOUT)

    def settle(self) -> None:
        """Wait for nothing: the gate waits for the start."""

    def strong_references(self) -> None:
        """Keep nothing."""

    def abandon(self, held: None) -> None:
        """Note, in a child, that the JVM is the parent's."""
        if self.owner is None and jpype.isJVMStarted():  # another package has started it
            self.owner = process.pid
        if self.owner is not None:
            forget_java()


def forget_java() -> None:
    """Have a child end without the JVM, which has no threads there.

    JPype would call DestroyJavaVM at the exit, and System.gc() whenever Python collects garbage. Both wait
    for threads that are gone, for ever. ``jpype.config.onexit`` is public. The functions in ``gc.callbacks``
    are JPype's own; ``tests/compatibility/test_jdbc.py`` looks for them.
    """
    jpype.config.onexit = False
    gc.callbacks[:] = [each for each in gc.callbacks if getattr(each, "__module__", "") != "_jpype"]


jvm = JVM()
at_fork.join(jvm)


def path_of_jvm() -> str:
    """Return the path of the JVM's library.

    :raises ImproperlyConfigured: there is none, or JAVA_HOME leads to none. JPype ignores such a JAVA_HOME
        and takes another JVM.
    """
    home = os.environ.get("JAVA_HOME", "")
    try:
        found = jpype.getDefaultJVMPath()
    except (jpype.JVMNotFoundException, jpype.JVMNotSupportedException) as error:
        told = _problem_of(home) if home else "JAVA_HOME is not set, and no JVM is where systems install one"
        raise ImproperlyConfigured(
            f"No JVM was found: {told}. Install a Java runtime (on Debian: default-jre-headless), and have "
            f"JAVA_HOME name its folder if that is not in /usr/lib/jvm. JPype says: {error}"
        ) from None
    if home and not Path(found).resolve().is_relative_to(Path(home).resolve()):
        raise ImproperlyConfigured(
            f"{_problem_of(home)}. There is a JVM in {found}: name its folder in JAVA_HOME, or leave "
            f"JAVA_HOME out."
        )
    return str(found)


def _problem_of(home: str) -> str:
    """Return what is wrong with a JAVA_HOME."""
    if not Path(home).is_dir():
        return f"JAVA_HOME is {home!r}, which is no folder"
    return f"JAVA_HOME is {home!r}, which has no JVM in it (libjvm.so)"


@cache
def java_class(name: str) -> Any:
    """Return a class of Java. The JVM has to run.

    :param name: its full name.
    """
    return jpype.JClass(name)


def driver_class(name: str) -> Any:
    """Return the class of a JDBC driver.

    :param name: its full name.
    :raises ImproperlyConfigured: CLASSPATH does not have it. The message says what CLASSPATH has.
    """
    try:
        found = java_class(name)
    except (TypeError, Throwable) as error:
        raise ImproperlyConfigured(
            f"JDBC_DRIVER is {name!r}, a class that the JVM did not find ({error}). {_told_classpath()} "
            f"CLASSPATH is read at the first query, when the JVM starts: it has to name the driver's file."
        ) from None
    if not issubclass(found, java_class("java.sql.Driver")):
        raise ImproperlyConfigured(f"JDBC_DRIVER is {name!r}, a class that is no java.sql.Driver.")
    return found


def _told_classpath() -> str:
    """Return a sentence with the entries of CLASSPATH, and which of them are missing."""
    text = str(java_class("java.lang.System").getProperty("java.class.path"))
    entries = [each for each in text.split(os.pathsep) if not each.endswith("org.jpype.jar")]
    if not entries:
        return "It has looked nowhere: CLASSPATH was empty."
    told = (each if Path(each).exists() else f"{each} (not there)" for each in entries)
    return f"It has looked in {', '.join(told)}."


class _End:
    """An object of a thread: the end of the thread frees it, and has the JVM forget the thread.

    JPype attaches each thread that calls Java, and detaches none: without this, each thread of Python's that
    has ended would leave one of Java's.
    """

    # A destructor may run when module globals are gone.
    _getpid = staticmethod(getpid)

    def __init__(self) -> None:
        self._pid, self._ident = getpid(), threading.get_ident()
        self._detach, self._get_ident = java_class("java.lang.Thread").detach, threading.get_ident

    def __del__(self) -> None:
        # A child frees the objects of its parent's threads, in its own thread.
        if self._pid == self._getpid() and self._ident == self._get_ident():
            self._detach()


class _Threads(threading.local):
    """An attribute for each thread that has called Java."""

    end: _End | None = None


_threads = _Threads()


def enter_thread() -> None:
    """Have the JVM forget the calling thread when the thread ends. The JVM has to run."""
    if _threads.end is None and threading.current_thread() is not threading.main_thread():
        _threads.end = _End()
