"""The line that a run is: collect, evaluate, reconcile, publish, notify. Nothing else happens here.

Adapters are handed in; this module knows them by their ports only.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from audit import __version__
from audit.archive import (
    REPORT,
    TREND_RUNS,
    Archive,
    Link,
    Manifest,
    RuleUsed,
    RunScope,
    StoredRun,
    TrendPoint,
    folder_of,
    manifest_of,
    shard_of,
)
from audit.collect import Collector
from audit.errors import Overtaken, StoreError
from audit.evaluate import Judge
from audit.extent import Extent
from audit.line import Job, Line, Pages, Progress
from audit.model import NARROWED, Connection, Finding
from audit.objects import ObjectWriter, StoredObject
from audit.outcome import ManifestRef, Outcome, Summary, Tally
from audit.reconcile import Run
from audit.render.report import render_report
from audit.ruleset.parse import WAIVER_EXPIRED, Rule, fields_in
from audit.tell import Result, Telling, tell, tell_trouble
from audit.text import describe_defect
from audit.times import format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from audit.collect import Source
    from audit.store import Store

# How often a run that others overtake goes down the line again.
_MOST_TRIES = 5


class Ports(msgspec.Struct, frozen=True):
    """The adapters of a run. `warnings` are asked for once, after the reading; `clock` tells when the run ended.

    `new_run_id` names a run of this moment anew, for when its folder must not be touched again. `left`: the seconds
    that are left for the reading.
    """

    sources: Sequence[Source]
    archive: Archive
    telling: Telling
    clock: Callable[[], datetime]
    new_run_id: Callable[[], str]
    progress: Progress
    warnings: Callable[[], list[str]]
    left: Callable[[], float]


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
        tell_trouble(ports.telling, tally.run_id, format_time(job.now), defect, defect)
        raise
    tally.problems += ports.warnings()
    now = format_time(job.now)
    if trouble:
        tally.problems.append(str(trouble))
        # Of a run that was overtaken, the faster one tells what there is to tell.
        overtaken = isinstance(trouble, Overtaken)
        told = Result([], [])
        if not overtaken:
            told = tell_trouble(ports.telling, tally.run_id, now, trouble.short, str(trouble))
    else:
        standing = tally.stand(ports.archive.store, now, manifest.sha256 if manifest else "")
        told = tell(ports.telling, standing)
    tally.problems += [
        f"receiver {item.receiver}: {item.detail}" for item in told.deliveries if item.outcome == "failed"
    ]
    code, reason = tally.judge(job.fail_on, trouble.short if trouble else "")
    report = tally.report if manifest else None
    summary = Summary(
        tally.run_id, code, tally.counts, tally.coverage, manifest, report, told.deliveries, tally.problems
    )
    return Outcome(summary, reason, tally.worst, tuple(told.messages), tally.extent.targets)


def _read_and_record(job: Job, ports: Ports, tally: Tally) -> ManifestRef | None:
    """Read, evaluate and write every gateway, then commit; None for a dry run. Raises StoreError.

    Where another run was recorded meanwhile, what was read is judged again beside what that one left, and stored under
    a run id of its own: a folder is never written twice.
    """
    scope = _choose_rules(job)
    able = [rule for rule in scope.rules if rule.id not in scope.idle]
    waived = [(rule, w) for rule in able for w in job.rule_set.policy.waivers if w.rule == rule.id]
    reads = [rule.fields for rule in able] + [rule.full_names(fields_in(w.match)) for rule, w in waived]
    permissions = any("gateway.permissions" in fields for fields in reads)
    collector = Collector(ports.sources, job.concurrency, ports.left, permissions=permissions)
    with ExitStack() as stack:
        for tries in range(1, _MOST_TRIES + 1):
            parent, pages = ports.archive.latest(), Pages(stack)
            if parent and tries == 1 and format_time(job.now) < parent.manifest.now:
                tally.problems.append(
                    f"this machine's clock was set back: it says {format_time(job.now)}, the previous run's "
                    f"{parent.manifest.now}; ages and dates of this run are not to be trusted"
                )
            elif parent and tries > 1:
                tally.problems.append(f"run {parent.manifest.run_id} was recorded while this one was read")
            used = _pass_down(job, scope, parent, collector, ports.progress, pages, tally)
            if job.dry_run:
                return None
            folder, store = folder_of(job.run_id), ports.archive.store
            objects = pages.store_into(store, folder)
            manifest = _build_manifest(job, parent, tally, used, objects, format_time(ports.clock()))
            shards = [shard_of(name, run) for name, run in collector.runs.items()]
            manifest = msgspec.structs.replace(manifest, shards=shards)
            manifest = _store_report(job, manifest, pages, store, tally.problems)
            tally.report = manifest.report
            try:
                return ManifestRef(manifest_of(job.run_id), ports.archive.commit(manifest, parent))
            except Overtaken:
                if tries == _MOST_TRIES:
                    raise
                collector.rewind(pages.connections.lines(Connection), job.run_id)
                job = replace(job, run_id=ports.new_run_id())
                tally.restart(job.run_id)
    raise AssertionError("the loop returns or raises")


def _store_report(job: Job, manifest: Manifest, pages: Pages, store: Store, problems: list[str]) -> Manifest:
    """Store the page that tells what the manifest does, as one more object of it.

    A page that cannot be written costs no evidence: the run is recorded without it, and the defect is a problem.
    """
    policy, findings = job.rule_set.policy, pages.findings.lines(Finding)
    with ObjectWriter() as page:
        try:
            for part in render_report(manifest, findings, job.rule_set.rules, policy.waivers):
                page.append(part)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001  (whatever it is, readings and findings are worth more)
            problems.append(f"{REPORT} was not written: {describe_defect(error)}")
            return manifest
        stored = page.store_into(store, folder_of(job.run_id) + REPORT)
    return msgspec.structs.replace(manifest, objects=[*manifest.objects, stored])


def _pass_down(
    job: Job,
    scope: _Scope,
    parent: StoredRun | None,
    collector: Collector,
    progress: Progress,
    pages: Pages,
    tally: Tally,
) -> list[RuleUsed]:
    """Send every gateway down the line; returns what became of each rule."""
    policy, now = job.rule_set.policy, format_time(job.now)
    limits = _scope_of(job)
    tally.reach = Extent((), frozenset(scope.idle), scope.untouched, scope.narrowed, limits.limited, limits.names)
    line = Line(
        job=job,
        run=Run(
            run_id=job.run_id,
            now=now,
            selected=scope.selected,
            loaded=frozenset({WAIVER_EXPIRED, *(rule.id for rule in job.rule_set.rules)}),
            all_rules=not job.rule_ids,
            spanning=frozenset(rule.id for rule in job.rule_set.rules if rule.spans_gateways),
            waivers=frozenset((waiver.id, waiver.rule) for waiver in policy.waivers if waiver.expires > now),
        ),
        collector=collector,
        judge=Judge(scope.rules, policy, job.now, scope.idle),
        tally=tally,
        pages=pages,
    )
    line.stream(parent, progress)
    failed = {rule_id: f"it broke down on {where}" for rule_id, where in line.failed.items()}
    tally.reach = replace(tally.reach, idle=tally.reach.idle | failed.keys())
    tally.failed = frozenset(failed)
    why = {**line.unjudged, **dict.fromkeys(scope.narrowed, NARROWED), **scope.idle, **failed}
    chosen = (rule for rule in job.rule_set.rules if rule.id not in scope.untouched)
    used = [RuleUsed(rule.id, rule.sha256, why.get(rule.id, "")) for rule in chosen]
    tally.problems += [rule.problem for rule in used if rule.problem]
    return used


class _Scope(msgspec.Struct, frozen=True):
    """The rules of a run. By id, `idle`: why some of them cannot be evaluated as things are.

    `narrowed`: others, which would need more gateways than the run is limited to, are none of them.
    """

    rules: tuple[Rule, ...]
    idle: Mapping[str, str]
    narrowed: frozenset[str]
    selected: frozenset[str]
    untouched: frozenset[str]


def _choose_rules(job: Job) -> _Scope:
    """Choose the rules of a run: those asked for, and in each run those about changes.

    The next run compares with what this one reads, so that a change that is not judged now never will be.
    """
    rules, idle = [], {}
    wanted = {rule.id for rule in job.rule_set.select(job.rule_ids)}
    chosen = [rule for rule in job.rule_set.rules if rule.id in wanted or rule.each == "change"]
    narrowed = frozenset(rule.id for rule in chosen if job.gateways and rule.spans_gateways)
    for rule in chosen:
        if rule.id in narrowed:
            continue
        if empty := job.rule_set.empty_lists_of(rule):
            idle[rule.id] = f"not configured: list {', '.join(empty)} is empty in the policy"
        rules.append(rule)
    selected = frozenset(rule.id for rule in rules)
    untouched = frozenset(rule.id for rule in job.rule_set.rules) - {rule.id for rule in chosen}
    if not job.gateways and not job.rule_ids:
        selected |= {WAIVER_EXPIRED}
    return _Scope(tuple(rules), idle, narrowed, selected, untouched)


def _scope_of(job: Job) -> RunScope:
    return RunScope(sorted(job.gateways), sorted(job.rule_ids), list(job.targets))


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
        scope=_scope_of(job),
        rules=used,
        policy_sha256=job.rule_set.policy.sha256,
        coverage=tally.coverage,
        counts=counts,
        trend=[*(parent.manifest.trend if parent else ()), point][-TREND_RUNS:],
        objects=objects,
        parent=Link(parent.manifest.run_id, parent.sha256) if parent else None,
    )
