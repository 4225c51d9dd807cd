"""Keeps an access key from being locked: the vendor locks it for five minutes after more than five wrong signatures."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_REFUSALS = 3


class Trial:
    """One key, and all targets that are read with it.

    Until a request was accepted, no more are under way than may be refused; after MOST_REFUSALS none is let out.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._under_way = 0
        self._refusals = 0
        self._accepted = False

    @property
    def is_lost(self) -> bool:
        return self._refusals >= MOST_REFUSALS

    @contextmanager
    def turn(self, patience: float) -> Iterator[bool]:
        """Wait for a turn, at most `patience` seconds; says whether it came."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_lost or self._may_go, patience)
            came = not self.is_lost and self._may_go
            self._under_way += came
        try:
            yield came
        finally:
            with self._changed:
                self._under_way -= came
                self._changed.notify_all()

    @property
    def _may_go(self) -> bool:
        return self._accepted or self._under_way + self._refusals < MOST_REFUSALS

    def note(self, *, accepted: bool) -> None:
        """Hear what came of a request: whether the service knew who asks."""
        if accepted and self._accepted:
            return
        with self._changed:
            self._accepted |= accepted
            self._refusals += not accepted
            self._changed.notify_all()
