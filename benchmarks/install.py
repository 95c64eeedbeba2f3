"""The installation of the peers, one by one, so that a failure of one does not prevent the others.

``python -m benchmarks.install``; the benchmark names the peers that are missing.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def main() -> None:
    requirements = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]["bench"]
    for requirement in requirements:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", requirement]
        )
        if done.returncode:
            print(f"{requirement} cannot be installed: the benchmark goes on without it.")


if __name__ == "__main__":
    main()
