"""`python -m demo`: start a ticket desk, send it many requests at once, show the result, and serve on."""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_NEEDED = {"django": "Django", "gunicorn": "gunicorn", "rich": "rich"}


def main() -> int:
    """Run the demo; return its exit status, which is 0 if every guarantee held."""
    options = _options()
    if missing := [name for module, name in _NEEDED.items() if importlib.util.find_spec(module) is None]:
        print(f"The demo needs {', '.join(missing)}: pip install -e '.[demo]'", file=sys.stderr)
        return 2
    for number in _ENDINGS:
        signal.signal(number, _stop_once)
    from demo import story  # needs the packages in _NEEDED

    with tempfile.TemporaryDirectory(prefix="poollife-demo-") as folder:
        return story.tell(options, Path(folder))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument(
        "--db", choices=["mysql", "postgresql", "sqlite"], help="default: mysql if it is there"
    )
    parser.add_argument("--once", action="store_true", help="end after the table instead of serving on")
    parser.add_argument("--requests", type=int, default=600, metavar="N", help="default: 600")
    parser.add_argument("--port", type=int, default=0, help="where to serve (default: any free port)")
    database = os.environ.get("DB")
    return parser.parse_args([*(["--db", database] if database else []), *sys.argv[1:]])


def _stop_once(number: int, frame: FrameType | None) -> None:
    """End as after Ctrl-C, and ignore further signals, so that the clean-up is complete."""
    for each in _ENDINGS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
