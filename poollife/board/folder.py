"""The folder of the board: one per user and site, that no other user can read or write."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from functools import cache
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

#: The environment variable, and the setting, with the folder; an empty value: there is no board.
VARIABLE = "POOLLIFE_RUN_DIR"
#: In memory, and not private to one service as /tmp may be (``PrivateTmp`` of systemd).
SHARED_MEMORY = Path("/dev/shm")
#: The name of a site whose settings have none.
UNNAMED = "configured"


class NoBoard(Exception):
    """The error of a folder that can't be used. Its text says why."""


class SwitchedOff(NoBoard):
    """The error where the settings say that there is to be no board."""


def folder() -> Path:
    """Return the folder of this site's board.

    :raises NoBoard: the settings say that there is none.
    """
    try:
        given = getattr(settings, VARIABLE, os.environ.get(VARIABLE))
    except ImproperlyConfigured as error:  # a pool needs no settings
        raise SwitchedOff(str(error)) from error
    name, place = site()
    if given is None:
        return _base() / f"{name}-{place}"
    if not given:
        raise SwitchedOff(f"{VARIABLE} is empty")
    if not Path(given).is_absolute():
        raise NoBoard(f"{VARIABLE} is {given!r}, and must be an absolute path")
    # A site whose folder is named may have a new place for each release.
    return Path(given) / (name if name != UNNAMED else f"{name}-{place}")


@cache
def site() -> tuple[str, str]:
    """Return the name of this site, that of its settings module, and a hash of the place of that module.

    The answer is that of the first call: a process may change its working directory.
    """
    name = getattr(settings, "SETTINGS_MODULE", None)
    # settings.configure() leaves no name: then the program is the site.
    file = getattr(sys.modules.get(str(name)), "__file__", None) if name else "".join(sys.argv[:1])
    place = os.fsencode(os.path.realpath(file or "."))
    return str(name or UNNAMED), hashlib.sha256(place).hexdigest()[:8]


def _base() -> Path:
    # Not tempfile.gettempdir(): where no folder can be written to, it fails or takes the working directory.
    temporary = Path(os.environ.get("TMPDIR") or "/tmp")
    base = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else temporary
    return base / f"poollife-{os.geteuid()}"


def prepared() -> Path:
    """Return the folder, made if it is not there yet.

    :raises NoBoard: it can't be made, or others could read it or put something into it.
    """
    path = folder()
    try:
        # Of a folder that is there already only the owner counts: a service manager may have made it.
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise NoBoard(str(error)) from error
    check(path.parent, forbidden=0o022)
    check(path)
    return path


def is_own(path: Path) -> bool:
    """Return whether this user owns the folder. The system's administrator may read that of other users.

    :raises NoBoard: it is not private to its user, or is that of a user whose folder this one must not read.
    """
    try:
        check(path)
    except NoBoard:
        if os.geteuid() != 0 or path.is_symlink() or path.stat().st_mode & 0o077:
            raise
        return False
    return True


def check(path: Path, forbidden: int = 0o077) -> None:
    """Refuse a folder in which another user could have put something.

    :param forbidden: bits of the mode that must not be set.
    :raises NoBoard: it is not this user's, or not private to this user.
    """
    try:
        status = path.lstat()
    except OSError as error:
        raise NoBoard(str(error)) from error
    if not stat.S_ISDIR(status.st_mode):
        raise NoBoard(f"{path} is not a folder")
    if status.st_uid != os.geteuid():
        raise NoBoard(f"{path} belongs to the user with id {status.st_uid}")
    if status.st_mode & forbidden:
        raise NoBoard(f"{path} can be used by other users: chmod 700 {path}")
