"""``manage.py`` of a site with one database: its settings as JSON come first, then the command."""

from __future__ import annotations

import json
import sys

from django.core.management import execute_from_command_line

from tests.support.programs.databases import set_up

if __name__ == "__main__":
    set_up({"default": json.loads(sys.argv[1])})
    execute_from_command_line(["manage.py", *sys.argv[2:]])
