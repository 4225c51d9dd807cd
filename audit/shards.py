"""Covers targets by what their shards left: runs in chains of their own, in folders of the same store.

The shards read, one summary judges and tells. Only what rare proofs need is asked of the API again, as any run would.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from audit.archive import CONNECTIONS, GATEWAYS, Archive, Counts, StoredRun
from audit.collect import Source
from audit.errors import ApiError, StateError, StoreError
from audit.model import Coverage, GatewayKey, Reading
from audit.outcome import Outcome, Summary
from audit.plan import Plan, plan_known, plan_unread

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from audit.model import Gateway
    from audit.targets import Target


class ShardSource(Source, frozen=True, kw_only=True):
    """A target that a shard reads. `oldest`: a run of it that began before that instant is too old to be spoken of.

    `now`: when the summary began.
    """

    archive: Archive
    oldest: str
    now: str

    def plan(self, known: Collection[Gateway]) -> Plan:
        try:
            run = self._latest()
            gateways = {gateway.key: gateway for gateway in run.gateways()}
        except StoreError as error:
            return plan_unread(self.api, self.wanted, known, str(error))
        entries = [entry for entry in run.manifest.coverage if (entry.region, entry.project_id) == self.place]
        readings = []
        for entry in entries:
            if entry.gateway_id is not None:
                key = GatewayKey(*self.place, entry.gateway_id)
                readings.append(self._reading(run.recall(entry, gateways.get(key))))
        about_list = tuple(entry for entry in entries if entry.gateway_id is None)
        return plan_known(self.api, self.wanted, readings, known, about_list, run)

    def _reading(self, reading: Reading) -> Reading:
        if reading.state != "out_of_scope" or (self.wanted and reading.gateway.id not in self.wanted):
            return reading
        return Reading(reading.gateway, "not_covered", reason="the last run of its shard was limited to other gateways")

    def _latest(self) -> StoredRun:
        """Return the last run of the shard, what is needed of it read once and found sound. Raises StoreError."""
        run = self.archive.latest()
        if run is None:
            raise StateError(f"shard {self.name} has left no run yet")
        # One that was overtaken is recorded last, though what it read is older.
        newest = max((point.now for point in run.manifest.trend if point.now <= self.now), default="")
        if run.manifest.now < newest:
            run = next(earlier for earlier in self.archive.chain() if earlier.manifest.now == newest)
        if run.manifest.now < self.oldest:
            raise StateError(f"shard {self.name} is stale: its last run that was recorded is of {run.manifest.now}")
        places = {(entry.region, entry.project_id) for entry in run.manifest.coverage if entry.state != "out_of_scope"}
        if places - {self.place}:
            raise StateError(f"shard {self.name} read another project last")
        run.check(CONNECTIONS, GATEWAYS)
        return run


def start_shards(
    run_id: str, events: Mapping[Target, dict[str, object]], start: Callable[[dict[str, object]], str], workers: int
) -> Outcome:
    """Start the shard of each target by its event, and say which ones were not; `start` raises ApiError."""

    def attempt(target: Target) -> Coverage | None:
        try:
            start(events[target])
        except ApiError as error:
            why = f"shard {target.name} could not be started: {error}"
            return Coverage(target.region, target.project_id, None, "", "not_covered", why, 0, error.request_id)
        return None

    with ThreadPoolExecutor(min(workers, len(events)), "start") as pool:
        gaps = [gap for gap in pool.map(attempt, events) if gap]
    started = len(events) - len(gaps)
    code = 4 if not started else 3 if gaps else 0
    summary = Summary(run_id, code, Counts({}, {}, 0), gaps, None, None, [], [gap.reason for gap in gaps])
    return Outcome(summary, f"{started} of {len(events)} shards were started", (), ())
