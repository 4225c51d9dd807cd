"""Decides which gateways to read, reads them concurrently, and hands them down in sorted order.

Every failure becomes a fact about coverage; nothing here decides what a connection means.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

import msgspec
from msgspec.structs import replace

from audit.archive import Slices
from audit.errors import ApiError, NotFound
from audit.model import Connection, Coverage, EndpointConnection, Gateway, GatewayKey, Reading
from audit.paging import PAGE_LIMIT, Page, read_list

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Sequence

    from audit.archive import StoredRun

K = TypeVar("K")
T = TypeVar("T")
# A region and a project in it.
Place: TypeAlias = tuple[str, str]

GATEWAY_GONE = "APIC.7302"
NO_ENDPOINT_SERVICE = "APIC.7314"
# How many connections may wait in memory for the gateways before them.
_ROOM = 10_000
# How many gateways are read at the same time over all targets, and how many lists of them.
_MOST_AT_ONCE = 128
# The part of the time left that one target may take while others wait for theirs.
_MOST_TIME = 0.75
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

    def close(self, why: str = "") -> None:
        """Send nothing more and let every waiting request fail; `why` is what their errors say."""


class Step(msgspec.Struct, frozen=True):
    """What to do about one gateway: nothing where `decided`, else to read it, or if unlisted, see if it still is."""

    gateway: Gateway
    decided: Reading | None = None
    listed: bool = True


class Plan(msgspec.Struct, frozen=True):
    """The gateways of one target in sorted order, and what there is to say about the list of gateways itself.

    `run`: where they were read already, the run that has their connections.
    """

    steps: tuple[Step, ...]
    coverage: tuple[Coverage, ...] = ()
    run: StoredRun | None = None


class Source(msgspec.Struct, frozen=True):
    """One target. `wanted`: ids of the gateways in scope, empty for all; `owned` where each of them must be here.

    `name`: the target's, for people.
    """

    name: str
    api: Api
    wanted: tuple[str, ...] = ()
    owned: bool = True

    @property
    def place(self) -> Place:
        return self.api.region, self.api.project_id

    def plan(self, known: Collection[Gateway]) -> Plan:
        """Decide what to read; `known` is what the last run knew of this target."""
        return plan_reading(self.api, self.wanted, known, owned=self.owned)


class Collector:
    """Reads the gateways of all targets once; when they go down the line again, it gives what it read."""

    def __init__(
        self, sources: Sequence[Source], concurrency: int, left: Callable[[], float], *, permissions: bool
    ) -> None:
        self._left = left
        self._sources = {source.place: source for source in sources}
        # However many targets there are, so many threads wait for answers at most.
        self._concurrency = max(1, min(concurrency, _MOST_AT_ONCE // max(1, len(sources))))
        self._permissions = permissions
        # Without their connections, which are in the lines that were written.
        self._done: list[Reading] = []
        self._about_lists: tuple[Coverage, ...] = ()
        self._rewound: _Recalled | None = None
        self._recalled: dict[Place, _Recalled] = {}
        self._answers: dict[tuple[GatewayKey, str], bool | None] = {}
        self.steps: tuple[Step, ...] = ()
        # The runs that read what this one does not read itself, by target.
        self.runs: dict[str, StoredRun] = {}
        self._runs_by_place: dict[Place, StoredRun] = {}

    def plan(self, past: Sequence[Coverage]) -> tuple[Coverage, ...]:
        """Decide what to read, and say what there is to say of the lists of gateways; `past` is what the last run said.

        What the last run knew of another project or region is out of this one's scope.
        """
        # What was named and found nowhere is in no project.
        known = [
            Gateway(e.region, e.project_id, e.gateway_id, e.name)
            for e in past
            if e.gateway_id is not None and e.project_id
        ]
        elsewhere = [Step(g, Reading(g, "out_of_scope")) for g in known if g.key[:2] not in self._sources]
        known = [g for g in known if g.key[:2] in self._sources]
        if self._rewound is None:
            plans = self._plan_each(known)
            self._about_lists = tuple(entry for plan in plans for entry in plan.coverage)
            self._runs_by_place = {
                place: plan.run for place, plan in zip(self._sources, plans, strict=True) if plan.run
            }
            self.runs = {self._sources[place].name: run for place, run in self._runs_by_place.items()}
            steps = [step for plan in plans for step in plan.steps]
            steps += self._find_nowhere({step.gateway.id for step in steps})
        else:
            steps = [Step(reading.gateway, reading) for reading in self._done]
            keys = {reading.gateway.key for reading in self._done}
            why = "not listed when this run began; another run found it meanwhile"
            late = (gateway for gateway in known if gateway.key not in keys)
            steps += [_decide(gateway, self._sources[gateway.key[:2]].wanted, why) for gateway in late]
        keys = {step.gateway.key for step in steps}
        self.steps = _sorted([*steps, *(step for step in elsewhere if step.gateway.key not in keys)])
        return self._about_lists

    def _plan_each(self, known: Collection[Gateway]) -> list[Plan]:
        """Ask every target for its gateways, all at the same time."""
        sources = list(self._sources.values())
        asks = [partial(source.plan, [g for g in known if g.key[:2] == source.place]) for source in sources]
        if len(asks) == 1:
            return [asks[0]()]
        with ThreadPoolExecutor(min(len(asks), _MOST_AT_ONCE), "list") as pool:
            try:
                return [future.result() for future in [pool.submit(ask) for ask in asks]]
            except BaseException:
                for source in sources:
                    source.api.close()
                raise

    def _find_nowhere(self, seen: Collection[str]) -> list[Step]:
        """Say of the gateways that may be in any target which ones are in none."""
        anywhere = {gid for source in self._sources.values() if not source.owned for gid in source.wanted}
        why = (
            "not in the lists of gateways that could be read" if self._about_lists else "no such gateway in any target"
        )
        return [_decide(Gateway("", "", gid, ""), (), why) for gid in sorted(anywhere - set(seen))]

    def read(self) -> Generator[Reading, None, None]:
        """Yield what became of each step, in their order. Raises StoreError where a run that is recalled ends early."""
        if self._rewound is not None:
            for step in self.steps:
                assert step.decided is not None  # noqa: S101  (plan sees to that)
                yield self._rewound.complete(step.decided)
            return
        apis = [source.api for source in self._sources.values()]
        begun = read_gateways(apis, self.steps, self._concurrency, self._left, permissions=self._permissions)
        with closing(begun) as readings:
            for read in readings:
                reading = self._recall(read)
                self._done.append(reading if not reading.connections else replace(reading, connections=()))
                yield reading

    def _recall(self, reading: Reading) -> Reading:
        """Add what another run read to what it said of it."""
        place = reading.gateway.key[:2]
        run = self._runs_by_place.get(place)
        if run is None:
            return reading
        # Targets follow one another: one run at a time is open. By target, as runs of two chains may have the same id.
        if place not in self._recalled:
            self._recalled = {place: _Recalled(run.connections(), run.manifest.run_id)}
        reading = self._recalled[place].complete(reading)
        if self._permissions and reading.state == "complete" and reading.permissions is None and not reading.gone:
            why = "permissions: not read by its shard, whose rules did not ask for them"
            return replace(reading, state="partial", reason=why, permissions_refused=True)
        return reading

    def rewind(self, rows: Iterable[Connection], run_id: str) -> None:
        """Begin again with what was read; `rows` are all connections as run `run_id` wrote them."""
        self._rewound = _Recalled(rows, run_id)

    def find_existing(self, gateway: Gateway, connection_ids: Sequence[str], patience: int) -> dict[str, bool | None]:
        """Ask for connections by their ids, each once; see `find_existing`."""
        api = self._sources[gateway.key[:2]].api
        unasked = [name for name in connection_ids if (gateway.key, name) not in self._answers]
        found = find_existing(api, gateway.id, unasked, self._concurrency, patience) if unasked else {}
        self._answers |= {(gateway.key, name): exists for name, exists in found.items()}
        asked = [name for name in connection_ids if (gateway.key, name) in self._answers]
        return {name: self._answers[gateway.key, name] for name in asked}


class _Recalled:
    """The connections that a run read, taken gateway by gateway in their order."""

    def __init__(self, rows: Iterable[Connection], run_id: str) -> None:
        self._rows = Slices(rows)
        self.run_id = run_id

    def complete(self, reading: Reading) -> Reading:
        self._rows.skip_to(reading.gateway.key)
        rows = self._rows.take(reading.gateway.key)
        return replace(reading, connections=tuple(row.record for row in rows if row.read_in == self.run_id))


def plan_reading(api: Api, wanted: Collection[str], known: Collection[Gateway], *, owned: bool = True) -> Plan:
    """List the gateways, once and alone: a wrong key then fails once, not in every worker.

    `wanted`: ids of the gateways in scope, empty for all; `owned` where each of them must be here. `known`: gateways
    that the previous run knew of; they are never dropped without a proof that they are gone.
    """
    try:
        listing = read_list(api.list_gateways, lambda gateway: gateway.id or None)
    except ApiError as error:
        return plan_unread(api, wanted if owned else (), known, str(error), error.request_id)

    listed = {gateway.id: gateway for gateway in listing.items}
    steps = [_step(gateway, wanted) for gid, gateway in listed.items() if gid]
    steps += _unlisted(known, listed, wanted, listing.unstable)
    names = listed.keys() | {gateway.id for gateway in known}
    strangers = [gid for gid in wanted if gid not in names] if owned else []
    steps += [_decide(_unnamed(api, gid), wanted, "no such gateway in this project") for gid in strangers]
    coverage = []
    if listing.unstable:
        coverage.append(_about_list(api, "partial", listing.unstable))
    if "" in listed:
        coverage.append(_about_list(api, "not_covered", "it holds a gateway without an id"))
    return Plan(_sorted(steps), tuple(coverage))


def plan_known(
    api: Api,
    wanted: Collection[str],
    readings: Collection[Reading],
    known: Collection[Gateway],
    about_list: tuple[Coverage, ...],
    run: StoredRun,
) -> Plan:
    """Plan nothing but to see whether gateways still are that `run`, which read the others, did not list."""
    steps = [_decide_as(reading, wanted) for reading in readings]
    listed = {reading.gateway.id for reading in readings}
    steps += _unlisted(known, listed, wanted, "; ".join(entry.reason for entry in about_list))
    strangers = set(wanted) - listed - {gateway.id for gateway in known}
    steps += [_decide(_unnamed(api, gid), wanted, "the last run of its shard did not look for it") for gid in strangers]
    return Plan(_sorted(steps), about_list, run)


def plan_unread(
    api: Api, wanted: Collection[str], known: Collection[Gateway], why: str, request_id: str | None = None
) -> Plan:
    """Plan nothing, as it is not known which gateways there are: what was known of them is not covered."""
    missing = {gateway.id: gateway for gateway in known}
    missing |= {gid: _unnamed(api, gid) for gid in wanted if gid not in missing}
    steps = [_decide(g, wanted, f"the list of gateways could not be read: {why}") for g in missing.values()]
    return Plan(_sorted(steps), (_about_list(api, "not_covered", why, request_id),))


def _step(gateway: Gateway, wanted: Collection[str], *, listed: bool = True) -> Step:
    if wanted and gateway.id not in wanted:
        return Step(gateway, Reading(gateway, "out_of_scope"))
    if not _USABLE_ID.fullmatch(gateway.id):
        return Step(gateway, Reading(gateway, "not_covered", reason="its id cannot be used in a request"))
    return Step(gateway, listed=listed)


def _unlisted(
    known: Collection[Gateway], listed: Collection[str], wanted: Collection[str], unstable: str
) -> list[Step]:
    """Judge gateways that the previous run knew and that are not listed now; `unstable` says why that proves nothing.

    What has an unusable id was never read, so there is nothing to know about it once it is not listed.
    """
    missing = [gateway for gateway in known if gateway.id not in listed and _USABLE_ID.fullmatch(gateway.id)]
    if unstable:
        why = "not seen in the list of gateways, which is not known to be whole"
        return [_decide(gateway, wanted, why) for gateway in missing]
    return [_step(gateway, wanted, listed=False) for gateway in missing]


def _decide(gateway: Gateway, wanted: Collection[str], reason: str) -> Step:
    return _decide_as(Reading(gateway, "not_covered", reason=reason), wanted)


def _decide_as(reading: Reading, wanted: Collection[str]) -> Step:
    gateway = reading.gateway
    is_wanted = not wanted or gateway.id in wanted
    return Step(gateway, reading if is_wanted else Reading(gateway, "out_of_scope"))


def _unnamed(api: Api, gateway_id: str) -> Gateway:
    return Gateway(api.region, api.project_id, gateway_id, "")


def _sorted(steps: list[Step]) -> tuple[Step, ...]:
    return tuple(sorted(steps, key=lambda step: step.gateway.key))


def _about_list(api: Api, state: str, reason: str, request_id: str | None = None) -> Coverage:
    return Coverage(api.region, api.project_id, None, "", state, reason, 0, request_id)  # type: ignore[arg-type]


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
