"""Decides which gateways to read, reads them concurrently, and hands them down in sorted order.

Every failure becomes a fact about coverage; nothing here decides what a connection means.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec
from msgspec.structs import replace

from audit.archive import Slices
from audit.errors import ApiError, NotFound
from audit.model import Connection, Coverage, EndpointConnection, Gateway, Reading
from audit.paging import Page, read_list

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Sequence

K = TypeVar("K")
T = TypeVar("T")

GATEWAY_GONE = "APIC.7302"
NO_ENDPOINT_SERVICE = "APIC.7314"
# How many connections of long gateways may wait in memory for the gateways before them.
_ROOM = 10_000
_ACCOUNT = "iam:domain::"
_PAGES_AHEAD = 32
_USABLE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Api(Protocol):
    """What collecting needs of a client for one project in one region. Its methods raise ApiError."""

    region: str
    project_id: str

    def list_gateways(self, offset: int = 0) -> Page[Gateway]: ...

    def list_connections(
        self, gateway_id: str, offset: int = 0, *, connection_id: str | None = None
    ) -> Page[EndpointConnection]: ...

    def list_permissions(self, gateway_id: str, offset: int = 0) -> Page[str]: ...

    def close(self) -> None:
        """Send nothing more and let every waiting request fail."""


class Step(msgspec.Struct, frozen=True):
    """What to do about one gateway: nothing where `decided`, else to read it, or if unlisted, see if it still is."""

    gateway: Gateway
    decided: Reading | None = None
    listed: bool = True


class Plan(msgspec.Struct, frozen=True):
    """The gateways of one target in sorted order, and what there is to say about the list of gateways itself."""

    steps: tuple[Step, ...]
    coverage: tuple[Coverage, ...] = ()


class Collector:
    """Reads the gateways of one target once; when they go down the line again, it gives what it read."""

    def __init__(self, api: Api, wanted: Collection[str], concurrency: int, *, permissions: bool) -> None:
        self._api = api
        self._wanted = wanted
        self._concurrency = concurrency
        self._permissions = permissions
        # Without their connections, which are in the lines that were written.
        self._done: list[Reading] = []
        self._about_list: tuple[Coverage, ...] = ()
        self._rows: Slices[Connection] | None = None
        self._run_id = ""
        self._answers: dict[tuple[str, str], bool | None] = {}
        self.steps: tuple[Step, ...] = ()

    def plan(self, past: Sequence[Coverage]) -> tuple[Coverage, ...]:
        """Decide what to read, and say what there is to say of the list of gateways; `past` is what the last run said.

        What the last run knew of another project or region is out of this one's scope.
        """
        known = [Gateway(e.region, e.project_id, e.gateway_id, e.name) for e in past if e.gateway_id is not None]
        here = (self._api.region, self._api.project_id)
        elsewhere = [Step(g, Reading(g, "out_of_scope")) for g in known if (g.region, g.project_id) != here]
        known = [g for g in known if (g.region, g.project_id) == here]
        if self._rows is None:
            plan = plan_reading(self._api, self._wanted, known)
            self._about_list, steps = plan.coverage, list(plan.steps)
        else:
            steps = [Step(reading.gateway, reading) for reading in self._done]
            names = {reading.gateway.id for reading in self._done}
            why = "not listed when this run began; another run found it meanwhile"
            steps += [_decide(gateway, self._wanted, why) for gateway in known if gateway.id not in names]
        keys = {step.gateway.key for step in steps}
        self.steps = _sorted([*steps, *(step for step in elsewhere if step.gateway.key not in keys)])
        return self._about_list

    def read(self) -> Generator[Reading, None, None]:
        """Yield what became of each step, in their order."""
        if self._rows is not None:
            yield from map(self._recall, self.steps)
            return
        with closing(
            read_gateways(self._api, self.steps, self._concurrency, permissions=self._permissions)
        ) as readings:
            for reading in readings:
                self._done.append(replace(reading, connections=()))
                yield reading

    def rewind(self, rows: Iterable[Connection], run_id: str) -> None:
        """Begin again with what was read; `rows` are all connections as run `run_id` wrote them."""
        self._rows, self._run_id = Slices(rows), run_id

    def find_existing(self, gateway_id: str, connection_ids: Sequence[str], patience: int) -> dict[str, bool | None]:
        """Ask for connections by their ids, each once; see `find_existing`."""
        unasked = [name for name in connection_ids if (gateway_id, name) not in self._answers]
        found = find_existing(self._api, gateway_id, unasked, self._concurrency, patience) if unasked else {}
        self._answers |= {(gateway_id, name): exists for name, exists in found.items()}
        return {name: self._answers[gateway_id, name] for name in connection_ids if (gateway_id, name) in self._answers}

    def _recall(self, step: Step) -> Reading:
        assert step.decided is not None and self._rows is not None  # noqa: S101, PT018  (plan sees to that)
        self._rows.skip_to(step.gateway.key)
        rows = self._rows.take(step.gateway.key)
        return replace(step.decided, connections=tuple(row.record for row in rows if row.read_in == self._run_id))


def plan_reading(api: Api, wanted: Collection[str], known: Collection[Gateway]) -> Plan:
    """List the gateways, once and alone: a wrong key then fails once, not in every worker.

    `wanted`: ids of the gateways in scope, empty for all. `known`: gateways that the previous run knew of; they are
    never dropped without a proof that they are gone.
    """
    try:
        listing = read_list(api.list_gateways, lambda gateway: gateway.id or None)
    except ApiError as error:
        reason = f"the list of gateways could not be read: {error}"
        missing = {gateway.id: gateway for gateway in known}
        missing |= {gid: _unnamed(api, gid) for gid in wanted if gid not in missing}
        steps = [_decide(gateway, wanted, reason) for gateway in missing.values()]
        return Plan(_sorted(steps), (_about_list(api, "not_covered", str(error), error.request_id),))

    listed = {gateway.id: gateway for gateway in listing.items}
    steps = [_step(gateway, wanted) for gid, gateway in listed.items() if gid]
    # What has an unusable id was never read, so there is nothing to know about it once it is not listed.
    unlisted = [gateway for gateway in known if gateway.id not in listed and _USABLE_ID.fullmatch(gateway.id)]
    steps += [_missing(gateway, wanted, listing.unstable) for gateway in unlisted]
    names = listed.keys() | {gateway.id for gateway in known}
    steps += [
        _decide(_unnamed(api, gid), wanted, "no such gateway in this project") for gid in wanted if gid not in names
    ]
    coverage = []
    if listing.unstable:
        coverage.append(_about_list(api, "partial", listing.unstable))
    if "" in listed:
        coverage.append(_about_list(api, "not_covered", "it holds a gateway without an id"))
    return Plan(_sorted(steps), tuple(coverage))


def _step(gateway: Gateway, wanted: Collection[str]) -> Step:
    if wanted and gateway.id not in wanted:
        return Step(gateway, Reading(gateway, "out_of_scope"))
    if not _USABLE_ID.fullmatch(gateway.id):
        return Step(gateway, Reading(gateway, "not_covered", reason="its id cannot be used in a request"))
    return Step(gateway)


def _missing(gateway: Gateway, wanted: Collection[str], unstable: str) -> Step:
    """Judge a gateway that the previous run knew and that is not listed now."""
    if unstable:
        return _decide(gateway, wanted, "not seen in the list of gateways, which would not hold still")
    if wanted and gateway.id not in wanted:
        return Step(gateway, Reading(gateway, "out_of_scope"))
    return Step(gateway, listed=False)


def _decide(gateway: Gateway, wanted: Collection[str], reason: str) -> Step:
    if wanted and gateway.id not in wanted:
        return Step(gateway, Reading(gateway, "out_of_scope"))
    return Step(gateway, Reading(gateway, "not_covered", reason=reason))


def _unnamed(api: Api, gateway_id: str) -> Gateway:
    return Gateway(api.region, api.project_id, gateway_id, "")


def _sorted(steps: list[Step]) -> tuple[Step, ...]:
    return tuple(sorted(steps, key=lambda step: step.gateway.key))


def _about_list(api: Api, state: str, reason: str, request_id: str | None = None) -> Coverage:
    return Coverage(api.region, api.project_id, None, "", state, reason, 0, request_id)  # type: ignore[arg-type]


def read_gateways(
    api: Api, steps: Sequence[Step], concurrency: int, *, permissions: bool = False
) -> Generator[Reading, None, None]:
    """Yield what became of each step, in the order of `steps`, while later ones are read ahead.

    `permissions` costs one more request for each gateway.

    At most twice `concurrency` gateways are under way or waiting, and about _ROOM connections of gateways with more
    than one page. Closing the iterator early closes the API.
    """
    room = _Room(_ROOM)
    queue: deque[Future[Reading]] = deque()
    upcoming = iter(enumerate(steps))
    done = 0
    gateways = ThreadPoolExecutor(concurrency, "gateway")
    pages = ThreadPoolExecutor(concurrency, "page")
    try:
        while done < len(steps):
            while len(queue) < 2 * concurrency and (entry := next(upcoming, None)):
                index, step = entry
                fetch = partial(_perform, api, step, pages, partial(room.claim, index), permissions=permissions)
                queue.append(gateways.submit(fetch))
            yield queue.popleft().result()
            done += 1
            room.release(done)
    finally:
        if done < len(steps):
            api.close()
            room.close()
        gateways.shutdown(cancel_futures=True)
        pages.shutdown(cancel_futures=True)


class _Room:
    """Bounds how much is read ahead; the gateway that everyone waits for is always let in."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[int, int] = {}
        self._next = 0
        self._open = True
        self._changed = threading.Condition()

    def claim(self, index: int, connections: int) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: not self._open or index <= self._next or self._held_by_others(index) + connections <= self._most
            )
            self._held[index] = connections

    def _held_by_others(self, index: int) -> int:
        return sum(self._held.values()) - self._held.get(index, 0)

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
    if step.decided is not None:
        return step.decided
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
