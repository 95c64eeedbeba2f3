"""Summaries of the figures of many rounds."""

from __future__ import annotations

import statistics


def summary(times: list[list[float]], bare: list[list[float]]) -> dict[str, float]:
    """Return a summary of the times of all rounds.

    :param times: for each round the time on the clock, and that of the process.
    :param bare: the times of SQLAlchemy's bare pool in the same rounds.
    """
    clock, process = zip(*times, strict=True)
    # A ratio for each round: other load of the machine affects both times.
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


def quartiles(figures: list[float]) -> dict[str, float]:
    """Return the median of a list that is not empty, and its lower and upper quartile."""
    several = figures if len(figures) > 1 else figures * 2
    lower, median, upper = statistics.quantiles(several, n=4, method="inclusive")
    return {"median": median, "lower": lower, "upper": upper}


def costs(figures: dict[str, list[float]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return the quartiles of each contender's cost, and of the difference to the first contender's cost.

    :param figures: by contender, a list with the cost in each round.
    """
    first = next(iter(figures.values()))
    return {
        name: {
            "us": quartiles(each),
            # A difference for each round: other load of the machine affects both times.
            "more": quartiles([one - other for one, other in zip(each, first, strict=True)]),
        }
        for name, each in figures.items()
    }
