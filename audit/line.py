"""The line that every gateway goes down: evaluate, reconcile, write; beside what the previous run left, in one order.

The unit of work is one gateway: it is read, judged, merged with its own slice of the previous run, written and dropped.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Protocol

import msgspec
from msgspec.structs import replace

from audit.archive import CONNECTIONS, EVENTS, FINDINGS, GATEWAYS, SHEET
from audit.model import BEHIND_ALL, Connection, Coverage, Finding, GatewayKey, Reading
from audit.objects import LineWriter, ObjectWriter, Slices
from audit.reconcile import Resolve, Run, Slice, carry, keep, reconcile, resolve_in_estate, resolve_in_gateway, vanished
from audit.render import sheet
from audit.render.ocsf import build_event
from audit.subjects import describe, observe
from audit.waivers import WaiverUse, judge_waivers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack
    from datetime import datetime

    from audit.archive import StoredRun, TargetRef
    from audit.collect import Collector
    from audit.evaluate import Judge, Verdict
    from audit.objects import StoredObject
    from audit.outcome import Tally
    from audit.ruleset.load import RuleSet
    from audit.store import Store

_MOST_DOUBTS = 3
_AT_ONCE = 500


class Job(msgspec.Struct, frozen=True):
    """What a run is to do, decided before anything is read. Empty `gateways` and `rule_ids` mean all.

    `targets` are named where there are several.
    """

    run_id: str
    now: datetime
    mode: str
    rule_set: RuleSet
    gateways: tuple[str, ...] = ()
    rule_ids: tuple[str, ...] = ()
    dry_run: bool = False
    fail_on: str = "low"
    concurrency: int = 16
    targets: tuple[TargetRef, ...] = ()


class Progress(Protocol):
    """Hears how far the reading is."""

    def start(self, gateways: int) -> None: ...

    def advance(self, reading: Reading) -> None: ...


class Pages:
    """What a run writes, a line at a time, until it is stored."""

    def __init__(self, stack: ExitStack) -> None:
        lines = (stack.enter_context(LineWriter()) for _ in range(4))
        self.gateways, self.connections, self.findings, self._events = lines
        self._sheet = stack.enter_context(ObjectWriter())
        self._sheet.append((sheet.BOM + sheet.HEADER).encode())

    def write_findings(self, findings: Sequence[Finding]) -> None:
        """Write findings in each of their forms, some at a time, as those of one gateway may be many."""
        for start in range(0, len(findings), _AT_ONCE):
            some = findings[start : start + _AT_ONCE]
            self.findings.write(some)
            self._events.write(map(build_event, some))
            self._sheet.append(sheet.render_rows(some).encode())

    def store_into(self, store: Store, folder: str) -> list[StoredObject]:
        named = {
            GATEWAYS: self.gateways,
            CONNECTIONS: self.connections,
            FINDINGS: self.findings,
            EVENTS: self._events,
            SHEET: self._sheet,
        }
        return [writer.store_into(store, folder + name) for name, writer in named.items()]


class Line(msgspec.Struct, frozen=True):
    """One pass of all gateways."""

    job: Job
    run: Run
    collector: Collector
    judge: Judge
    tally: Tally
    pages: Pages
    # How often it could not be told whether a connection still exists, by target.
    doubts: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)
    waivers: WaiverUse = msgspec.field(default_factory=WaiverUse)
    # Rules that broke down, and where first; rules that could not be evaluated somewhere.
    failed: dict[str, str] = msgspec.field(default_factory=dict)
    not_everywhere: set[str] = msgspec.field(default_factory=set)
    # Why rules about groups that span gateways could not be evaluated.
    unjudged: dict[str, str] = msgspec.field(default_factory=dict)

    def stream(self, parent: StoredRun | None, progress: Progress) -> None:
        """Write every gateway, its connections and findings, in sorted order, and then what spans gateways."""
        past_connections: Slices[Connection] = Slices(parent.connections() if parent else ())
        past_findings: Slices[Finding] = Slices(parent.findings() if parent else ())
        past = {(e.region, e.project_id, e.gateway_id): e for e in (parent.manifest.coverage if parent else ())}
        about_list = self.collector.plan(tuple(past.values()))
        self.tally.coverage += about_list
        progress.start(len(self.collector.steps))
        with closing(self.collector.read()) as readings:
            for reading in readings:
                key = reading.gateway.key
                self._carry(past_findings, key)
                past_connections.skip_to(key)
                rows, slice_, entry, judged = self._assess(
                    reading, past_connections.take(key), past_findings.take(key), past.get(key)
                )
                if judged.state in {"complete", "partial"} and not judged.gone:
                    self.pages.gateways.write([describe(judged)])
                self.pages.connections.write(rows)
                self._write(slice_)
                if entry:
                    self.tally.coverage.append(entry)
                progress.advance(judged)
        self._carry(past_findings, BEHIND_ALL)
        self._write(self._conclude(past_findings.take(BEHIND_ALL), is_whole=not about_list))
        past_findings.skip_to(None)
        past_connections.skip_to(None)

    def _write(self, slice_: Slice) -> None:
        self.pages.write_findings(slice_.findings)
        self.tally.add(slice_)

    def _conclude(self, past_findings: list[Finding], *, is_whole: bool) -> Slice:
        """Judge what spans gateways; a run that is limited to some of them leaves that as it is."""
        policy, limited = self.job.rule_set.policy, bool(self.job.gateways)
        is_whole = is_whole and not limited
        verdict = self.judge.judge_groups(is_whole=is_whole)
        self._note(verdict, "the groups")
        self.unjudged.update(verdict.unable)
        covered = is_whole and not self.tally.extent.has_gaps
        judged = {rule_id for rule_id in self.run.selected if covered} - self.not_everywhere - self.tally.reach.idle
        report = judge_waivers(policy.waivers, self.waivers, self.job.now, judged, self.judge.about_changes)
        self.tally.problems += report.notices
        if is_whole:
            unused = sorted(set(range(len(policy.overrides))) - self.judge.overridden)
            self.tally.problems += [f"override {number} of the policy matches no gateway" for number in unused]
        resolve = resolve_in_estate(self.run, verdict, report.unsure, limited=limited)
        return reconcile(self.run, {**verdict.hits, **report.hits}, past_findings, resolve)

    def _note(self, verdict: Verdict, where: str) -> None:
        self.waivers.add(verdict.hits.values())
        # Where the policy turns a rule off, there is nothing that it could find: that is no gap.
        self.not_everywhere.update(verdict.unable.keys() - verdict.disabled)
        for rule_id, defect in verdict.failed.items():
            self.failed.setdefault(rule_id, f"{where}: {defect}")

    def _carry(self, past: Slices[Finding], key: GatewayKey) -> None:
        for rows in past.before(key):
            self._write(carry(self.run, rows))

    def _assess(
        self,
        reading: Reading,
        past_connections: list[Connection],
        past_findings: list[Finding],
        past: Coverage | None,
    ) -> tuple[list[Connection], Slice, Coverage | None, Reading]:
        """Judge one gateway: its connections to be written, its findings, and how far it was read after all."""
        gateway = reading.gateway
        before = {connection.key: connection for connection in past_connections}
        rows = observe(gateway, reading.connections, before, self.run.run_id)
        present = {connection.key for connection in rows}
        deleted: set[str] = set()
        if reading.is_whole and not reading.gone:
            reading, deleted = self._confirm(reading, vanished(past_findings, present))
        complete_in = past.complete_in if past else None
        verdict = self.judge.judge(reading, rows, before if complete_in else None)
        resolve: Resolve = keep
        if reading.state != "out_of_scope":
            resolve = resolve_in_gateway(self.run, reading, present, deleted, verdict)
            if not reading.gone:
                self._note(verdict, f"gateway {gateway.name or gateway.id}")
        slice_ = reconcile(self.run, verdict.hits, past_findings, resolve)
        if reading.is_whole:
            complete_in = None if reading.gone else self.run.run_id
        else:
            # What was known and not read again stays, so that an outage does not restart clocks.
            rows += [connection for key, connection in before.items() if key not in present]
            rows.sort(key=lambda connection: connection.key)
        entry = self._cover(reading, slice_)
        if entry:
            was_read = reading.state in {"complete", "partial"} and not reading.gone
            unable = dict(sorted(verdict.unable.items())) if was_read else {}
            entry = msgspec.structs.replace(entry, complete_in=complete_in, not_evaluated=unable)
        return rows, slice_, entry, reading

    def _confirm(self, reading: Reading, missing: Sequence[str]) -> tuple[Reading, set[str]]:
        """Ask by id for connections that vanished; one that still answers means that the reading was not complete.

        What could not be told stays unverified and is said. After _MOST_DOUBTS of that no more are asked for in this
        run and target: the time is for the gateways that are still to be read.
        """
        if not missing:
            return reading, set()
        place = reading.gateway.key[:2]
        answers = self.collector.find_existing(reading.gateway, missing, _MOST_DOUBTS - self.doubts[place])
        deleted = {name for name, exists in answers.items() if exists is False}
        for connection_id in [name for name, exists in answers.items() if exists]:
            reason = f"connection {connection_id} was not in the list, but still answers by its id"
            reading = replace(reading, state="partial", reason=reason, permissions_refused=False)
        self.doubts[place] += sum(exists is None for exists in answers.values())
        if untold := [name for name in missing if answers.get(name) is None]:
            self.tally.problems.append(
                f"gateway {reading.gateway.name or reading.gateway.id}: whether connection {untold[0]}"
                f"{f' and {len(untold) - 1} more' if len(untold) > 1 else ''} was deleted could not be told"
            )
        return reading, deleted

    def _cover(self, reading: Reading, slice_: Slice) -> Coverage | None:
        """Describe the coverage of a gateway; None where it is gone and nothing about it is left open.

        A gateway that is gone stays known while findings out of this run's scope are, so that a full run resolves them.
        """
        state, reason = reading.state, reading.reason
        if reading.gone and reading.gateway.id in self.job.gateways:
            state, reason = "not_covered", "there is no such gateway any more"
        elif reading.gone and slice_.carried:
            state, reason = "out_of_scope", "it is gone; findings out of this run's scope are kept"
        elif reading.gone:
            return None
        region, project_id, gateway_id = reading.gateway.key
        connections = len(reading.connections)
        return Coverage(
            region, project_id, gateway_id, reading.gateway.name, state, reason, connections, reading.request_id
        )
