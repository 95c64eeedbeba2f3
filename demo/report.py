"""The result of the burst, in numbers and in words."""

from __future__ import annotations

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from demo.databases import Database
from demo.driver import CLIENTS, TROUBLE, Client, Outcome

Pools = dict[int, dict[str, dict[str, Any]]]
_SETTLING = 10.0  # seconds; a worker notices a client that hung up when it next writes


@dataclass
class Evidence:
    """The observations of the runner."""

    outcomes: list[Outcome]
    before: Pools
    after: Pools
    opened: int | None  # as the server counts; None if it does not
    master: int  # the session that the gunicorn master opened before it forked the workers


@dataclass
class Findings:
    """The counts, and the lines about what went wrong."""

    kind: str
    requests: int = 0
    forks: int = 0
    refused: int = 0
    unexpected: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)
    out: list[str] = field(default_factory=list)
    opened: int | None = None
    in_workers: int = 0
    checkouts: int = 0

    def faults(self) -> list[str]:
        """Return one line for each event that must not happen."""
        return self.unexpected + self.wrong + self.broken + self.rows + self.out


def ask_workers(address: tuple[str, int], workers: int) -> Pools:
    """Return the pools of each worker.

    Any free worker answers a request, so several clients ask at once until all workers have answered.
    """
    answers: Pools = {}
    deadline = time.monotonic() + _SETTLING
    with ThreadPoolExecutor(CLIENTS) as clients:
        while time.monotonic() < deadline and _unsettled(answers, workers):
            answers.update(filter(None, clients.map(_ask_one, [Client(address)] * CLIENTS)))
    return answers


def _unsettled(answers: Pools, workers: int) -> bool:
    return len(answers) < workers or any(pools_out(pools) for pools in answers.values())


def _ask_one(client: Client) -> tuple[int, dict[str, dict[str, Any]]] | None:
    try:
        answer = json.loads(client.get("/__pool__/"))
    except TROUBLE:  # a worker that never answers is missing in the result, which is a fault
        return None
    return answer["pid"], answer["pools"]


def pools_out(pools: dict[str, dict[str, Any]]) -> int:
    """Return how many sessions of one process are borrowed."""
    return sum(int(pool["out"]) for pool in pools.values())


def judge(evidence: Evidence, database: Database) -> Findings:
    """Return the findings from the clients' outcomes, the workers' pools and the rows of the database."""
    findings = Findings(database.kind)
    texts = database.texts()
    for outcome in evidence.outcomes:
        _add(findings, outcome, texts)
    _add_pools(findings, evidence.before, evidence.after)
    findings.opened = evidence.opened
    if not database.is_alive(evidence.master):
        findings.broken.append(f"the session {evidence.master} of the gunicorn master is dead")
    if damage := database.damage():
        findings.broken.append(f"the database file is damaged: {damage}")
    return findings


def _add(findings: Findings, outcome: Outcome, texts: set[str]) -> None:
    findings.requests += 1
    findings.forks += outcome.forks
    findings.refused += outcome.refused
    findings.unexpected += filter(None, [outcome.unexpected])
    findings.wrong += filter(None, [outcome.wrong])
    findings.broken += filter(None, [outcome.broken])
    findings.rows += [f"not stored, though the site said so: {text}" for text in outcome.stored - texts]
    findings.rows += [f"stored, though it was rolled back: {text}" for text in outcome.undone & texts]


def _add_pools(findings: Findings, before: Pools, after: Pools) -> None:
    if before.keys() != after.keys():
        findings.broken.append(f"workers ended or gave no answer: {sorted(before)} became {sorted(after)}")
    for pid, pools in after.items():
        findings.in_workers += sum(int(pool["opened"]) for pool in pools.values())
        findings.checkouts += sum(int(pool["checkouts"]) for pool in pools.values())
        if count := pools_out(pools):
            findings.out.append(f"worker {pid} still misses {count} connections")


def show(console: Console, findings: Findings) -> None:
    """Print the table, and below it the faults."""
    table = Table(show_lines=True)
    table.add_column("What was counted")
    table.add_column("Count", justify="right")
    table.add_column("What it means")
    for name, count, words, must_be_zero in _rows(findings):
        style = ("green" if count == 0 else "bold red") if must_be_zero else ""
        table.add_row(name, f"[{style}]{count}[/]" if style else str(count), words)
    console.print(table)
    for line, times in Counter(findings.faults()).most_common(20):
        console.print(f"BROKEN ({times}x): {line}", style="red", markup=False, soft_wrap=True)


def _rows(findings: Findings) -> list[tuple[str, int, str, bool]]:
    """Return the rows: name, count, explanation, and True if a count other than 0 is a fault."""
    sessions = "file handles" if findings.kind == "sqlite" else "sessions"
    opened, how = _opened(findings)
    return [
        ("requests", findings.requests, _REQUESTS, False),
        ("unexpected answers", len(findings.unexpected), _UNEXPECTED, True),
        (f"{sessions} opened", opened, how, False),
        ("times one was reused", findings.checkouts - findings.in_workers, _reused(findings), False),
        ("children forked", findings.forks, _forked(findings), False),
        (f"parent {sessions} broken by children", len(findings.broken), _HARM[sessions], True),
        ("wrong answers", len(findings.wrong), _WRONG, True),
        ("rows lost or wrongly kept", len(findings.rows), _ROWS, True),
        ("connections not given back", len(findings.out), _OUT, True),
    ]


_REQUESTS = "Pages, searches, forms, downloads, failures, forks."
_UNEXPECTED = "An unexpected error, or no answer."
_HARM = {
    "sessions": "A child has changed its parent: the session ended, or another session took its place.",
    "file handles": "A child has changed its parent: a handle was replaced, or the file is damaged.",
}
_WRONG = "A request got the answer to another request."
_ROWS = "The site said that a row was stored and it is missing, or it was rolled back and is there."
_OUT = "Still borrowed from a worker's pool although no request is running."


def _opened(findings: Findings) -> tuple[int, str]:
    pooled = f"{findings.in_workers} by the workers' pools, 1 by the gunicorn master before it forked them"
    if findings.opened is None:
        return findings.in_workers + 1, f"{pooled}. (Handles of the children are not counted.)"
    rest = findings.opened - findings.in_workers - 1
    return findings.opened, f"The server's own count: {pooled}, {rest} by the children for themselves."


def _reused(findings: Findings) -> str:
    return f"A connection was needed {findings.checkouts} times. Without a pool each would be a new one."


def _forked(findings: Findings) -> str:
    return (
        "In the middle of requests. Each child used, closed and freed the connections it had inherited. "
        f"{findings.refused} were refused the database, because their parent was in a transaction."
    )
