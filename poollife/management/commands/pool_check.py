"""``manage.py pool_check``: what the servers of this site say, asked by one connection for each alias."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from poollife.management.tables import write_table
from poollife.monitoring.check import check_alias


class Command(BaseCommand):
    """Connect once for each alias, as the site does, and compare the server with the settings.

    The exit status is 1 if there is a problem. Warnings do not count.
    """

    help = "Connect once for each alias, and compare the server with the settings of its pool."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("aliases", nargs="*", metavar="alias", help="a key of DATABASES (default: all)")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        aliases = options["aliases"] or list(connections)
        if unknown := set(aliases).difference(connections):
            raise CommandError(f"not in DATABASES: {', '.join(sorted(unknown))}")
        found = {alias: check_alias(alias) for alias in aliases}
        problems = sum(each.level == "problem" for findings in found.values() for each in findings)
        if options["json"]:
            report = {alias: [asdict(each) for each in findings] for alias, findings in found.items()}
            self.stdout.write(json.dumps({"aliases": report, "problems": problems}))
        else:
            rows = [
                [alias, each.level, each.subject, each.text, each.cure]
                for alias, findings in found.items()
                for each in findings
            ]
            write_table(self.stdout, ("The servers", ["alias", "", "what", "found", "cure"], rows))
        if problems:
            raise CommandError(f"{problems} problem{'s' if problems > 1 else ''}", returncode=1)
