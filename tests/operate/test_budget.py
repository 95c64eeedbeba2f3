"""The mathematics of ``pool_budget``, against simulations over virtual time and against closed forms."""

from __future__ import annotations

import math

import pytest

from benchmarks.sizing import LOADS, Load, simulate
from poollife.monitoring import budget

#: Two percentage points.
NEAR = 0.02


@pytest.mark.parametrize("fewer", [0, 1, 2], ids=["size", "one less", "two less"])
@pytest.mark.parametrize(("threads", "pause", "hold"), LOADS, ids=["8 threads", "16 threads"])
def test_as_many_checkouts_wait_as_in_a_simulation_with_lognormal_holds(
    threads: int, pause: float, hold: float, fewer: int
) -> None:
    sessions = budget.size_for_threads(threads, pause, hold) - fewer
    calculated = budget.wait_of_threads(threads, sessions, pause, hold)
    simulated = simulate(Load(threads, pause, hold), sessions)
    assert abs(calculated - simulated) < NEAR
    assert (simulated < budget.TARGET + 0.003) == (fewer == 0)


def test_a_simulation_can_differ() -> None:
    """With holds twice as long as the calculation knows, the two are far from each other."""
    threads, pause, hold = LOADS[0]
    sessions = budget.size_for_threads(threads, pause, hold) - 2
    calculated = budget.wait_of_threads(threads, sessions, pause, hold)
    assert simulate(Load(threads, pause, 2 * hold), sessions) - calculated > 10 * NEAR


@pytest.mark.parametrize(("threads", "sessions"), [(2, 1), (5, 3), (16, 9), (40, 39)])
def test_states_are_those_of_the_machine_repair_model(threads: int, sessions: int) -> None:
    """The closed form: N! / (N-k)! / k! r^k, and k! is c! c^(k-c) beyond c; the arrival sees N - 1."""
    ratio, others = 0.7, threads - 1
    weights = [
        math.perm(others, busy)
        * ratio**busy
        / (
            math.factorial(busy)
            if busy <= sessions
            else math.factorial(sessions) * sessions ** (busy - sessions)
        )
        for busy in range(threads)
    ]
    expected = sum(weights[sessions:]) / sum(weights)
    assert budget.wait_of_threads(threads, sessions, 1.0, ratio) == pytest.approx(expected)


def test_erlang_c_is_that_of_the_tables() -> None:
    assert budget.wait_of_many(1, rate=6, hold=0.1) == pytest.approx(0.6)
    # c = 2: 2 rho^2 / (1 + rho)
    assert budget.wait_of_many(2, rate=10, hold=0.1) == pytest.approx(2 * 0.25 / 1.5)
    # c = 10, 7 erlangs
    assert budget.wait_of_many(10, rate=70, hold=0.1) == pytest.approx(0.2217, abs=1e-4)


def test_many_threads_with_long_pauses_are_a_source_without_a_limit() -> None:
    threads, hold, rate = 20_000, 0.1, 70.0
    pause = budget.mean_pause(threads, rate, hold)
    finite = budget.wait_of_threads(threads, 10, pause, hold)
    assert finite == pytest.approx(budget.wait_of_many(10, rate, hold), abs=1e-3)


def test_size_is_the_least_with_which_fewer_than_the_target_wait() -> None:
    size = budget.size_for_threads(16, 0.12, 0.04)
    assert budget.wait_of_threads(16, size, 0.12, 0.04) < budget.TARGET
    assert budget.wait_of_threads(16, size - 1, 0.12, 0.04) >= budget.TARGET
    size = budget.size_for_many(100, 0.04)
    assert budget.wait_of_many(size, 100, 0.04) < budget.TARGET
    assert budget.wait_of_many(size - 1, 100, 0.04) >= budget.TARGET


def test_threads_without_a_pause_need_a_session_each() -> None:
    """A rate that is too high for the threads was not measured, but given: they have no pauses."""
    pause = budget.mean_pause(8, rate=1000, hold=0.1)
    assert pause == 0
    assert budget.size_for_threads(8, pause, 0.1) == 8
    assert budget.wait_of_threads(8, 7, pause, 0.1) == 1


def test_hundreds_of_threads_stay_in_the_range_of_floats() -> None:
    assert budget.wait_of_threads(5000, 10, 1e-6, 1.0) == pytest.approx(1)
    # 5,000 threads, of which each is borrowing half of the time: 2,500, with a deviation of 35.
    assert 0 < budget.wait_of_threads(5000, 2600, 1.0, 1.0) < 0.01
    assert budget.wait_of_threads(5000, 2500, 1.0, 1.0) > 0.5


def test_a_rate_of_zero_has_no_pause() -> None:
    with pytest.raises(ValueError, match="above 0"):
        budget.mean_pause(8, 0, 0.1)
