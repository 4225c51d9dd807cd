"""Turns: how many at once, in which order, how they are slowed, and that nobody waits for nothing."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack

import pytest

from audit.huawei import pace as module
from audit.huawei.pace import Pace


def is_free(pace: Pace) -> bool:
    with pace.turn(0) as came:
        return came


def count_free(pace: Pace) -> int:
    """How many turns can be had at once right now."""
    with ExitStack() as held:
        count = 0
        while held.enter_context(pace.turn(0)):
            count += 1
        return count


def start(work, *args) -> threading.Thread:
    thread = threading.Thread(target=work, args=args)
    thread.start()
    return thread


def wait_until(condition) -> None:
    end = time.monotonic() + 2
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def in_queue(pace: Pace) -> int:
    return len(pace._queue)


def test_as_many_turns_as_allowed():
    """And not one more."""
    assert count_free(Pace(3)) == 3


def test_turn_comes_back_after_an_error():
    """Whatever happens in it."""
    pace = Pace(1)
    with pytest.raises(ZeroDivisionError), pace.turn(0):
        _ = 1 / 0
    assert is_free(pace)


def test_patience_ends():
    """Who waited in vain hears so, in time, and takes nobody's place."""
    pace = Pace(1)
    with pace.turn(0):
        began = time.monotonic()
        with pace.turn(0.05) as came:
            assert not came
        assert 0.05 <= time.monotonic() - began < 0.9
    assert count_free(pace) == 1


def test_turn_that_comes_free_goes_to_whoever_waits_for_one_at_once():
    """Not to someone who sleeps between two tries."""
    pace = Pace(1)
    came: list[float] = []

    def work() -> None:
        with pace.turn(5):
            came.append(time.monotonic())

    with pace.turn(0):
        sleepers = [start(pace.pause, 5) for _ in range(3)]
        time.sleep(0.02)
        worker = start(work)
        wait_until(lambda: in_queue(pace) == 1)
        freed = time.monotonic()
    worker.join()
    pace.stop()
    for sleeper in sleepers:
        sleeper.join()
    assert came[0] - freed < 0.2


def test_turns_come_in_order():
    """Whoever has just had one queues up behind the others."""
    pace = Pace(1)
    order: list[str] = []

    def work(name: str) -> None:
        for _ in range(3):
            with pace.turn(5):
                order.append(name)
                wait_until(lambda: in_queue(pace) == 1 or len(order) > 4)

    first = start(work, "a")
    wait_until(lambda: order)
    second = start(work, "b")
    first.join()
    second.join()
    assert "".join(order) == "ababab"


def test_who_tries_again_goes_first():
    """The more tries, the sooner: at the end of the queue its tries would soon be up."""
    pace = Pace(1)
    order: list[int] = []

    def work(attempt: int) -> None:
        with pace.turn(5, attempt):
            order.append(attempt)

    with pace.turn(0):
        threads = []
        for attempt in (1, 2, 4, 3):
            threads.append(start(work, attempt))
            wait_until(lambda: in_queue(pace) == len(threads))
    for thread in threads:
        thread.join()
    assert order == [4, 3, 2, 1]


def test_never_too_many_and_nobody_forgotten():
    """Many workers, some impatient, with turns slowed and won back meanwhile: all get through."""
    pace = Pace(3)
    running, most, done = [0], [0], [0]
    lock = threading.Lock()

    def work(number: int) -> None:
        for turn in range(20):
            with pace.turn(0.001 if (number + turn) % 5 == 0 else 10) as came:
                if came:
                    with lock:
                        running[0] += 1
                        most[0] = max(most[0], running[0])
                    time.sleep(0.0005)
                    with lock:
                        running[0] -= 1
            if (number + turn) % 17 == 0:
                pace.slow(0.002)
            pace.quicken()
        with lock:
            done[0] += 1

    began = time.monotonic()
    threads = [start(work, number) for number in range(12)]
    for thread in threads:
        thread.join(5)
    assert done[0] == 12
    assert most[0] <= 3
    assert time.monotonic() - began < 3
    assert in_queue(pace) == 0


def test_slow_holds_everyone_just_so_long():
    """Also those who wait already; and the hold ends by itself, to the moment."""
    pace = Pace(4)
    came: list[float] = []

    def work() -> None:
        with pace.turn(5):
            came.append(time.monotonic())
            time.sleep(0.3)

    with pace.turn(0), pace.turn(0), pace.turn(0), pace.turn(0):
        workers = [start(work) for _ in range(2)]
        wait_until(lambda: in_queue(pace) == 2)
        began = time.monotonic()
        pace.slow(0.15)
    for worker in workers:
        worker.join()
    assert len(came) == 2
    assert all(0.15 <= moment - began < 0.9 for moment in came)


def test_hold_may_be_longer_than_patience():
    """Then patience counts."""
    pace = Pace(1)
    pace.slow(10)
    began = time.monotonic()
    with pace.turn(0.05) as came:
        assert not came
    assert time.monotonic() - began < 0.9


def test_hold_has_an_end(monkeypatch):
    """One gateway's Retry-After of an hour does not stop the others for an hour."""
    monkeypatch.setattr(module, "LONGEST_HOLD", 0.05)
    pace = Pace(1)
    pace.slow(3600)
    began = time.monotonic()
    with pace.turn(5) as came:
        assert came
    assert time.monotonic() - began < 0.9


def test_shorter_hold_does_not_end_a_longer_one():
    """The longest counts."""
    pace = Pace(1)
    pace.slow(0.1)
    pace.slow(0)
    assert not is_free(pace)


def test_each_burst_of_refusals_halves_the_turns():
    """Sixteen refusals at once are one burst; one turn is left in any case."""
    pace = Pace(8)
    for expected in (4, 2, 1, 1):
        for _ in range(5):
            pace.slow(0.01)
        time.sleep(0.02)
        assert count_free(pace) == expected


def test_answers_win_turns_back():
    """One more after about as many answers as there are turns, up to where it began."""
    pace = Pace(4)
    pace.slow(0)
    assert count_free(pace) == 2
    for _ in range(3):
        pace.quicken()
    assert count_free(pace) == 3
    for _ in range(100):
        pace.quicken()
    assert count_free(pace) == 4


def test_turn_won_back_is_given_out_at_once():
    """To the first who waits."""
    pace = Pace(2)
    pace.slow(0)
    with pace.turn(0):
        came: list[bool] = []

        def work() -> None:
            with pace.turn(5) as turn:
                came.append(turn)

        worker = start(work)
        wait_until(lambda: in_queue(pace) == 1)
        for _ in range(2):
            pace.quicken()
        worker.join(1)
        assert came == [True]


def test_stop_wakes_everyone():
    """Who waits for a turn, who is held, who sleeps, and who comes later: there are no more turns."""
    pace = Pace(1)
    came: list[bool] = []

    def work() -> None:
        with pace.turn(10) as turn:
            came.append(turn)

    with pace.turn(0):
        threads = [start(work) for _ in range(3)] + [start(pace.pause, 10) for _ in range(2)]
        wait_until(lambda: in_queue(pace) == 3)
        pace.slow(10)
        threads += [start(work)]
        wait_until(lambda: in_queue(pace) == 4)
        pace.stop()
        for thread in threads:
            thread.join(1)
            assert not thread.is_alive()
    assert came == [False] * 4
    assert not is_free(pace)
