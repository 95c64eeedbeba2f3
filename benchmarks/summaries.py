"""What is told of the figures of many rounds."""

from __future__ import annotations

import statistics


def summary(times: list[list[float]], bare: list[list[float]]) -> dict[str, float]:
    """Of each round's times, on the clock and of the process."""
    clock, process = zip(*times, strict=True)
    # Of each round its own: what slows the machine down slows both.
    ratios = [one[1] / other[1] for one, other in zip(times, bare, strict=True)]
    return {
        "median": statistics.median(clock),
        "least": min(clock),
        "most": max(clock),
        "process": statistics.median(process),
        "ratio": statistics.median(ratios),
        "least_ratio": min(ratios),
        "most_ratio": max(ratios),
    }
