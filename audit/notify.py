"""Decides what a receiver is told, and when: compares what it was last told with what is true now. Pure.

Silence means that nothing changed. What a receiver did not take stays due, because its record is written only after
its own success.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import msgspec

from audit.model import SEVERITIES, Coverage, Finding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_FINDINGS = 20
_MOST_RESOLVED = 5


class Told(msgspec.Struct, frozen=True):
    """`receivers/<name>.json`: what a receiver was last told.

    `findings`: severity of each open finding by uid. `not_covered`: names of gateways that were not read completely.
    `gone_url` is the hash of a URL that asked for no more messages, `told_at` None where nothing was ever told,
    `failure` why the last message that was due was not taken.
    """

    receiver: str
    run_id: str = ""
    told_at: str | None = None
    delivery_id: str = ""
    findings: dict[str, str] = {}
    not_covered: list[str] = []
    gone_url: str | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Standing:
    """What is true after a run, as far as receivers are concerned.

    `open`: severity of every open finding by uid. `worst`: the findings worth naming, worst first, those resolved
    now last. `coverage` is whole; `rules_idle` counts the rules that could not be evaluated. `manifest_location` says
    where the evidence is, `manifest_sha256` anchors it; both are empty for a dry run.
    """

    run_id: str
    now: str
    open: Mapping[str, str]
    worst: Sequence[Finding]
    coverage: Sequence[Coverage]
    rules_idle: int
    problems: Sequence[str]
    manifest_location: str
    manifest_sha256: str


@dataclass(frozen=True)
class Message:
    """What one receiver is told; every kind of receiver says this in its own way.

    `findings` are the ones worth naming, `left_out` says how many more are open. `counts`: what happened since the
    last message and what is open by severity. `delivery_id` stays the same when the same is told again.
    """

    delivery_id: str
    receiver: str
    headline: str
    run_id: str
    now: str
    changes: Mapping[str, int]
    open_by_severity: Mapping[str, int]
    findings: Sequence[Finding]
    left_out: int
    coverage: Sequence[Coverage]
    not_covered: Sequence[str]
    manifest_location: str
    manifest_sha256: str
    problems: Sequence[str]

    @property
    def severity(self) -> str:
        """The worst open severity, "info" where nothing is open."""
        return max(self.open_by_severity, key=SEVERITIES.index, default="info")


def decide(told: Told, standing: Standing, min_severity: str = "low") -> tuple[Message, Told] | None:
    """Build the message that is due and the record to keep once it was taken; None for silence."""
    floor = SEVERITIES.index(min_severity)
    now_open = {uid: severity for uid, severity in standing.open.items() if SEVERITIES.index(severity) >= floor}
    missing = _not_covered(told, standing.coverage)
    changes = _changes(told, now_open, missing)
    if told.told_at is not None and not any(changes.values()):
        return None
    record = Told(
        receiver=told.receiver,
        run_id=standing.run_id,
        told_at=standing.now,
        delivery_id=_delivery_id(told, now_open, missing),
        findings=now_open,
        not_covered=missing,
    )
    return _build(record, standing, changes, floor), record


def describe_changes(changes: Mapping[str, int]) -> str:
    """Say what happened since the last message: "2 new, 1 resolved"."""
    return ", ".join(f"{count} {what}" for what, count in changes.items() if count)


def plain_message(receiver: str, run_id: str, now: str, text: str) -> Message:
    """Build the message of a run that could not do its work at all; it repeats until the trouble is over."""
    delivery_id = sha256(msgspec.json.encode([receiver, "trouble", text])).hexdigest()[:32]
    return Message(
        delivery_id, receiver, f"audit failed: {text}", run_id, now, {}, {}, (), 0, (), (), "", "", (text,)
    )  # fmt: skip


def _not_covered(told: Told, coverage: Sequence[Coverage]) -> list[str]:
    """Name what was not read completely; what was out of this run's scope stays as it was told."""
    missing = {_name(entry) for entry in coverage if entry.state in {"partial", "not_covered"}}
    untouched = {_name(entry) for entry in coverage if entry.state == "out_of_scope"}
    return sorted(missing | (untouched & set(told.not_covered)))


