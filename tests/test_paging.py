"""Complete reading: what is returned existed at one instant, or it is said that this could not be proved."""

from __future__ import annotations

import random
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.errors import Unavailable
from audit.paging import READINGS, Listing, Page, read_list


@dataclass(frozen=True)
class Item:
    id: str
    revision: int = 0


@dataclass
class Server:
    """A list behind offset and limit that may change before each answer; remembers every state it was in."""

    items: list[Item]
    cap: int = 500
    changes: int = 0  # how many more answers are preceded by changes
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    reorder: bool = False
    states: list[frozenset[Item]] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)
    born: int = 0

    def __post_init__(self) -> None:
        self.born = len(self.items)
        self._remember()

    def _remember(self) -> None:
        self.states.append(frozenset(self.items))

    def mutate(self) -> None:
        kind = self.rng.choice(["add", "remove", "replace", "change", "swap" if self.reorder else "add"])
        if kind in {"remove", "replace"} and self.items:
            self.items.pop(self.rng.randrange(len(self.items)))
        if kind in {"add", "replace"}:
            self.born += 1
            self.items.insert(self.rng.randint(0, len(self.items)), Item(f"n{self.born}"))
        if kind == "change" and self.items:
            at = self.rng.randrange(len(self.items))
            self.items[at] = replace(self.items[at], revision=self.items[at].revision + 1)
        if kind == "swap":
            self.rng.shuffle(self.items)
        self._remember()

    def page(self, offset: int) -> Page[Item]:
        self.requests.append(offset)
        if self.changes:
            self.changes -= 1
            for _ in range(self.rng.randint(0, 3)):
                self.mutate()
        part = tuple(self.items[offset : offset + self.cap])
        return Page(len(self.items), len(part), part)

    def read(self) -> Listing[Item]:
        return read_list(self.page, lambda item: item.id)


def _items(count: int) -> list[Item]:
    return [Item(f"i{number}") for number in range(count)]


@settings(max_examples=600, deadline=None)
@given(
    count=st.integers(0, 14),
    cap=st.integers(1, 6),
    changes=st.integers(0, 40),
    seed=st.integers(0, 2**32),
    reorder=st.booleans(),
)
def test_a_changing_list_is_read_as_it_once_was_or_not_called_complete(count, cap, changes, seed, reorder):
    """For any changes between any answers: exactly a state that existed during the reading, or said to be unstable."""
    server = Server(_items(count), cap=cap, changes=changes, rng=random.Random(seed), reorder=reorder)
    listing = server.read()
    if listing.unstable:
        assert "would not hold still" in listing.unstable
        everything = frozenset().union(*server.states)
        assert set(listing.items) <= everything
    else:
        assert len(set(listing.items)) == len(listing.items)
        assert frozenset(listing.items) in server.states


@settings(max_examples=200, deadline=None)
@given(count=st.integers(0, 40), cap=st.integers(1, 9), seed=st.integers(0, 2**32), changes=st.integers(0, 6))
def test_a_list_that_settles_is_read_completely(count, cap, seed, changes):
    """A few changes at the beginning cost readings, not completeness, as long as a reading outlasts them."""
    server = Server(_items(count), cap=cap, changes=min(changes, 2), rng=random.Random(seed))
    listing = server.read()
    assert not listing.unstable
    assert frozenset(listing.items) in server.states


@pytest.mark.parametrize("count", [0, 1, 2, 499, 500])
def test_a_list_of_one_page_takes_one_request(count):
    """One answer is one instant; nothing more is asked."""
    server = Server(_items(count))
    assert server.read() == Listing(tuple(_items(count)))
    assert server.requests == [0]


@pytest.mark.parametrize(
    ("count", "offsets"),
    [(501, [0, 499]), (999, [0, 499]), (1000, [0, 499, 998]), (1498, [0, 499, 998]), (1499, [0, 499, 998, 1497])],
)
def test_further_pages_overlap_by_one_and_are_read_twice(count, offsets):
    """Pages advance by what was received less one; the second reading proves the first."""
    server = Server(_items(count))
    assert server.read() == Listing(tuple(_items(count)))
    assert server.requests == offsets * 2


def test_pages_advance_by_what_was_received_where_the_server_caps_lower():
    """A server that sends 7 where 500 were asked for is read in steps of 6."""
    server = Server(_items(20), cap=7)
    assert server.read() == Listing(tuple(_items(20)))
    assert server.requests[:4] == [0, 6, 12, 18]


def test_a_page_shorter_than_the_first_leaves_no_gap():
    """Pages are planned as long as the first; what a short one leaves open is asked for."""
    server = Server(_items(20), cap=8)
    lengths = iter([8, 3, 8, 2, 8, 1] * 50)

    def uneven(offset: int) -> Page[Item]:
        server.cap = next(lengths)
        return server.page(offset)

    assert read_list(uneven, lambda item: item.id).items == tuple(_items(20))


