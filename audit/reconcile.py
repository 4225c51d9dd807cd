"""The life of findings: merges what is found now with what was known, one gateway at a time. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from msgspec.structs import replace

from audit.model import NAMELESS, Finding, GatewayRef, Reading, Resolution
from audit.times import format_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from audit.evaluate import Hit, Verdict

REMEMBERED = timedelta(days=90)


@dataclass(frozen=True)
class Run:
    """What reconciling needs to know of the run: rules by id, those `selected` (in scope) and those `loaded`."""

    run_id: str
    now: str
    selected: frozenset[str]
    loaded: frozenset[str]
    all_rules: bool

    def covers(self, rule_id: str) -> bool:
        """Whether a rule is in this run's scope; a rule that is no longer loaded is, where the run has all rules."""
        return rule_id in self.selected or (self.all_rules and rule_id not in self.loaded)


@dataclass(frozen=True)
class Slice:
    """One gateway's findings after this run. `carried` counts those of `findings` that were out of scope."""

    findings: tuple[Finding, ...]
    carried: frozenset[str] = frozenset()


def vanished(previous: Iterable[Finding], present: Collection[str]) -> list[str]:
    """Name the connections with open findings that are not in the reading any more and can be asked for by id."""
    names = {finding.connection for finding in previous if finding.is_open and finding.connection is not None}
    return sorted(name for name in names - set(present) if not name.startswith(NAMELESS))


def reconcile(
    run: Run,
    reading: Reading,
    present: Collection[str],
    deleted: Collection[str],
    verdict: Verdict,
    previous: Sequence[Finding],
) -> Slice:
    """Merge one gateway's hits with its previous findings. A rule that was not evaluated says neither yes nor no.

    `present`: keys of the connections that were read; `deleted`: those of vanished connections that a query by id
    proved gone. Absence resolves a finding only where the gateway was read completely.
    """
    if reading.state == "out_of_scope":
        kept = _remembered(previous, run.now)
        return Slice(tuple(kept), frozenset(finding.uid for finding in kept))
    remembered = _remembered(previous, run.now)
    known = {finding.uid: finding for finding in remembered}
    findings = [_found(run, reading, hit, known.get(hit.uid)) for hit in verdict.hits.values()]
    carried = set()
    for finding in remembered:
        if finding.uid in verdict.hits:
            continue
        if not run.covers(finding.rule_id):
            carried.add(finding.uid)
            findings.append(finding)
        elif finding.status == "resolved":
            findings.append(finding)
        else:
            resolution = _resolve(run, reading, finding, present, deleted, verdict.evaluated)
            findings.append(_not_found(run, finding, resolution))
    findings.sort(key=lambda finding: (finding.rule_id, finding.connection or "", finding.uid))
    return Slice(tuple(findings), frozenset(carried))


def carry(previous: Sequence[Finding], now: str) -> Slice:
    """Keep the findings of a gateway that nobody knows any more; all that is remembered of it is resolved."""
    kept = [replace(f, status="unverified") if f.is_open else f for f in _remembered(previous, now)]
    return Slice(tuple(kept))


def _remembered(previous: Iterable[Finding], now: str) -> list[Finding]:
    """Drop what was resolved so long ago that it would be new if it came back."""
    limit = format_time(parse_time(now) - REMEMBERED)
    return [finding for finding in previous if finding.resolved_at is None or finding.resolved_at >= limit]


def _found(run: Run, reading: Reading, hit: Hit, before: Finding | None) -> Finding:
    gateway = reading.gateway
    status = "new" if before is None else "reopened" if before.status == "resolved" else "ongoing"
    return Finding(
        uid=hit.uid,
        rule_id=hit.rule.id,
        title=hit.rule.title,
        severity=hit.rule.severity,
        status=status,  # type: ignore[arg-type]
        resolution=None,
        subject="gateway" if hit.connection is None else "connection",
        gateway=GatewayRef(gateway.id, gateway.name, gateway.region, gateway.project_id),
        connection=hit.connection,
        group=None,
        message=hit.explanation.message,
        expected=hit.explanation.expected,
        actual=hit.explanation.actual,
        remediation=hit.rule.remediation,
        controls=dict(hit.rule.controls),
        waiver=None,
        first_seen=before.first_seen if before else run.now,
        last_seen=run.now,
        resolved_at=None,
        occurrences=before.occurrences + 1 if before else 1,
        run_id=run.run_id,
    )


def _resolve(
    run: Run,
    reading: Reading,
    finding: Finding,
    present: Collection[str],
    deleted: Collection[str],
    evaluated: Collection[str],
) -> Resolution | None:
    """Say why an open finding that was not found again is over; None where that is not known."""
    if reading.gone:
        return "resource_deleted"
    if not reading.is_whole:
        return None
    if finding.rule_id not in run.loaded:
        return "rule_removed"
    about = finding.connection
    if about in deleted:
        return "resource_deleted"
    is_there = about is None or about in present or about.startswith(NAMELESS)
    return "fixed" if is_there and finding.rule_id in evaluated else None


def _not_found(run: Run, finding: Finding, resolution: Resolution | None) -> Finding:
    if resolution is None:
        return replace(finding, status="unverified")
    return replace(finding, status="resolved", resolution=resolution, resolved_at=run.now, run_id=run.run_id)
