"""The line that a run is: collect, evaluate, reconcile, publish, notify. Nothing else happens here.

The unit of work is one gateway: it is read, evaluated, reconciled with its own slice of the previous run, written and
dropped. Adapters are handed in; this module knows them by their ports only.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

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
from audit.evaluate import Judge, observe
from audit.model import Connection, Coverage, Finding, Gateway, GatewayKey, Reading
from audit.notify import Standing
from audit.outcome import ManifestRef, Outcome, Summary, Tally
from audit.reconcile import Run, Slice, carry, reconcile, vanished
from audit.ruleset.compiled import Bindings, BoundRule
from audit.tell import Result, Telling, tell, tell_trouble
from audit.text import describe_defect
from audit.times import format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from audit.collect import Api, Plan
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
    used, bound = _bind_rules(job)
    tally.idle = frozenset(rule.id for rule in used if rule.not_evaluated)
    tally.untouched = frozenset(rule.id for rule in job.rule_set.rules) - {rule.id for rule in used}
    tally.problems += [f"rule {rule.id} was not evaluated: {rule.not_evaluated}" for rule in used if rule.not_evaluated]
    line = _Line(
        job=job,
        api=ports.api,
        run=Run(
            run_id=job.run_id,
            now=format_time(job.now),
            selected=frozenset(rule.id for rule in used),
            loaded=frozenset(rule.id for rule in job.rule_set.rules),
            all_rules=not job.rule_ids,
        ),
        judge=Judge(bound),
        permissions=any("gateway.permissions" in entry.rule.fields for entry in bound),
        tally=tally,
    )
    with LineWriter() as connections, LineWriter() as findings:
        line.stream(parent, ports.progress, connections, findings)
        if job.dry_run:
            return None
        folder, store = folder_of(job.run_id), ports.archive.store
        objects = [
            connections.store_into(store, folder + CONNECTIONS),
            findings.store_into(store, folder + FINDINGS),
        ]
    manifest = _build_manifest(job, parent, tally, used, objects, format_time(ports.clock()))
    return ManifestRef(folder + "manifest.json", ports.archive.commit(manifest, parent))


def _bind_rules(job: Job) -> tuple[list[RuleUsed], list[BoundRule]]:
    """List the rules in scope, and bind those that can be evaluated to the values in force."""
    used, bound = [], []
    policy = job.rule_set.policy
    for rule in job.rule_set.select(job.rule_ids):
        empty = job.rule_set.empty_lists_of(rule)
        why = f"not configured: list {', '.join(empty)} is empty in the policy" if empty else ""
        used.append(RuleUsed(rule.id, rule.sha256, why))
        if not empty:
            bound.append(BoundRule(rule, Bindings(policy.params_of(rule), policy.lists, job.now)))
    return used, bound


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

    def stream(
        self, parent: StoredRun | None, progress: Progress, connections: LineWriter, findings: LineWriter
    ) -> None:
        """Write every gateway's connections and findings, in sorted order."""
        past_connections: Slices[Connection] = Slices(parent.connections() if parent else ())
        past_findings: Slices[Finding] = Slices(parent.findings() if parent else ())
        plan = self._plan(parent.manifest.coverage if parent else ())
        self.tally.coverage += plan.coverage
        progress.start(len(plan.steps))
        with closing(
            read_gateways(self.api, plan.steps, self.job.concurrency, permissions=self.permissions)
        ) as readings:
            for reading in readings:
                key = reading.gateway.key
                self._carry(past_findings, key, findings)
                past_connections.skip_to(key)
                rows, slice_, judged = self._assess(reading, past_connections.take(key), past_findings.take(key))
                connections.write(rows)
                findings.write(slice_.findings)
                self.tally.add(slice_)
                if entry := self._cover(judged, slice_):
                    self.tally.coverage.append(entry)
                progress.advance(judged)
        self._carry(past_findings, None, findings)
        past_connections.skip_to(None)

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

    def _carry(self, past: Slices[Finding], key: GatewayKey | None, findings: LineWriter) -> None:
        for rows in past.before(key):
            slice_ = carry(rows, self.run.now)
            findings.write(slice_.findings)
            self.tally.add(slice_)

    def _assess(
        self, reading: Reading, past_connections: list[Connection], past_findings: list[Finding]
    ) -> tuple[list[Connection], Slice, Reading]:
        """Judge one gateway: its connections to be written, its findings, and how far it was read after all."""
        gateway = reading.gateway
        before = {connection.key: connection for connection in past_connections}
        rows = observe(gateway, reading.connections, before, self.job.run_id)
        present = {connection.key for connection in rows}
        deleted: set[str] = set()
        if reading.is_whole and not reading.gone:
            reading, deleted = self._confirm(reading, vanished(past_findings, present))
        slice_ = reconcile(self.run, reading, present, deleted, self.judge.judge(reading, rows), past_findings)
        if not reading.is_whole:
            # What was known and not read again stays, so that an outage does not restart clocks.
            rows += [connection for key, connection in before.items() if key not in present]
            rows.sort(key=lambda connection: connection.key)
        return rows, slice_, reading

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
