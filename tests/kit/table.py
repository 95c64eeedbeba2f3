"""The table that a run of the kit ends with: its tests by drivers, and how often each has passed."""

from __future__ import annotations

import re
from collections import Counter

import pytest

#: A test, a driver, and "passed" or another outcome of pytest's.
Outcome = tuple[str, str, str]
#: The property of a test that has run others in a process of its own: their outcomes.
PROPERTY = "kit"
#: The id of a test of the kit.
ID = re.compile(r"kit/test_(inv\d\w+)\.py::test_(\w+)\[([^]-]+)")


def outcomes(reporter: pytest.TerminalReporter) -> list[Outcome]:
    """Return how each test of the kit has ended, in the order of their modules."""
    found: list[Outcome] = []
    # The rest of these are parts of tests that have passed, and no tests.
    for outcome in reporter.stats.keys() - {"", "deselected", "warnings"}:
        for report in reporter.stats[outcome]:
            if match := ID.search(report.nodeid):
                found.append((f"{match[1]}: {match[2]}", match[3], outcome))
            elif report.when == "call":
                found += [tuple(each) for each in dict(report.user_properties).get(PROPERTY, [])]
    return sorted(found)


def lines(found: list[Outcome]) -> list[str]:
    """Return the lines of the table: "3", or "2, 1 failed"; "-" where the test needs a server."""
    tests = list(dict.fromkeys(test for test, _, _ in found))
    drivers = sorted({driver for _, driver, _ in found})
    cells: dict[tuple[str, str], Counter[str]] = {}
    for test, driver, outcome in found:
        cells.setdefault((test, driver), Counter())[outcome] += 1

    def cell(test: str, driver: str) -> str:
        counts = cells.get((test, driver), Counter())
        passed = [str(counts.pop("passed"))] if counts["passed"] else []
        return ", ".join([*passed, *(f"{number} {outcome}" for outcome, number in counts.items() if number)])

    rows = [["", *drivers], *([test, *(cell(test, driver) or "-" for driver in drivers)] for test in tests)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
