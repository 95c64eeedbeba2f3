"""Running the programs, from tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from tests.support import ROOT

#: Seconds for a whole program. Its own limits come first.
LIMIT = 150.0
#: Python 3.12 and later warn of forks with threads alive, which is what these programs are about.
WARNINGS = ("-W", "error", "-W", "ignore:This process:DeprecationWarning")


def run(
    module: str,
    *arguments: Any,
    limit: float = LIMIT,
    options: Sequence[str] = (),
    within: Sequence[str] = (),
) -> dict[str, Any]:
    """Run ``tests.support.programs.<module>`` and return the JSON object that it printed.

    Whatever it or one of its children wrote to stderr fails the test: tracebacks, "Exception ignored" and
    warnings alike.

    :param within: the beginning of a command that runs another one.
    """
    command = [
        *within,
        sys.executable,
        "-X",
        "faulthandler",
        *WARNINGS,
        "-m",
        f"tests.support.programs.{module}",
        *map(json.dumps, arguments),
        *options,
    ]
    # A session of its own, so that a child that outlives it can be found and ended.
    program = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = program.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGABRT)  # with faulthandler it says where it is
        out, err = program.communicate()
        raise AssertionError(f"{module} hung:\n{out}\n{err}") from None
    assert err == "", err
    assert program.returncode == 0, out
    report: dict[str, Any] = json.loads(out)
    return report
