"""The life of findings: merges what is found now with what was known, one gateway at a time. Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from audit.evaluate import Verdict
from audit.model import NAMELESS, Finding, FindingStatus, Gateway, Reading, Resolution
from audit.ruleset.parse import WAIVER_EXPIRED
from audit.times import format_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from audit.evaluate import Hit

REMEMBERED = timedelta(days=90)


class Run(msgspec.Struct, frozen=True):
    """What reconciling needs to know of the run: rules by id, those `selected` (in scope) and those `loaded`.

    `spanning`: those loaded about groups that span gateways. `waivers` in force, by id and rule.
    """

    run_id: str
    now: str
    selected: frozenset[str]
    loaded: frozenset[str]
    all_rules: bool
    spanning: frozenset[str] = frozenset()
    waivers: frozenset[tuple[str, str]] = frozenset()

    def covers(self, rule_id: str) -> bool:
        """Whether a rule is in this run's scope; a rule that is no longer loaded is, where the run has all rules."""
        return rule_id in self.selected or (self.all_rules and rule_id not in self.loaded)

    def still_waives(self, finding: Finding) -> bool:
        """Whether what excuses a finding is still in force."""
        waiver = finding.waiver or {}
        return finding.status == "waived" and (waiver.get("id"), finding.rule_id) in self.waivers


class Slice(msgspec.Struct, frozen=True):
    """Findings of one gateway, or of what spans gateways, after this run.

    `carried` counts those of `findings` that were out of scope.
    """

    findings: tuple[Finding, ...]
    carried: frozenset[str] = frozenset()


# Says why a finding that was not found again is over, None where that is not known, or that the run is not about it.
Resolve: TypeAlias = "Callable[[Finding], Resolution | Literal['out_of_scope'] | None]"


def vanished(previous: Iterable[Finding], present: Collection[str]) -> list[str]:
    """Name the connections with unresolved findings that are not in the reading any more and can be asked for by id."""
    unresolved = (f for f in previous if f.subject == "connection" and f.status != "resolved")
    names = {finding.connection for finding in unresolved if finding.connection is not None}
    return sorted(name for name in names - set(present) if not name.startswith(NAMELESS))


def reconcile(run: Run, hits: Mapping[str, Hit], previous: Sequence[Finding], resolve: Resolve) -> Slice:
    """Merge hits with the previous findings about the same gateway, or about no single one."""
    # What was resolved before that would be new if it came back.
    limit = format_time(parse_time(run.now) - REMEMBERED)
    remembered = [finding for finding in previous if finding.resolved_at is None or finding.resolved_at >= limit]
    known = {finding.uid: finding for finding in remembered}
    findings = [_found(run, hit, known.get(hit.uid)) for hit in hits.values()]
    carried = set()
    for finding in remembered:
        if finding.uid in hits:
            continue
        fate = resolve(finding)
        if fate == "out_of_scope":
            carried.add(finding.uid)
            findings.append(finding)
        elif finding.status == "resolved" or (fate is None and run.still_waives(finding)):
            findings.append(finding)
        elif fate is None:
            findings.append(replace(finding, status="unverified", waiver=None))
        else:
            findings.append(
                replace(finding, status="resolved", resolution=fate, resolved_at=run.now, run_id=run.run_id)
            )
    findings.sort(key=lambda finding: (finding.rule_id, finding.connection or "", finding.uid))
    return Slice(tuple(findings), frozenset(carried))


def resolve_in_gateway(
    run: Run, reading: Reading, present: Collection[str], deleted: Collection[str], verdict: Verdict
) -> Resolve:
    """Say what absence means in one gateway: it resolves a finding only where the gateway was read completely.

    `present`: keys of the connections that were read; `deleted`: those of vanished connections that a query by id
    proved gone. A rule that was not evaluated says neither yes nor no.
    """

    def resolve(finding: Finding) -> Resolution | Literal["out_of_scope"] | None:
        if not run.covers(finding.rule_id):
            return "out_of_scope"
        if finding.subject == "change":
            return "event_over"  # it happened and was told, whether or not the gateway could be read again
        about = finding.connection
        if reading.gone or (reading.is_whole and about in deleted):
            return "resource_deleted"
        if not reading.is_whole:
            return None
        if finding.rule_id not in run.loaded or finding.rule_id in verdict.disabled:
            return "rule_removed"
        is_there = about is None or about in present or about.startswith(NAMELESS)
        return "fixed" if is_there and finding.rule_id in verdict.evaluated else None

    return resolve


def resolve_in_estate(run: Run, verdict: Verdict, unsure: Collection[str], *, limited: bool) -> Resolve:
    """Say what absence means for what spans gateways.

    `unsure`: ids of expired waivers that may still be needed. `limited`: the run is about some gateways only.
    """

    def resolve(finding: Finding) -> Resolution | Literal["out_of_scope"] | None:
        if finding.rule_id == WAIVER_EXPIRED and finding.actual["id"] not in unsure:
            return "fixed"
        if limited or not run.covers(finding.rule_id):
            return "out_of_scope"
        if finding.rule_id == WAIVER_EXPIRED:
            return None
        if finding.rule_id not in run.spanning:
            return "rule_removed"
        return "fixed" if finding.rule_id in verdict.evaluated else None

    return resolve


def keep(_finding: Finding) -> Literal["out_of_scope"]:
    """Resolve nothing of a gateway that is out of this run's scope."""
    return "out_of_scope"


def carry(run: Run, previous: Sequence[Finding]) -> Slice:
    """Keep the findings of a gateway that nobody knows any more; all that is remembered of it is resolved."""
    unknown = Reading(Gateway("", "", "", ""), "not_covered")
    return reconcile(run, {}, previous, resolve_in_gateway(run, unknown, (), (), Verdict({}, frozenset())))


def _found(run: Run, hit: Hit, before: Finding | None) -> Finding:
    status: FindingStatus = "new" if before is None else "reopened" if before.status == "resolved" else "ongoing"
    return Finding(
        uid=hit.uid,
        rule_id=hit.rule.id,
        title=hit.rule.title,
        severity=hit.rule.severity,
        status="waived" if hit.waiver else status,
        resolution=None,
        subject=hit.rule.each,
        gateway=hit.gateway,
        connection=hit.connection,
        group=hit.group,
        message=hit.explanation.message,
        expected=hit.explanation.expected,
        actual=hit.explanation.actual,
        remediation=hit.rule.remediation,
        controls=dict(hit.rule.controls),
        waiver=hit.waiver.note if hit.waiver else None,
        first_seen=before.first_seen if before else run.now,
        last_seen=run.now,
        resolved_at=None,
        occurrences=before.occurrences + 1 if before else 1,
        run_id=run.run_id,
    )
