"""Holds all workers of one target to the pace that its API allows."""

from __future__ import annotations

import threading
import time
from bisect import insort
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_HOLD = 30.0


class Pace:
    """Limits requests in flight; a 429 halves the limit and holds everyone, each answered request wins a little back.

    Turns come in the order in which they were asked for, else whoever has just had one is there first again; but those
    who try again go first, else they find the API busy again until their tries are up.
    `stop` wakes whoever waits: from then on there are no more turns.
    """

    def __init__(self, in_flight: int) -> None:
        self._most = in_flight
        self._limit = float(in_flight)
        self._running = 0
        self._held_until = 0.0
        self._lock = threading.Lock()
        self._queue: list[tuple[int, int, threading.Condition]] = []
        self._numbers = count()
        self._stopped = threading.Event()

    @contextmanager
    def turn(self, patience: float, attempt: int = 1) -> Iterator[bool]:
        """Wait for a turn, at most `patience` seconds; says whether it came."""
        with self._lock:
            came = self._wait(time.monotonic() + patience, attempt)
            self._running += came
            self._wake_first()
        try:
            yield came
        finally:
            with self._lock:
                self._running -= came
                self._wake_first()

    def _wait(self, end: float, attempt: int) -> bool:
        changed = threading.Condition(self._lock)
        mine = (-attempt, next(self._numbers), changed)
        insort(self._queue, mine)
        try:
            while not self._stopped.is_set():
                now = time.monotonic()
                held = now < self._held_until
                if not held and self._running < int(self._limit) and self._queue[0] is mine:
                    return True
                if now >= end:
                    return False
                # The end of a hold wakes nobody; a turn that comes free, or to be the first, does.
                changed.wait((min(end, self._held_until) if held else end) - now)
            return False
        finally:
            self._queue.remove(mine)

    def _wake_first(self) -> None:
        if self._queue:
            self._queue[0][-1].notify()

    def slow(self, seconds: float) -> None:
        """Hold everyone for `seconds` (LONGEST_HOLD at most) and halve the requests in flight."""
        with self._lock:
            now = time.monotonic()
            if now >= self._held_until:  # one burst of refusals counts once
                self._limit = max(1.0, self._limit / 2)
            self._held_until = max(self._held_until, now + min(seconds, LONGEST_HOLD))

    def quicken(self) -> None:
        """Hear of an answered request: about one more may fly after as many answers as fly now."""
        if self._limit < self._most:
            with self._lock:
                self._limit = min(self._most, self._limit + 1 / self._limit)
                self._wake_first()

    def pause(self, seconds: float) -> None:
        """Sleep, but not past a stop."""
        self._stopped.wait(seconds)

    def stop(self) -> None:
        self._stopped.set()
        with self._lock:
            for *_, changed in self._queue:
                changed.notify()
