"""One key under trial: however many ask at once, it is refused three times at most; and a good one holds up nobody."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from audit.huawei.trial import MOST_REFUSALS, Trial


def ask(trial: Trial, answered: list[bool], *, accepted: bool, seconds: float = 0.0, patience: float = 5.0) -> bool:
    with trial.turn(patience) as came:
        if came:
            time.sleep(seconds)
            answered.append(accepted)
            trial.note(accepted=accepted)
        return came


def test_a_wrong_key_is_tried_three_times_however_many_ask():
    trial, answered = Trial(), list[bool]()
    with ThreadPoolExecutor(32) as pool:
        came = list(pool.map(lambda _: ask(trial, answered, accepted=False, seconds=0.02), range(64)))
    assert (sum(came), len(answered)) == (MOST_REFUSALS, MOST_REFUSALS)
    assert trial.is_lost


def test_once_a_request_was_accepted_all_go_at_once():
    trial, answered = Trial(), list[bool]()
    ask(trial, answered, accepted=True)
    together = threading.Barrier(20)

    def meet(_: int) -> bool:
        with trial.turn(5) as came:
            together.wait(5)
            return came

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(meet, range(20)))


def test_until_then_no_more_are_under_way_than_may_be_refused():
    trial, answered = Trial(), list[bool]()
    began = time.monotonic()
    with ThreadPoolExecutor(3) as pool:
        hung = [pool.submit(ask, trial, answered, accepted=True, seconds=0.4) for _ in range(MOST_REFUSALS)]
        while trial._under_way != MOST_REFUSALS:
            assert time.monotonic() - began < 5
        assert not ask(trial, answered, accepted=True, patience=0.05)
        assert ask(trial, answered, accepted=True)
        assert all(future.result() for future in hung)


def test_two_that_hang_do_not_hold_up_the_others():
    trial, answered, end = Trial(), list[bool](), threading.Event()

    def hang() -> None:
        with trial.turn(5):
            end.wait(5)

    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            pool.submit(hang)
        while trial._under_way < 2:
            time.sleep(0.001)
        assert ask(trial, answered, accepted=True, patience=1)
        assert ask(trial, answered, accepted=True, patience=1)
        end.set()


def test_a_refusal_leaves_fewer_turns_and_what_says_nothing_leaves_as_many():
    trial, answered = Trial(), list[bool]()
    with trial.turn(0):
        pass  # the connection was reset: nobody looked at the key
    ask(trial, answered, accepted=False)
    with trial.turn(0) as first, trial.turn(0) as second, trial.turn(0) as third:
        assert (first, second, third) == (True, True, False)
