"""Take pictures of the status page in each of its states, light and dark.

``python -m tools.screenshots FOLDER``. They are of a real site with a real database server, in Chromium.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tests.support.browser import chromium
from tests.support.status_site.running import STATES, StatusSite

WIDTH, HEIGHT = 1000, 760
#: Seconds in each state before the picture: the plots show them.
SECONDS = 12.0


def main() -> None:
    """Go through the states, with one page open all the time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="gets quiet.png, quiet-dark.png, busy.png ...")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="in each state (default: 12)")
    parser.add_argument("--width", type=int, default=WIDTH, help=f"of the pictures (default: {WIDTH})")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, StatusSite(Path(folder)) as site, chromium() as browser:
        browser.set_size(options.width, HEIGHT)
        browser.open(site.url)
        for state in STATES:
            site.bring_to(state)
            time.sleep(options.seconds)
            for scheme, name in (("light", state), ("dark", f"{state}-dark")):
                browser.set_media(prefers_color_scheme=scheme)
                (options.folder / f"{name}.png").write_bytes(browser.screenshot())


if __name__ == "__main__":
    main()
