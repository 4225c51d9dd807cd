"""Holds past readings against other rules: what would these have found then? Touches no API, no receiver, no run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from audit.evaluate import Judge
from audit.model import Connection, Coverage, Finding, GatewayKey, Reading
from audit.objects import Slices
from audit.ruleset.parse import WAIVER_EXPIRED
from audit.times import parse_time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from audit.archive import StoredRun
    from audit.evaluate import Hit, Verdict
    from audit.ruleset.load import RuleSet


class Replayed(msgspec.Struct, frozen=True):
    """One run, judged again. `then` counts what it found and no waiver excused, `now` what these rules find so.

    `added` and `missing` are the difference. `unread`: how many gateways the run did not read
    completely. `not_evaluated`: why rules could not be evaluated somewhere else, by id.
    """

    run: StoredRun
    then: int
    now: int
    added: list[Hit]
    missing: list[Finding]
    unread: int
    not_evaluated: dict[str, str] = msgspec.field(default_factory=dict)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield each difference as plain data: `difference` is "added" or "missing"."""
        names = ("uid", "gateway", "connection", "group")
        for hit in self.added:
            told = {"rule_id": hit.rule.id, "severity": hit.rule.severity, "message": hit.explanation.message}
            yield self._line("added", {**told, **{name: getattr(hit, name) for name in names}})
        for finding in self.missing:
            told = {"rule_id": finding.rule_id, "severity": finding.severity, "message": finding.message}
            yield self._line("missing", {**told, **{name: getattr(finding, name) for name in names}})

    def _line(self, difference: str, told: dict[str, Any]) -> dict[str, Any]:
        return {"run_id": self.run.manifest.run_id, "difference": difference, **told}

    def summary(self) -> dict[str, Any]:
        """The counts of this run, and its differences, as plain data."""
        counts = {"then": self.then, "now": self.now, "added": len(self.added), "missing": len(self.missing)}
        run = self.run.manifest
        return {
            "run_id": run.run_id, "time": run.now, **counts, "unread": self.unread, "not_evaluated": self.not_evaluated,
            "differences": list(self.lines()),
        }  # fmt: skip


def replay(run: StoredRun, before: StoredRun | None, rule_set: RuleSet) -> Replayed:
    """Judge a run's reading by these rules and this policy, at that run's time; `before` is the run it followed.

    Raises StateError where what is stored of either is unreadable.
    """
    empty = {rule.id: rule_set.empty_lists_of(rule) for rule in rule_set.rules}
    idle = {rule_id: f"not configured: list {', '.join(names)} is empty" for rule_id, names in empty.items() if names}
    scope = run.manifest.scope
    judged = {used.id for used in run.manifest.rules}
    for rule in rule_set.rules:
        if scope.rules and rule.id not in judged:
            idle[rule.id] = "the run was limited to other rules"
        elif scope.gateways and rule.spans_gateways:
            idle[rule.id] = "the run was limited to some gateways"
    rules = [rule for rule in rule_set.rules if rule.id not in idle]
    judge = Judge(rules, rule_set.policy, parse_time(run.manifest.now))
    hits: dict[str, Hit] = {}

    def add(verdict: Verdict) -> None:
        hits.update({uid: hit for uid, hit in verdict.hits.items() if not hit.waiver})
        for rule_id, why in {**verdict.unable, **verdict.failed}.items():
            idle.setdefault(rule_id, why)

    unread = 0
    for reading, rows, earlier in _scenes(run, before):
        verdict = judge.judge(reading, rows, earlier)
        if reading.state in {"complete", "partial"}:
            add(verdict)
        unread += reading.state in {"partial", "not_covered"}
    is_whole = not scope.gateways and all(entry.gateway_id for entry in run.manifest.coverage)
    add(judge.judge_groups(is_whole=is_whole))
    found = {finding.uid: finding for finding in run.findings() if _was_found(finding, run)}
    added = sorted((hit for uid, hit in hits.items() if uid not in found), key=lambda hit: (hit.rule.id, hit.uid))
    missing = [finding for uid, finding in found.items() if uid not in hits]
    return Replayed(run, len(found), len(hits), added, missing, unread, idle)


def _was_found(finding: Finding, run: StoredRun) -> bool:
    """Whether a run itself found it, open; what is about the policy of that time has no like in another one."""
    of_rules = finding.rule_id != WAIVER_EXPIRED
    return of_rules and finding.status in {"new", "ongoing", "reopened"} and finding.run_id == run.manifest.run_id


def _scenes(
    run: StoredRun, before: StoredRun | None
) -> Iterator[tuple[Reading, list[Connection], dict[str, Connection] | None]]:
    """Yield each gateway as it was read, its connections, and those of its last complete reading before."""
    past_coverage = before.manifest.coverage if before else ()
    known = {(e.region, e.project_id, e.gateway_id) for e in past_coverage if e.complete_in}
    rows, past_rows = Slices(run.connections()), Slices(before.connections() if before else ())
    gateways = {gateway.key: gateway for gateway in run.gateways()}
    for entry in sorted((e for e in run.manifest.coverage if e.gateway_id), key=_key):
        key = _key(entry)
        rows.skip_to(key)
        past_rows.skip_to(key)
        read = [row for row in rows.take(key) if row.read_in == run.manifest.run_id]
        earlier = {row.key: row for row in past_rows.take(key)}
        reading = replace(run.recall(entry, gateways.get(key)), connections=tuple(row.record for row in read))
        yield reading, read, earlier if key in known else None
    # Only a reading to the end proves the hash of a file.
    rows.skip_to(None)
    past_rows.skip_to(None)


def _key(entry: Coverage) -> GatewayKey:
    return GatewayKey(entry.region, entry.project_id, entry.gateway_id or "")
