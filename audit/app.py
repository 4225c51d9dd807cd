"""The line that a run is: collect, evaluate, reconcile, publish, notify. Nothing else happens here.

The unit of work is one gateway: it is read, evaluated, reconciled with its own slice of the previous run, written and
dropped. Adapters are handed in; this module knows them by their ports only.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import msgspec

from audit import __version__
from audit.archive import (
    CONNECTIONS,
    FINDINGS,
    TREND_RUNS,
    Archive,
    LineWriter,
    Link,
    Manifest,
    RuleUsed,
    RunScope,
    Slices,
    StoredObject,
    StoredRun,
    TrendPoint,
    folder_of,
)
from audit.collect import Step, find_existing, plan_reading, read_gateways
from audit.errors import Overtaken, StoreError
from audit.evaluate import Judge
from audit.model import BEHIND_ALL, Connection, Coverage, Finding, Gateway, GatewayKey, Reading
from audit.notify import Standing
from audit.outcome import ManifestRef, Outcome, Summary, Tally
from audit.reconcile import Run, Slice, carry, keep, reconcile, resolve_in_estate, resolve_in_gateway, vanished
from audit.ruleset.parse import WAIVER_EXPIRED, Rule, fields_in
from audit.subjects import observe
from audit.tell import Result, Telling, tell, tell_trouble
from audit.text import describe_defect
from audit.times import format_time
from audit.waivers import WaiverUse, judge_waivers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from audit.collect import Api, Plan
    from audit.evaluate import Verdict
    from audit.ruleset.load import RuleSet


_MOST_DOUBTS = 3


@dataclass(frozen=True)
class Job:
    """What a run is to do, decided before anything is read. Empty `gateways` and `rule_ids` mean all."""

    run_id: str
    now: datetime
    mode: str
    rule_set: RuleSet
    gateways: tuple[str, ...] = ()
    rule_ids: tuple[str, ...] = ()
    dry_run: bool = False
    fail_on: str = "low"
    concurrency: int = 16


class Progress(Protocol):
    """Hears how far the reading is."""

    def start(self, gateways: int) -> None: ...

    def advance(self, reading: Reading) -> None: ...


@dataclass(frozen=True)
class Ports:
    """The adapters of a run. `warnings` are asked for once, after the reading; `clock` tells when the run ended."""

    api: Api
    archive: Archive
    telling: Telling
    clock: Callable[[], datetime]
    progress: Progress
    warnings: Callable[[], list[str]]


def run_audit(job: Job, ports: Ports) -> Outcome:
    """Perform a run. Whatever the API, the store or a receiver does, it ends in an Outcome that says so."""
    tally = Tally(job.run_id)
    manifest: ManifestRef | None = None
    trouble: StoreError | None = None
    try:
        manifest = _read_and_record(job, ports, tally)
    except StoreError as error:
        trouble = error
    except Exception as error:  # a defect of ours: silence would look like health
        defect = describe_defect(error)
        tell_trouble(ports.telling, job.run_id, format_time(job.now), defect, defect)
        raise
    tally.problems += ports.warnings()
    now = format_time(job.now)
    if trouble:
        tally.problems.append(str(trouble))
        # Of a run that was overtaken, the faster one tells what there is to tell.
        overtaken = isinstance(trouble, Overtaken)
        told = Result([], [])
        if not overtaken:
            told = tell_trouble(ports.telling, job.run_id, now, trouble.short, str(trouble))
    else:
        location = ports.archive.store.locate(manifest.key) if manifest else ""
        standing = Standing(
            store=ports.archive.store.url,
            run_id=job.run_id,
            now=now,
            open=tally.open,
            waived=tally.waived,
            events=tally.events,
            worst=tally.worst,
            extent=tally.extent,
            problems=tally.problems,
            manifest_location=location,
            manifest_sha256=manifest.sha256 if manifest else "",
        )
        told = tell(ports.telling, standing)
    tally.problems += [
        f"receiver {item.receiver}: {item.detail}" for item in told.deliveries if item.outcome == "failed"
    ]
    code, reason = tally.judge(job.fail_on, trouble.short if trouble else "")
    summary = Summary(job.run_id, code, tally.counts, tally.coverage, manifest, None, told.deliveries, tally.problems)
    return Outcome(summary, reason, tally.worst, tuple(told.messages))


def _read_and_record(job: Job, ports: Ports, tally: Tally) -> ManifestRef | None:
    """Read, evaluate and write every gateway, then commit; None for a dry run. Raises StoreError."""
    parent = ports.archive.latest()
    now = format_time(job.now)
    if parent and now < parent.manifest.now:
        tally.problems.append(
            f"this machine's clock was set back: it says {now}, the previous run's {parent.manifest.now}; "
            "ages and dates of this run are not to be trusted"
        )
    scope = _choose_rules(job)
    policy = job.rule_set.policy
    tally.idle = frozenset(scope.idle)
    tally.untouched = scope.untouched
    reads = frozenset().union(*(rule.fields for rule in scope.rules), *(fields_in(w.match) for w in policy.waivers))
    line = _Line(
        job=job,
        api=ports.api,
        run=Run(
            run_id=job.run_id,
            now=now,
            selected=scope.selected,
            loaded=frozenset({WAIVER_EXPIRED, *(rule.id for rule in job.rule_set.rules)}),
            all_rules=not job.rule_ids,
            waivers=frozenset(waiver.id for waiver in policy.waivers if waiver.expires > now),
        ),
        judge=Judge(scope.rules, policy, job.now),
        permissions="gateway.permissions" in reads,
        tally=tally,
    )
    with LineWriter() as connections, LineWriter() as findings:
        line.stream(parent, ports.progress, connections, findings)
        failed = {rule_id: f"it broke down on {where}" for rule_id, where in line.failed.items()}
        tally.idle |= failed.keys()
        tally.failed = frozenset(failed)
        why = {**scope.idle, **failed}
        tally.problems += [f"rule {name} was not evaluated: {text}" for name, text in {**scope.narrowed, **why}.items()]
        if job.dry_run:
            return None
        folder, store = folder_of(job.run_id), ports.archive.store
        objects = [
            connections.store_into(store, folder + CONNECTIONS),
            findings.store_into(store, folder + FINDINGS),
        ]
    used = [
        RuleUsed(rule.id, rule.sha256, why.get(rule.id, ""))
        for rule in job.rule_set.select(job.rule_ids)
        if rule.id not in scope.narrowed
    ]
    manifest = _build_manifest(job, parent, tally, used, objects, format_time(ports.clock()))
    return ManifestRef(folder + "manifest.json", ports.archive.commit(manifest, parent))


@dataclass(frozen=True)
class _Scope:
    """The rules of a run: those to evaluate, and why others are not, by id.

    `idle` cannot be evaluated as things are; `narrowed` would need more gateways than the run is limited to.
    """

    rules: tuple[Rule, ...]
    idle: Mapping[str, str]
    narrowed: Mapping[str, str]
    selected: frozenset[str]
    untouched: frozenset[str]


def _choose_rules(job: Job) -> _Scope:
    rules, idle, narrowed = [], {}, {}
    for rule in job.rule_set.select(job.rule_ids):
        if job.gateways and rule.spans_gateways:
            narrowed[rule.id] = "its groups may span gateways, and this run is limited to some"
        elif empty := job.rule_set.empty_lists_of(rule):
            idle[rule.id] = f"not configured: list {', '.join(empty)} is empty in the policy"
        else:
            rules.append(rule)
    selected = frozenset({*idle, *(rule.id for rule in rules)})
    untouched = frozenset(rule.id for rule in job.rule_set.rules) - selected
    if not job.gateways and not job.rule_ids:
        selected |= {WAIVER_EXPIRED}
    return _Scope(tuple(rules), idle, narrowed, selected, untouched)


def _build_manifest(
    job: Job,
    parent: StoredRun | None,
    tally: Tally,
    used: list[RuleUsed],
    objects: list[StoredObject],
    finished_at: str,
) -> Manifest:
    now = format_time(job.now)
    counts = tally.counts
    extent = tally.extent
    complete, all_states = extent.gateways("complete"), ("complete", "partial", "not_covered", "out_of_scope")
    point = TrendPoint(job.run_id, now, counts.by_status, counts.by_severity, complete, extent.gateways(*all_states))
    return Manifest(
        run_id=job.run_id,
        mode=job.mode,
        started_at=now,
        finished_at=finished_at,
        now=now,
        version=__version__,
        scope=RunScope(sorted(job.gateways), sorted(job.rule_ids)),
        rules=used,
        policy_sha256=job.rule_set.policy.sha256,
        coverage=tally.coverage,
        counts=counts,
        trend=[*(parent.manifest.trend if parent else ()), point][-TREND_RUNS:],
        objects=objects,
        parent=Link(parent.manifest.run_id, parent.sha256) if parent else None,
    )


@dataclass(frozen=True)
class _Line:
    """The stream of gateways through evaluate and reconcile, beside the stream that the previous run left."""

    job: Job
    api: Api
    run: Run
    judge: Judge
    permissions: bool
    tally: Tally
    doubts: list[str] = field(default_factory=list)
    waivers: WaiverUse = field(default_factory=WaiverUse)
    # Rules that broke down, and where first; rules that could not be evaluated somewhere.
    failed: dict[str, str] = field(default_factory=dict)
    not_everywhere: set[str] = field(default_factory=set)

    def stream(
        self, parent: StoredRun | None, progress: Progress, connections: LineWriter, findings: LineWriter
    ) -> None:
        """Write every gateway's connections and findings, in sorted order, and then what spans gateways."""
        past_connections: Slices[Connection] = Slices(parent.connections() if parent else ())
        past_findings: Slices[Finding] = Slices(parent.findings() if parent else ())
        past = {(e.region, e.project_id, e.gateway_id): e for e in (parent.manifest.coverage if parent else ())}
        plan = self._plan(list(past.values()))
        self.tally.coverage += plan.coverage
        progress.start(len(plan.steps))
        with closing(
            read_gateways(self.api, plan.steps, self.job.concurrency, permissions=self.permissions)
        ) as readings:
            for reading in readings:
                key = reading.gateway.key
                self._carry(past_findings, key, findings)
                past_connections.skip_to(key)
                rows, slice_, entry, judged = self._assess(
                    reading, past_connections.take(key), past_findings.take(key), past.get(key)
                )
                connections.write(rows)
                self._write(slice_, findings)
                if entry:
                    self.tally.coverage.append(entry)
                progress.advance(judged)
        self._carry(past_findings, BEHIND_ALL, findings)
        self._write(self._conclude(past_findings.take(BEHIND_ALL), is_whole=not plan.coverage), findings)
        past_findings.skip_to(None)
        past_connections.skip_to(None)

    def _write(self, slice_: Slice, findings: LineWriter) -> None:
        findings.write(slice_.findings)
        self.tally.add(slice_)

    def _conclude(self, past_findings: list[Finding], *, is_whole: bool) -> Slice:
        """Judge what spans gateways; a run that is limited to some of them leaves that as it is."""
        policy, is_whole = self.job.rule_set.policy, is_whole and not self.job.gateways
        verdict = self.judge.judge_groups(is_whole=is_whole)
        self._note(verdict, "the groups")
        covered = is_whole and not self.tally.extent.has_gaps
        judged = {rule_id for rule_id in self.run.selected if covered} - self.not_everywhere - self.tally.idle
        report = judge_waivers(policy.waivers, self.waivers, self.job.now, judged, self.judge.about_changes)
        self.tally.problems += report.notices
        if self.job.gateways:
            return keep(past_findings, self.run.now)
        hits = {**verdict.hits, **(report.hits if self.run.covers(WAIVER_EXPIRED) else {})}
        return reconcile(self.run, hits, past_findings, resolve_in_estate(self.run, verdict, report.unsure))

    def _note(self, verdict: Verdict, where: str) -> None:
        self.waivers.add(verdict.hits.values())
        self.not_everywhere.update(verdict.unable)
        for rule_id, defect in verdict.failed.items():
            self.failed.setdefault(rule_id, f"{where}: {defect}")

    def _plan(self, past: Sequence[Coverage]) -> Plan:
        """Plan the reading; what the last run knew of another project or region is out of this one's scope."""
        known = [
            Gateway(entry.region, entry.project_id, entry.gateway_id, entry.name)
            for entry in past
            if entry.gateway_id is not None
        ]
        here = (self.api.region, self.api.project_id)
        plan = plan_reading(self.api, self.job.gateways, [g for g in known if (g.region, g.project_id) == here])
        elsewhere = [Step(g, Reading(g, "out_of_scope")) for g in known if (g.region, g.project_id) != here]
        return replace(plan, steps=tuple(sorted([*plan.steps, *elsewhere], key=lambda step: step.gateway.key)))

    def _carry(self, past: Slices[Finding], key: GatewayKey, findings: LineWriter) -> None:
        for rows in past.before(key):
            self._write(carry(self.run, rows), findings)

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
        rows = observe(gateway, reading.connections, before, self.job.run_id)
        present = {connection.key for connection in rows}
        deleted: set[str] = set()
        if reading.is_whole and not reading.gone:
            reading, deleted = self._confirm(reading, vanished(past_findings, present))
        complete_in = past.complete_in if past else None
        verdict = self.judge.judge(reading, rows, before if complete_in else None)
        if reading.state == "out_of_scope":
            slice_ = keep(past_findings, self.run.now)
        else:
            self._note(verdict, f"gateway {gateway.name or gateway.id}")
            resolve = resolve_in_gateway(self.run, reading, present, deleted, verdict)
            slice_ = reconcile(self.run, verdict.hits, past_findings, resolve)
        if reading.is_whole:
            complete_in = self.job.run_id
        else:
            # What was known and not read again stays, so that an outage does not restart clocks.
            rows += [connection for key, connection in before.items() if key not in present]
            rows.sort(key=lambda connection: connection.key)
        entry = self._cover(reading, slice_)
        if entry:
            was_read = reading.state in {"complete", "partial"}
            unable = dict(sorted(verdict.unable.items())) if was_read else {}
            entry = msgspec.structs.replace(entry, complete_in=complete_in, not_evaluated=unable)
        return rows, slice_, entry, reading

    def _confirm(self, reading: Reading, missing: Sequence[str]) -> tuple[Reading, set[str]]:
        """Ask by id for connections that vanished; one that still answers means that the reading was not complete.

        What could not be told stays unverified and is said. After _MOST_DOUBTS of that no more are asked for in this
        run: the time is for the gateways that are still to be read.
        """
        if not missing:
            return reading, set()
        patience = _MOST_DOUBTS - len(self.doubts)
        answers = find_existing(self.api, reading.gateway.id, missing, self.job.concurrency, patience)
        deleted = {name for name, exists in answers.items() if exists is False}
        for connection_id in [name for name, exists in answers.items() if exists]:
            reason = f"connection {connection_id} was not in the list, but still answers by its id"
            reading = replace(reading, state="partial", reason=reason, permissions_refused=False)
        self.doubts.extend(name for name, exists in answers.items() if exists is None)
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