def _name(entry: Coverage) -> str:
    """Name a gateway over runs, whatever it is called: region, project and id."""
    return "/".join((entry.region, entry.project_id, entry.gateway_id or "*"))


def _changes(told: Told, now_open: Mapping[str, str], missing: Sequence[str]) -> dict[str, int]:
    before = told.findings
    worse = [
        uid
        for uid, severity in now_open.items()
        if uid in before and SEVERITIES.index(severity) > SEVERITIES.index(before[uid])
    ]
    return {
        "new": len(now_open.keys() - before.keys()),
        "more severe": len(worse),
        "resolved": len(before.keys() - now_open.keys()),
        "gateways lost": len(set(missing) - set(told.not_covered)),
        "gateways regained": len(set(told.not_covered) - set(missing)),
    }


def _delivery_id(told: Told, now_open: Mapping[str, str], missing: Sequence[str]) -> str:
    """Name what is told, after what was told before: repeated by a retry or a rerun, by nothing that comes later."""
    resolved = sorted(told.findings.keys() - now_open.keys())
    parts = [told.receiver, told.delivery_id, sorted(now_open.items()), resolved, missing]
    return sha256(msgspec.json.encode(parts)).hexdigest()[:32]


def _build(record: Told, standing: Standing, changes: Mapping[str, int], floor: int) -> Message:
    by_severity = {
        severity: count
        for severity in reversed(SEVERITIES)
        if (count := sum(1 for known in record.findings.values() if known == severity))
    }
    worth_naming = [finding for finding in standing.worst if SEVERITIES.index(finding.severity) >= floor]
    resolved = [finding for finding in worth_naming if not finding.is_open][:_MOST_RESOLVED]
    named = [finding for finding in worth_naming if finding.is_open][: MOST_FINDINGS - len(resolved)]
    return Message(
        delivery_id=record.delivery_id,
        receiver=record.receiver,
        headline=_headline(changes, by_severity, len(record.not_covered), standing.rules_idle),
        run_id=standing.run_id,
        now=standing.now,
        changes=changes,
        open_by_severity=by_severity,
        findings=[*named, *resolved],
        left_out=sum(by_severity.values()) - len(named),
        coverage=standing.coverage,
        not_covered=record.not_covered,
        manifest_location=standing.manifest_location,
        manifest_sha256=standing.manifest_sha256,
        problems=standing.problems,
    )


def _headline(changes: Mapping[str, int], by_severity: Mapping[str, int], gaps: int, rules_idle: int) -> str:
    """Say it in a line; "clean" only where everything was read and every rule evaluated."""
    happened = describe_changes({what: count for what, count in changes.items() if not what.startswith("gateways")})
    parts = [happened] if happened else []
    if by_severity:
        counts = ", ".join(f"{count} {severity}" for severity, count in by_severity.items())
        parts.append(f"{sum(by_severity.values())} open ({counts})")
    else:
        parts.append("nothing open in what could be judged" if gaps or rules_idle else "clean")
    if gaps:
        parts.append(f"{gaps} {'gateway' if gaps == 1 else 'gateways'} not fully covered")
    if rules_idle:
        parts.append(f"{rules_idle} {'rule' if rules_idle == 1 else 'rules'} not evaluated")
    return "; ".join(parts)


def build_payload(message: Message, finding_limit: int = MOST_FINDINGS) -> dict[str, Any]:
    """Lay the message out as plain JSON data, shared by the kinds that send data rather than text."""
    findings = message.findings[:finding_limit]
    dropped = sum(1 for finding in message.findings[finding_limit:] if finding.is_open)
    gaps = [entry for entry in message.coverage if entry.state in {"partial", "not_covered"}]
    return {
        "headline": message.headline,
        "run_id": message.run_id,
        "changes": dict(message.changes),
        "open_by_severity": dict(message.open_by_severity),
        "findings": [msgspec.to_builtins(finding) for finding in findings],
        "findings_left_out": message.left_out + dropped,
        "not_covered": [msgspec.to_builtins(entry) for entry in gaps],
        "manifest": {"location": message.manifest_location, "sha256": message.manifest_sha256},
        "problems": list(message.problems),
    }
