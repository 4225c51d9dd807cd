"""How much of a run's time is left; the one place that reads the steady clock for it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Deadline:
    """Ends `seconds` after it was made."""

    def __init__(self, seconds: float, steady: Callable[[], float] = time.monotonic) -> None:
        self._steady = steady
        self._end = steady() + seconds

    def left(self) -> float:
        """Seconds left; 0 when there are none."""
        return max(0.0, self._end - self._steady())
