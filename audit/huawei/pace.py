"""Holds all workers of one target to the pace that its API allows."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_HOLD = 30.0


class Pace:
    """Limits requests in flight; a 429 halves the limit and holds everyone, each answered request wins a little back.

    `stop` wakes whoever waits: from then on `turn` lets everyone pass at once, and the caller finds out why.
    """

    def __init__(self, in_flight: int) -> None:
        self._most = in_flight
        self._limit = float(in_flight)
        self._running = 0
        self._held_until = 0.0
        self._stopped = False
        self._changed = threading.Condition()

    @contextmanager
    def turn(self, patience: float) -> Iterator[bool]:
        """Wait for a turn, at most `patience` seconds; says whether it came."""
        with self._changed:
            came = self._wait(patience)
            self._running += came
        try:
            yield came
        finally:
            with self._changed:
                self._running -= came
                self._changed.notify()

    def _wait(self, patience: float) -> bool:
        end = time.monotonic() + patience
        while not self._stopped:
            now = time.monotonic()
            if now >= self._held_until and self._running < max(1, int(self._limit)):
                return True
            if now >= end:
                return False
            # While held there is nobody to notify us: sleep until the hold ends.
            self._changed.wait(min(end, max(self._held_until, now + 1.0)) - now)
        return True

    def slow(self, seconds: float) -> None:
        """Hold everyone for `seconds` (LONGEST_HOLD at most) and halve the requests in flight."""
        with self._changed:
            now = time.monotonic()
            if now >= self._held_until:  # one burst of refusals counts once
                self._limit = max(1.0, self._limit / 2)
            self._held_until = max(self._held_until, now + min(seconds, LONGEST_HOLD))

    def quicken(self) -> None:
        """Hear of an answered request: about one more may fly after as many answers as fly now."""
        if self._limit < self._most:
            with self._changed:
                self._limit = min(self._most, self._limit + 1 / self._limit)
                self._changed.notify()

    def pause(self, seconds: float) -> None:
        """Sleep, but not past a stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped, seconds)

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
