"""Reads a whole list through offset and limit, with proof, although it may change meanwhile.

A list that fits into one answer is read in one instant. A longer one is read until two readings in a row agree in
every field. That proves it, as no item ever returns to an earlier state (identifiers are not used again, every change
moves `updated_at`): each item stood unchanged from the first reading to the second; they are as many, all different,
as the total that the first reading's last answer gave; so at the instant of that answer the list was exactly these.
Within a reading pages overlap by one item, which shows most shifts early. Items without an identifier are outside
this proof: two of them that look the same cannot be told apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator

PAGE_LIMIT = 500
READINGS = 5

Item = TypeVar("Item")


@dataclass(frozen=True)
class Page(Generic[Item]):
    """One answer: `total` items match in all, `size` (where the server says it) and `items` are in this page."""

    total: int
    size: int | None
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Listing(Generic[Item]):
    """A list as read. `unstable` is "" where `items` is proved to be the whole list, else it says why it is not."""

    items: tuple[Item, ...]
    unstable: str = ""


class FetchMany(Protocol):
    """Like the built-in `map`: apply a function to offsets, results in order, perhaps several at once."""

    def __call__(self, fetch: Callable[[int], Page[Item]], offsets: Iterable[int], /) -> Iterator[Page[Item]]: ...


class _Shifted(Exception):
    """The list changed while it was read."""


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
    for _ in range(READINGS):
        items: list[Item] = []
        try:
            pages = _read_once(fetch, fetch_many, expect, items)
            _check_identities(items, identity)
        except _Shifted as shift:
            previous, reason = None, str(shift)
        else:
            if pages == 1 or items == previous:
                return Listing(tuple(items))
            previous, reason = items, "an item changed between two readings"
        for item in items:
            name = identity(item)
            seen[item if name is None else name] = item
    return Listing(tuple(seen.values()), f"the list would not hold still in {READINGS} readings: {reason}")


def _read_once(
    fetch: Callable[[int], Page[Item]], fetch_many: FetchMany, expect: Callable[[int], None], items: list[Item]
) -> int:
    """Append one reading of the list to `items`; return the number of answers it took. Raises _Shifted."""
    first = fetch(0)
    pages = 1
    _place(items, 0, first, first.total)
    if len(items) < first.total:
        expect(first.total)
    for offset, page in _further_pages(len(items), first.total, fetch, fetch_many):
        # Advance by what was received: a page that a server cut shorter than the first leaves a gap to be filled.
        while offset > len(items):
            pages += 1
            _extend(items, fetch, first.total)
        pages += 1
        _place(items, offset, page, first.total)
    while len(items) < first.total:
        pages += 1
        _extend(items, fetch, first.total)
    return pages


def _further_pages(
    received: int, total: int, fetch: Callable[[int], Page[Item]], fetch_many: FetchMany
) -> Iterator[tuple[int, Page[Item]]]:
    """Fetch the pages after a first one of `received` items, as if all were as long, each overlapping by one item."""
    stride = max(1, received - 1)
    offsets = range(stride, total - received + stride, stride) if 0 < received < total else range(0)
    return zip(offsets, fetch_many(fetch, offsets), strict=True)


def _extend(items: list[Item], fetch: Callable[[int], Page[Item]], total: int) -> None:
    known = len(items)
    offset = max(0, known - 1)
    _place(items, offset, fetch(offset), total)
    if len(items) == known:
        raise _Shifted(f"total says {total}, but nothing follows item {known}")


def _place(items: list[Item], offset: int, page: Page[Item], total: int) -> None:
    """Add a page at its offset; where it overlaps what is already known, both must be the same."""
    received = list(page.items)
    known = items[offset : offset + len(received)]
    items.extend(received[len(known) :])
    if page.size is not None and page.size != len(received):
        raise _Shifted(f"a page says size {page.size} and holds {len(received)}")
    if page.total != total:
        raise _Shifted(f"total moved from {total} to {page.total}")
    if received[: len(known)] != known:
        raise _Shifted(f"the item at offset {offset} is not the one read there before")
    if len(items) > total:
        raise _Shifted(f"total says {total}, but {len(items)} were received")


def _check_identities(items: list[Item], identity: Callable[[Item], Hashable]) -> None:
    names = [name for name in map(identity, items) if name is not None]
    if len(set(names)) != len(names):
        raise _Shifted("one item was received twice")
