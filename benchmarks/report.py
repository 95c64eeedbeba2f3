"""The tables that ``make bench`` prints: one function for each part."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.tables import table


def print_versions(versions: dict[str, str], missing: dict[str, str]) -> None:
    print(", ".join(f"{name} {number}" for name, number in versions.items()))
    for name, reason in missing.items():
        print(f"MISSING: {name}: {reason}, so it was not measured")


def print_failed(failed: dict[str, str]) -> None:
    for name, error in failed.items():
        print(f"\nFAILED: {name}: {error}")


def print_round_trips(found: dict[str, Any]) -> None:
    print("\nRound trips of a warm request, beside the view's own; each a packet that was answered\n")
    rows = [[name, *(str(view["extra"]) for view in each.values())] for name, each in found.items()]
    print(table(["", *next(iter(found.values()), {})], rows))


def print_forks(found: dict[str, dict[str, str]]) -> None:
    print("\nA fork of a process with one connection: what becomes of parent and child\n")
    names = list(next(iter(found.values())))
    numbers = [f"({number})" for number in range(1, len(names) + 1)]
    print(table(["", *numbers], [[kind, *each.values()] for kind, each in found.items()]))
    print("\n" + "\n".join(f"{number} {name}" for number, name in zip(numbers, names, strict=True)))


def print_leaks(found: dict[str, dict[str, str]]) -> None:
    print("\nSession state that the next borrower sees\n")
    names = list(next(iter(found.values())))
    numbers = [f"({number})" for number in range(1, len(names) + 1)]
    rows = [[kind, *(each.get(name, "FAILED") for name in names)] for kind, each in found.items()]
    sums = [str(sum(each.get(name) in ("LEAKS", "HANGS") for each in found.values())) for name in names]
    print(table([f"{len(found)} kinds", *numbers], [*rows, ["leaks", *sums]]))
    print("\n" + "\n".join(f"{number} {name}" for number, name in zip(numbers, names, strict=True)))
    print("'shows nothing': the first borrower does not see its own change there either.")


def print_cycles(found: dict[str, dict[str, float]], rounds: int, cycles: int) -> None:
    print(
        f"\nA checkout and a return, warm: ensure_connection() and close(), or Django's calls at the end of a"
        f"\nrequest where it keeps the connection. Microseconds, {rounds} rounds of {cycles} cycles. The"
        f"\nmultiple of SQLAlchemy's bare cycle is taken by CPU time, which leaves out waiting.\n"
    )
    rows = [
        [
            name,
            f"{each['median']:.1f}",
            f"{each['least']:.1f} - {each['most']:.1f}",
            f"{each['process']:.1f}",
            f"{each['ratio']:.1f}",
            f"{each['least_ratio']:.1f} - {each['most_ratio']:.1f}",
        ]
        for name, each in found.items()
    ]
    print(table(["", "median", "spread", "process", "x bare", "spread"], rows))


def print_last_ids(found: dict[str, dict[str, Any]], threads: int, connections: int, jobs: int) -> None:
    print(
        f"\nINSERT, then lastval() or LAST_INSERT_ID(), {jobs:,} times in an executor of {threads} threads;"
        f" a pool has\n{connections} connections\n"
    )
    rows = [
        [name, *(f"{each[key]:,}" for key in ("right", "wrong", "refused"))] for name, each in found.items()
    ]
    print(table(["", "right", "wrong", "refused"], rows) + "\n")
    for name, each in found.items():
        if each["error"]:
            print(f"refused by {name}: {each['error'][:100]}")


def print_memory(found: dict[str, list[dict[str, int]]]) -> None:
    steps = next(iter(found.values()))
    print("\nMegabytes of memory, and objects, after so many cycles\n")
    heads = [f"{step['cycles']:,}" for step in steps]
    rows = [
        [name, *(f"{step['bytes'] / 1e6:.1f}, {step['objects']:,}" for step in each)]
        for name, each in found.items()
    ]
    print(table(["", *heads], rows))


def print_fair(found: dict[str, Any], seconds: float) -> None:
    print(
        f"\nTwenty threads for {seconds:g} s, one SELECT each time, no pause; a pool has four connections,"
        "\nand gives up after 5 s\n"
    )
    rows = [
        [name, f"{each['least']:,} - {each['most']:,}", str(each["given_up"])] for name, each in found.items()
    ]
    print(table(["", "turns of a thread", "gave up"], rows))


def print_turns(found: dict[str, dict[str, dict[str, float]]], rounds: int, seconds: float) -> None:
    print(
        f"\nThe cost of a turn on four connections, without a pause: microseconds of the process, in {rounds}"
        f"\nrounds of {seconds:g} s, each way in its turn. Multiple of SQLAlchemy's in the same round.\n"
    )
    for work, ways in found.items():
        rows = [
            [
                name,
                f"{each['process']:.1f}",
                f"{each['ratio']:.2f}",
                f"{each['least_ratio']:.2f} - {each['most_ratio']:.2f}",
            ]
            for name, each in ways.items()
        ]
        print(table([work, "us", "x SQLAlchemy's", "spread"], rows) + "\n")


def print_spike(found: dict[str, Any]) -> None:
    print("\nFifty requests of 2 ms at once on five idle sessions; connecting takes 150 ms\n")
    rows = [
        [name, str(each["opened"]), f"{each['median'] * 1e3:.0f}", f"{each['most'] * 1e3:.0f}"]
        for name, each in found.items()
    ]
    print(table(["", "sessions opened, with the five idle ones", "median ms", "most ms"], rows))


def print_waiting(found: dict[str, Any], seconds: float) -> None:
    print(
        f"\nRequests of 20 ms, twice as many as four sessions can serve, for {seconds:g} s: ms of waiting\n"
    )
    rows = [
        [
            name,
            *(f"{each[key] * 1e3:.0f}" for key in ("median", "p99", "most", "ideal_p99")),
            f"{each['ratio']:.2f}",
        ]
        for name, each in found.items()
    ]
    print(table(["", "median", "p99", "most", "ideal queue's p99", "x ideal"], rows))


def print_sizing(found: list[dict[str, Any]], seconds: float) -> None:
    print(
        f"\nThe part of the checkouts that wait, in {seconds:g} s. Holds are lognormal. Calculation"
        "\nand simulation have the measured rate and hold. The size is that of pool_budget for them.\n"
    )
    rows = [
        [
            f"{each['threads']} threads, {each['sessions']} connections",
            f"{each['checkouts']:,}",
            *(f"{each[key]:.1%}" for key in ("waiting", "calculated", "simulated")),
            str(each["size"]),
        ]
        for each in found
    ]
    print(table(["", "checkouts", "measured", "calculated", "simulated", "size"], rows))


def print_board(found: list[dict[str, dict[str, float]]]) -> None:
    print(
        f"\nMicroseconds of CPU of a warm checkout and return, without and with a row on the board, in"
        f"\n{len(found)} processes: the least, and the differences: the median of the processes, and each.\n"
    )
    rows = []
    for kind in found[0]:
        each = [process[kind] for process in found]
        differences = sorted(process["difference"] for process in each)
        rows.append(
            [
                kind,
                *(f"{min(process[key] for process in each):.2f}" for key in ("without", "with")),
                f"{statistics.median(differences):.2f}",
                " ".join(f"{difference:.2f}" for difference in differences),
            ]
        )
    print(table(["", "without", "with", "difference", "in each process"], rows))


def print_outage(found: dict[str, Any], seconds: float) -> None:
    print(
        f"\nA server that is away for {seconds:g} s, twenty clients, each a hundred times a second at most\n"
    )
    rows = [
        [
            name,
            f"{each['requests']:,}",
            str(each["attempts"]),
            str(each["most_attempts"]),
            f"{each['longest'] * 1e3:.0f}",
            f"{each['first']:.1f}",
        ]
        for name, each in found.items()
    ]
    heads = ["", "requests", "attempts to connect", "most in a second", "longest ms", "first success after s"]
    print(table(heads, rows))


def print_cpu(found: dict[str, Any], rounds: int, requests: int) -> None:
    print(
        f"\nMicroseconds of CPU, all in one process: medians and quartiles of {rounds} rounds, in which"
        f"\neach thread makes {requests} requests. The difference is to stock Django in the same round.\n"
    )
    for kind, contenders in found.items():
        rows = [
            [
                name,
                f"{each['us']['median']:.1f}",
                spread(each["us"], 1),
                f"{each['more']['median']:+.1f}",
                spread(each["more"], 1),
            ]
            for name, each in contenders.items()
        ]
        print(table([kind, "us", "quartiles", "more than stock", "quartiles"], rows) + "\n")


def print_throughput(found: dict[str, Any], rounds: int, seconds: float) -> None:
    print(
        f"\nRequests per second under gunicorn: one gthread worker, eight threads where nothing else is said."
        f"\nMedians of {rounds} rounds of {seconds:g} s, each site in its turn, and how many times the rate"
        f"\nof stock Django in the same round. CPU: microseconds of the worker for one request.\n"
    )
    for scenario in found.values():
        if scenario["left_out"]:
            print(f"LEFT OUT: {scenario['title']}: {scenario['left_out']}\n")
            continue
        rows = [
            [
                name,
                f"{each['per_second']['median']:,.0f}",
                f"{each['ratio']['median']:.3f}",
                spread(each["ratio"], 3),
                f"{each['cpu_us']['median']:.0f}",
            ]
            for name, each in scenario["contenders"].items()
        ]
        print(table([scenario["title"], "per second", "x stock", "quartiles", "CPU"], rows) + "\n")


def spread(figures: dict[str, float], digits: int) -> str:
    """Return the quartiles as text."""
    return f"{figures['lower']:.{digits}f} to {figures['upper']:.{digits}f}"
