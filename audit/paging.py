"""Reads a whole list through offset and limit, with proof, although it may change meanwhile.

A list that fits into one answer is read in one instant. A longer one is read until two readings in a row agree in
every field. That proves it, as no item ever returns to an earlier state (identifiers are not used again, every change
moves `updated_at`): each item stood unchanged from the first reading to the second; they are as many, all different,
as the total that the first reading's last answer gave; so at the instant of that answer the list was exactly these.
Within a reading pages overlap by one item, which shows most shifts early. Items without an identifier are outside
this proof: two of them that look the same cannot be told apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator

PAGE_LIMIT = 500
READINGS = 5

Item = TypeVar("Item")


class Page(msgspec.Struct, Generic[Item], frozen=True):
    """One answer: `total` items match in all, `size` (where the server says it) and `items` are in this page."""

    total: int
    size: int | None
    items: tuple[Item, ...]


class Listing(msgspec.Struct, Generic[Item], frozen=True):
    """A list as read. `unstable` is "" where `items` is proved to be the whole list, else it says why it is not."""

    items: tuple[Item, ...]
    unstable: str = ""


class FetchMany(Protocol):
    """Like the built-in `map`: apply a function to offsets, results in order, perhaps several at once."""

    def __call__(self, fetch: Callable[[int], Page[Item]], offsets: Iterable[int], /) -> Iterator[Page[Item]]: ...


def read_list(
    fetch: Callable[[int], Page[Item]],
    identity: Callable[[Item], Hashable],
    fetch_many: FetchMany = map,
    expect: Callable[[int], None] = lambda _total: None,
) -> Listing[Item]:
    """Read the list behind `fetch` (offset -> page) completely, or say why that could not be proved.

    `identity` names an item (None: it has no name of its own); `expect` hears the total before further pages are
    fetched. After READINGS readings without proof, `items` are all that were seen, each in its latest state.
    Errors of `fetch` pass through.
    """
    seen: dict[Hashable, Item] = {}
    previous: list[Item] | None = None
    reason = ""
    for number in range(1, READINGS + 1):
        # A shift ends a reading at once, but for the last one: then as much as possible is to be seen.
        reading: _Reading[Item] = _Reading(fetch, give_up=number < READINGS)
        try:
            reading.read(fetch_many, expect)
            reading.check_identities(identity)
        except _Shifted:
            pass
        if not reading.fault and (reading.answers == 1 or reading.items == previous):
            return Listing(tuple(reading.items))
        previous = None if reading.fault else reading.items
        reason = reading.fault or "an item changed between two readings"
        for item in (*reading.items, *reading.strays):
            name = identity(item)
            seen[item if name is None else name] = item
    return Listing(tuple(seen.values()), f"the list would not hold still in {READINGS} readings: {reason}")


class _Shifted(Exception):
    """The list changed while it was read."""


class _Reading(Generic[Item]):
    """One reading from the first item to the last; `fault` says what proves that the list shifted meanwhile."""

    def __init__(self, fetch: Callable[[int], Page[Item]], *, give_up: bool) -> None:
        self._fetch = fetch
        self._give_up = give_up
        self._total = 0
        self._seen: set[Item] = set()
        self.items: list[Item] = []
        self.strays: list[Item] = []
        self.answers = 0
        self.fault = ""

    def read(self, fetch_many: FetchMany, expect: Callable[[int], None]) -> None:
        first = self._fetch(0)
        self._total = first.total
        self._place(0, first)
        received = len(self.items)
        if 0 < received < first.total:
            expect(first.total)
            # Pages are fetched as if all were as long as the first, each overlapping by one item.
            stride = max(1, received - 1)
            offsets = range(stride, first.total - received + stride, stride)
            for offset, page in zip(offsets, fetch_many(self._fetch, offsets), strict=True):
                # Advance by what was received: a page that is cut shorter leaves a gap to be filled.
                while offset > len(self.items) and self._extend():
                    pass
                self._place(offset, page)
        while len(self.items) < first.total and self._extend():
            pass

    def check_identities(self, identity: Callable[[Item], Hashable]) -> None:
        names = [name for name in map(identity, self.items) if name is not None]
        if len(set(names)) != len(names):
            self._shifted("one item was received twice")

    def _extend(self) -> bool:
        """Ask for what follows the last known item; says whether anything did."""
        known = len(self.items)
        offset = max(0, known - 1)
        self._place(offset, self._fetch(offset))
        if len(self.items) == known:
            self._shifted(f"total says {self._total}, but nothing follows item {known}")
        return len(self.items) > known

    def _place(self, offset: int, page: Page[Item]) -> None:
        """Add a page at its offset; where it overlaps what is already known, both must be the same."""
        self.answers += 1
        received = list(page.items)
        known = self.items[offset : offset + len(received)]
        self.items += received[len(known) :]
        fault = ""
        if page.size is not None and page.size != len(received):
            fault = f"a page says size {page.size} and holds {len(received)}"
        elif page.total != self._total:
            fault = f"total moved from {self._total} to {page.total}"
        elif received[: len(known)] != known:
            fault = f"the item at offset {offset} is not the one read there before"
        elif len(self.items) > self._total:
            fault = f"total says {self._total}, but {len(self.items)} were received"
        if fault:
            self.strays += received[: len(known)]
            self._shifted(fault)

    def _shifted(self, fault: str) -> None:
        """Note what proves a shift. The last reading goes on as long as it sees something new."""
        self.fault = self.fault or fault
        before = len(self._seen)
        self._seen.update(self.items, self.strays)
        if self._give_up or len(self._seen) == before:
            raise _Shifted
