"""Reads gateways concurrently and hands them down in sorted order; every failure becomes a fact about coverage."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from audit.errors import ApiError, NotFound
from audit.model import Gateway, Reading
from audit.paging import PAGE_LIMIT, read_list

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Sequence

    from audit.plan import Api, Step

K = TypeVar("K")
T = TypeVar("T")

GATEWAY_GONE = "APIC.7302"
NO_ENDPOINT_SERVICE = "APIC.7314"
# How many connections may wait in memory for the gateways before them.
_ROOM = 10_000
# The part of the time left that one target may take while others wait for theirs.
_MOST_TIME = 0.75
_ACCOUNT = "iam:domain::"
_PAGES_AHEAD = 32


def read_gateways(
    apis: Sequence[Api],
    steps: Sequence[Step],
    concurrency: int,
    left: Callable[[], float] = lambda: 86_400.0,
    *,
    permissions: bool = False,
) -> Generator[Reading, None, None]:
    """Yield what became of each step, in the order of `steps`, while later ones are read ahead.

    `concurrency` gateways of each target are read at the same time, so that a slow target holds up no other one.
    `permissions` costs one more request for each gateway. At most twice `concurrency` gateways of a target are under
    way or waiting, about _ROOM connections of the one that is handed down and of the next one each, and as many of all
    others together. A target that takes too much of the seconds `left`, so that others are not read, is given up.
    Closing the iterator early closes the APIs.
    """
    lanes = {
        (api.region, api.project_id): _Lane(api, concurrency, _ROOM // len(apis), permissions=permissions)
        for api in sorted(apis, key=lambda api: (api.region, api.project_id))
    }
    for step in steps:
        if step.decided is None:
            lanes[step.gateway.key[:2]].waiting.append(step)
    done = 0
    try:
        for step in steps:
            lane = lanes[step.gateway.key[:2]] if step.decided is None else None
            _read_ahead(lanes.values(), widen=lane is not None)
            if lane:
                lane.hurry(left(), lanes.values())
            yield lane.take() if lane else step.decided  # type: ignore[misc]
            done += 1
    finally:
        if done < len(steps):
            for api in apis:
                api.close()
        for lane in lanes.values():
            lane.close()


def _read_ahead(lanes: Collection[_Lane], *, widen: bool) -> None:
    for lane in lanes:
        lane.fill()
    # The target whose turn it is, and the one after it, so that there is no pause in between.
    for lane in [lane for lane in lanes if lane.is_busy][: 2 * widen]:
        lane.widen()


class _Lane:
    """The gateways of one target that are to be read, in their order, and the threads that read them."""

    def __init__(self, api: Api, concurrency: int, room: int, *, permissions: bool) -> None:
        self._gateways = ThreadPoolExecutor(concurrency, "gateway")
        self._pages = ThreadPoolExecutor(concurrency, "page")
        self._most = 2 * concurrency
        # Room for one page at least, else nothing would be read ahead where there are many targets.
        self._room = _Room(max(PAGE_LIMIT, room))
        self._perform = partial(_perform, api, pages=self._pages, permissions=permissions)
        self._api = api
        # How many seconds are to be left for others, from its turn on.
        self._leaves: float | None = None
        self._begun = 0
        self._taken = 0
        self._under_way: deque[Future[Reading]] = deque()
        self.waiting: deque[Step] = deque()

    def fill(self) -> None:
        """Begin to read as many as may be under way or wait to be taken."""
        while self.waiting and len(self._under_way) < self._most:
            self._under_way.append(self._gateways.submit(self._read, self._begun, self.waiting.popleft()))
            self._begun += 1

    @property
    def is_busy(self) -> bool:
        return bool(self._under_way)

    @property
    def is_reading(self) -> bool:
        """Whether there is more to be read."""
        return bool(self.waiting) or not all(future.done() for future in self._under_way)

    def widen(self) -> None:
        """Have all the room there is."""
        self._room.widen(_ROOM)

    def hurry(self, left: float, lanes: Iterable[_Lane]) -> None:
        """Wait for the next reading; read no more where others are behind and this target had its part of `left`."""
        if self._leaves is None:
            self._leaves = left * (1 - _MOST_TIME)
        came = wait(list(self._under_way)[:1], max(0.0, left - self._leaves)).done
        if left and not came and any(lane.is_reading for lane in lanes if lane is not self):
            self._api.close("it took so long that others could not have been read")

    def take(self) -> Reading:
        """Wait for the next reading."""
        reading = self._under_way.popleft().result()
        self._taken += 1
        self._room.release(self._taken)
        return reading

    def _read(self, index: int, step: Step) -> Reading:
        # A first page is let in as if it were full, and counts as what it holds once that is known.
        self._room.claim(index, PAGE_LIMIT)
        reading = self._perform(step, expect=partial(self._room.claim, index))
        self._room.settle(index, len(reading.connections))
        return reading

    def close(self) -> None:
        self._room.close()
        self._gateways.shutdown(cancel_futures=True)
        self._pages.shutdown(cancel_futures=True)


class _Room:
    """Bounds how many connections a lane reads ahead; the gateway that everyone waits for is always let in."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[int, int] = {}
        self._next = -1
        self._open = True
        self._changed = threading.Condition()

    def claim(self, index: int, connections: int) -> None:
        """Wait for room for so many connections of the gateway that is taken at `index`."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._open or index <= self._next or self._held_by_others(index) + connections <= self._most
            )
            self._held[index] = connections

    def settle(self, index: int, connections: int) -> None:
        """Correct what a claim was for."""
        with self._changed:
            self._held[index] = connections
            self._changed.notify_all()

    def _held_by_others(self, index: int) -> int:
        return sum(self._held.values()) - self._held.get(index, 0)

    def widen(self, most: int) -> None:
        """Make more room, and let in the next gateway in any case."""
        with self._changed:
            if self._most < most or self._next < 0:
                self._most, self._next = most, max(self._next, 0)
                self._changed.notify_all()

    def release(self, following: int) -> None:
        """Note that all before `following` were handed down."""
        with self._changed:
            self._held.pop(following - 1, None)
            self._next = following
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._open = False
            self._changed.notify_all()


def _perform(
    api: Api, step: Step, pages: ThreadPoolExecutor, expect: Callable[[int], None], *, permissions: bool
) -> Reading:
    gateway = step.gateway
    if not step.listed:
        return _probe(api, gateway)
    try:
        fetch = partial(api.list_connections, gateway.id)
        listing = read_list(fetch, lambda connection: connection.id, partial(_fetch_ahead, pages), expect)
    except NotFound as error:
        if error.code == NO_ENDPOINT_SERVICE:
            return Reading(gateway, "complete", reason="the gateway has no endpoint service", permissions=())
        return Reading(gateway, "not_covered", reason=str(error), request_id=error.request_id)
    except ApiError as error:
        return Reading(gateway, "not_covered", reason=str(error), request_id=error.request_id)
    state = "partial" if listing.unstable else "complete"
    reading = Reading(gateway, state, listing.items, listing.unstable)  # type: ignore[arg-type]
    return _add_permissions(api, reading) if permissions else reading


def _fetch_ahead(pool: ThreadPoolExecutor, fetch: Callable[[K], T], keys: Iterable[K]) -> Generator[T, None, None]:
    """Like `map`, but a bounded number ahead: a server may claim a total that no memory holds."""
    queue: deque[Future[T]] = deque()
    try:
        for key in keys:
            queue.append(pool.submit(fetch, key))
            if len(queue) == _PAGES_AHEAD:
                yield queue.popleft().result()
        while queue:
            yield queue.popleft().result()
    finally:
        for future in queue:
            future.cancel()


def _add_permissions(api: Api, reading: Reading) -> Reading:
    """Read who may ask for a connection; where that is refused, the connections are still worth judging."""
    try:
        listing = read_list(partial(api.list_permissions, reading.gateway.id), lambda permission: permission)
    except ApiError as error:
        unread, request_id = str(error), error.request_id
    else:
        if not listing.unstable:
            accounts = tuple(permission.removeprefix(_ACCOUNT) for permission in listing.items)
            return replace(reading, permissions=accounts)
        unread, request_id = listing.unstable, None
    reason = "; ".join(filter(None, [reading.reason, f"permissions: {unread}"]))
    refused = reading.state == "complete"
    return replace(reading, state="partial", reason=reason, request_id=request_id, permissions_refused=refused)


def _probe(api: Api, gateway: Gateway) -> Reading:
    """See whether a gateway that is no longer listed is really gone."""
    try:
        api.list_connections(gateway.id)
    except ApiError as error:
        if isinstance(error, NotFound) and error.code == GATEWAY_GONE:
            return Reading(gateway, "complete", gone=True)
        return Reading(gateway, "not_covered", reason=f"no longer listed; {error}", request_id=error.request_id)
    return Reading(gateway, "not_covered", reason="no longer listed, but it still answers")


def find_existing(
    api: Api, gateway_id: str, connection_ids: Sequence[str], workers: int, patience: int
) -> dict[str, bool | None]:
    """Ask for connections by their ids, several at once; ends after `patience` of which it cannot be told (None)."""
    answers: dict[str, bool | None] = {}
    if patience <= 0:
        return answers
    ask = partial(_exists, api, gateway_id)
    with (
        ThreadPoolExecutor(min(workers, len(connection_ids)), "confirm") as pool,
        closing(_fetch_ahead(pool, ask, connection_ids)) as results,
    ):
        for connection_id, exists in zip(connection_ids, results, strict=True):
            answers[connection_id] = exists
            patience -= exists is None
            if not patience:
                break
    return answers


def _exists(api: Api, gateway_id: str, connection_id: str) -> bool | None:
    try:
        page = api.list_connections(gateway_id, connection_id=connection_id)
    except NotFound as error:
        return False if error.code in {GATEWAY_GONE, NO_ENDPOINT_SERVICE} else None
    except ApiError:
        return None
    if any(connection.id == connection_id for connection in page.items):
        return True
    # Anything else in the answer means that the filter was not understood, so that absence proves nothing.
    return False if page.total == 0 and not page.items else None
