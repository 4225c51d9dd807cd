"""How far a run reached, and which words that allows: "clean" is said only of what was read and judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from audit.model import FIRST_READING, TURNED_OFF
from audit.text import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from audit.model import Coverage, TargetNames

GAPS = frozenset({"partial", "not_covered"})


class Extent(msgspec.Struct, frozen=True):
    """`coverage` is whole. `idle`: ids of rules that could not be evaluated, `untouched`: of those not asked for.

    `narrowed`: of those that need more gateways than the run was limited to. `limited`: what of, "gateways" or "rules",
    the run was limited to some. `targets`: the names of several targets.
    """

    coverage: Sequence[Coverage]
    idle: frozenset[str] = frozenset()
    untouched: frozenset[str] = frozenset()
    narrowed: frozenset[str] = frozenset()
    limited: tuple[str, ...] = ()
    targets: TargetNames = {}

    def gateways(self, *states: str) -> int:
        """Count gateways in one of these states; the list of gateways itself is none."""
        return sum(1 for entry in self.coverage if entry.gateway_id is not None and entry.state in states)

    @property
    def has_gaps(self) -> bool:
        """Whether something in scope was not read completely, be it the list of gateways."""
        return any(entry.state in GAPS for entry in self.coverage)

    @property
    def unknown_before(self) -> int:
        """How many gateways there was no earlier reading of, so that rules about changes had nothing to compare."""
        return sum(1 for entry in self.coverage if FIRST_READING in entry.not_evaluated.values())

    @property
    def nothing_open(self) -> str:
        """What may be said where nothing is open."""
        if self.shortfalls:
            return "nothing found in what could be judged"
        if not self.gateways("complete"):
            return "there is no gateway to judge"
        return "clean in what was in scope" if self.limits else "clean"

    @property
    def headline(self) -> str:
        """Say in one sentence how far the run reached."""
        if self.shortfalls:
            return f"Partial: {', '.join([*self.shortfalls, *self.limits])}"
        if not self.gateways("complete"):
            return "There is no gateway to judge"
        if self.limits:
            return f"Complete in what was in scope: {', '.join(self.limits)}"
        return "Complete: everything in scope was read and judged"

    @property
    def limits(self) -> list[str]:
        """What was left out on purpose, in a few words each."""
        turned_off = sum(1 for entry in self.coverage if TURNED_OFF in entry.not_evaluated.values())
        said = [
            f"limited to some {' and '.join(self.limited)}" if self.limited else "",
            _say(turned_off, "gateway", "with rules turned off by the policy"),
        ]
        return [words for words in said if words]

    @property
    def shortfalls(self) -> list[str]:
        """What was not read or judged, in a few words each."""
        said = [
            _say(self.gateways(*GAPS), "gateway", "not fully covered"),
            "" if all(entry.gateway_id for entry in self.coverage) else "the list of gateways not fully read",
            _say(len(self.idle), "rule", "not evaluated"),
            _say(self.unknown_before, "gateway", "with nothing to compare yet"),
        ]
        return [words for words in said if words]


def _say(number: int, thing: str, what: str) -> str:
    return f"{count(number, thing)} {what}" if number else ""
