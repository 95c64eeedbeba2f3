"""The installation of the peers, one by one, so that a failure of one does not prevent the others.

``python -m benchmarks.install``; the benchmark names the peers that are missing, and pip's errors.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from benchmarks.peers import NOT_INSTALLED

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def main() -> None:
    requirements = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]["bench"]
    errors = {}
    for requirement in requirements:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", requirement],
            stderr=subprocess.PIPE,
            text=True,
        )
        sys.stderr.write(done.stderr)
        if done.returncode:
            print(f"{requirement} cannot be installed: the benchmark goes on without it.")
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
            name = re.match(r"[\w.-]+", requirement)
            assert name
            errors[name[0]] = lines[0] if lines else f"pip ended with status {done.returncode}"
    NOT_INSTALLED.write_text(json.dumps(errors))


if __name__ == "__main__":
    main()