def test_pages_fetched_in_parallel_give_the_same():
    """The proofs hold whatever the order in which answers come."""
    with ThreadPoolExecutor(8) as pool:
        server = Server(_items(5000))
        listing = read_list(server.page, lambda item: item.id, pool.map)
    assert listing == Listing(tuple(_items(5000)))


def test_the_total_is_announced_before_further_pages():
    """Whoever bounds memory hears how long the list is before it is fetched; never for a single page."""
    server = Server(_items(1200))
    heard: list[object] = []
    read_list(server.page, lambda item: item.id, expect=lambda total: heard.append((total, len(server.requests))))
    assert heard[0] == (1200, 1)
    read_list(Server(_items(3)).page, lambda item: item.id, expect=heard.append)
    assert len(heard) == 2  # once for each reading of the long list


def _static(page: Page[Item]):
    """A server that answers every request with the same page."""
    return lambda _offset: page


def test_an_item_twice_is_never_complete():
    """A duplicate proves that the list shifted."""
    twice = Page(2, 2, (Item("a"), Item("a")))
    listing = read_list(_static(twice), lambda item: item.id)
    assert listing.items == (Item("a"),)
    assert "received twice" in listing.unstable


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (Page(2, 1, (Item("a"),)), "is not the one read there before|nothing follows|received twice|2 were received"),
        (Page(2, 0, ()), "total says 2, but nothing follows item 0"),
        (Page(0, 1, (Item("a"),)), "total says 0, but 1 were received"),
        (Page(1, 2, (Item("a"),)), "a page says size 2 and holds 1"),
    ],
)
def test_a_page_that_contradicts_itself_for_ever_is_never_complete(page, reason):
    """Total, size and items must agree; what was seen is still returned, after a bounded number of readings."""
    requests = []

    def fetch(offset: int):
        requests.append(offset)
        return page

    listing = read_list(fetch, lambda item: item.id)
    assert listing.items == tuple(dict.fromkeys(page.items))
    assert re.search(reason, listing.unstable), listing.unstable
    assert f"in {READINGS} readings" in listing.unstable
    assert len(requests) <= 3 * READINGS


def test_a_total_that_moves_means_reading_again():
    """A moved total ends a reading at once, before the pages that are still to come."""
    server = Server(_items(30), cap=10)

    def shrinking(offset: int) -> Page[Item]:
        if len(server.requests) == 1:
            server.items.pop()
        return server.page(offset)

    assert read_list(shrinking, lambda item: item.id) == Listing(tuple(_items(29)))
    assert server.requests == [0, 9] + [0, 9, 18, 27] * 2


def test_a_shift_shows_at_the_next_overlap():
    """One item gone and another appended keeps the total; the overlap shows it with the next page."""
    server = Server(_items(30), cap=10)

    def rotating(offset: int) -> Page[Item]:
        if len(server.requests) == 1:
            server.items.append(Item("new"))
            server.items.pop(0)
        return server.page(offset)

    assert not read_list(rotating, lambda item: item.id).unstable
    assert server.requests == [0, 9] + [0, 9, 18, 27] * 2


def test_what_was_seen_in_an_unstable_list_is_kept_in_its_latest_state():
    """A connection that was seen in any of the readings is evaluated, as it was last seen."""
    server = Server(_items(9), cap=4)

    def restless(offset: int) -> Page[Item]:
        server.items[0] = replace(server.items[0], revision=server.items[0].revision + 1)
        return server.page(offset)

    listing = read_list(restless, lambda item: item.id)
    assert "an item changed between two readings" in listing.unstable
    assert {item.id for item in listing.items} == {f"i{n}" for n in range(9)}
    assert max(item.revision for item in listing.items if item.id == "i0") > 3 * READINGS - 3


def test_the_last_reading_sees_all_that_an_ever_growing_list_shows():
    """An insertion before every answer moves total and overlap at once; what is there is seen all the same."""
    server = Server(_items(30), cap=10)

    def growing(offset: int) -> Page[Item]:
        server.items.insert(0, Item(f"new{len(server.requests)}"))
        return server.page(offset)

    listing = read_list(growing, lambda item: item.id)
    assert listing.unstable
    assert {f"i{number}" for number in range(25)} <= {item.id for item in listing.items}


def test_items_without_identity_do_not_count_as_duplicates():
    """Two records without an id may look the same; each is kept."""
    page = Page(2, 2, (Item(""), Item("")))
    listing = read_list(_static(page), lambda item: item.id or None)
    assert listing == Listing(page.items)


def test_errors_of_the_fetch_pass_through():
    """A page that cannot be had is not the list's fault."""

    def broken(_offset: int) -> Page[Item]:
        raise Unavailable("no")

    with pytest.raises(Unavailable):
        read_list(broken, lambda item: item.id)
