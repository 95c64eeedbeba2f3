"""The course of the demo."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import track

from demo import databases, driver, report
from demo.site import Site, SiteError, running

WORKERS = 2
_NAMES = {"mysql": "MySQL", "postgresql": "PostgreSQL"}


def tell(options: argparse.Namespace, folder: Path) -> int:
    """Choose a database, start the site, run the burst, show the table, and go on serving.

    :returns: the exit status, 0 if every guarantee held.
    """
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    wanted = options.db or "mysql"
    missing = databases.missing_for(wanted)
    kind = options.db or ("sqlite" if missing else "mysql")
    _explain(console, kind, wanted, missing)
    if kind == wanted and missing:
        return 2
    try:
        with databases.opened(kind, folder) as database:
            return _run(console, options, Site(database, folder), database)
    except (SiteError, RuntimeError, OSError) as error:  # the site, the server or the port is not available
        console.print(str(error), style="red", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("Stopped before the end; everything the demo started is gone.")
        return 130


def _explain(console: Console, kind: str, wanted: str, missing: str) -> None:
    """Print what is missing for the database that is wanted, and how to install it."""
    words = [f"{_NAMES[wanted]} is left out: {missing}."] if missing else []
    words += [databases.WITHOUT_SERVER] if kind == "sqlite" else []
    words += [databases.HOW_TO_GET[wanted]] if missing else []
    if words:
        console.print("\n".join(words), markup=False, soft_wrap=True)


def _run(console: Console, options: argparse.Namespace, site: Site, database: databases.Database) -> int:
    console.print(f"Starting the ticket desk on {database.name} ...")
    site.prepare()
    opened_before = database.connections()
    with running(site, options.port):
        evidence = _burst(console, options.requests, site)
        evidence.opened = _difference(database.connections(), opened_before)
        findings = report.judge(evidence, database)
        report.show(console, findings)
        faults = findings.faults()
        if faults:
            console.print(f"The end of gunicorn's log:\n{site.log_tail()}", markup=False, soft_wrap=True)
        if not options.once:
            _serve(console, site)
    faults += _faults_of_master(evidence.master, site)
    return _verdict(console, faults)


def _burst(console: Console, count: int, site: Site) -> report.Evidence:
    """Run the burst with a progress bar, and return the evidence."""
    console.print(f"Sending {count} requests from {driver.CLIENTS} clients at once ...")
    master = site.note("master")
    before = report.ask_workers(site.address, WORKERS)
    outcomes = driver.burst(site.address, count)
    bar = track(outcomes, "", count, console=console, transient=True, disable=not console.is_terminal)
    seen = list(bar)
    return report.Evidence(seen, before, report.ask_workers(site.address, WORKERS), None, int(master or 0))


def _difference(now: int | None, before: int | None) -> int | None:
    return None if now is None or before is None else now - before


def _serve(console: Console, site: Site) -> None:
    """Serve until Ctrl-C.

    :raises SiteError: gunicorn has ended.
    """
    console.print(
        f"The ticket desk goes on at {site.url} until you press Ctrl-C.\nForks by hand: {site.url}reports/",
        soft_wrap=True,
    )
    try:
        while site.is_running():
            time.sleep(0.2)
    except KeyboardInterrupt:
        console.print("Stopping ...")
        return
    raise SiteError(f"gunicorn has ended by itself. The end of its log:\n{site.log_tail()}")


def _faults_of_master(master: int, site: Site) -> list[str]:
    """Return the faults of the master's session: its first and its last query must have the same session.

    All workers have ended by now, and each had a copy of the master's session.
    """
    farewell = site.note("farewell")
    if farewell == master:
        return []
    return [f"the gunicorn master began in session {master} and ended with: {farewell or 'no answer'}"]


def _verdict(console: Console, faults: list[str]) -> int:
    if not faults:
        console.print(
            "Every guarantee held, and the gunicorn master's own connection has outlived all its workers."
        )
        return 0
    line = f"{len(faults)} faults, the first: {faults[0]}"
    console.print(line, style="bold red", markup=False, soft_wrap=True)
    return 1
