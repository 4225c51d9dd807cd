"""Collects what all targets have: plans what to read of each, reads it once, and recalls what was read before.

Nothing here decides what a connection means.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import msgspec
from msgspec.structs import replace

from audit.model import Connection, Coverage, Gateway, GatewayKey, Reading
from audit.objects import Slices
from audit.plan import Api, Plan, Step, decide, plan_reading, sort_steps
from audit.reading import find_existing, read_gateways

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Sequence

    from audit.archive import StoredRun

# A region and a project in it.
Place: TypeAlias = tuple[str, str]
# How many gateways are read at the same time over all targets, and how many lists of them.
_MOST_AT_ONCE = 128


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
            steps += [decide(gateway, self._sources[gateway.key[:2]].wanted, why) for gateway in late]
        keys = {step.gateway.key for step in steps}
        self.steps = sort_steps([*steps, *(step for step in elsewhere if step.gateway.key not in keys)])
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
        return [decide(Gateway("", "", gid, ""), (), why) for gid in sorted(anywhere - set(seen))]

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
