"""Where the shop's credentials come from: a vault, as its settings have it."""

from __future__ import annotations

import json
import os

_SERVER = json.loads(os.environ["DOCS_SITE_SERVER"])


def credentials() -> dict[str, str]:
    """Both belong together."""
    return {"USER": _SERVER["USER"], "PASSWORD": _SERVER["PASSWORD"]}
