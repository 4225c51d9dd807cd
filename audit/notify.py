"""Decides what a receiver is told, and when: compares what it was last told with what is true now. Pure.

Silence means that nothing changed. What a receiver did not take stays due, because its record is written only after
its own success.
"""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec.structs import replace

from audit.extent import GAPS, Extent
from audit.model import SEVERITIES, Finding, Severity
from audit.text import count
from audit.times import parse_time

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from datetime import timedelta

    from audit.model import Coverage

MOST_FINDINGS = 20
_HAPPENINGS = ("new", "reopened", "more severe", "waiver ended", "resolved", "waived")
_MOST_RESOLVED = 5


class Told(msgspec.Struct, frozen=True):
    """`receivers/<name>.json`: what a receiver was last told, by which run, and the hash of its manifest.

    `findings`: severity of each open finding by uid. `waived`: uids. `events`: the mark of each change by uid, so that
    one which was not told stays due when it is over; None before anything was tried. `owed`: uids of changes in
    messages that were not taken, whatever became of these since. `not_covered`: gateways that were
    not read completely, `not_evaluated`: ids of rules. `trouble`: in short, why the last run could do nothing.
    `told_at` is None where nothing was ever told, `failure` says why the last message that was due was not taken.
    `url` is a hash of where the messages went; `gone`: it asked for no more of them.
    """

    receiver: str
    run_id: str = ""
    manifest_sha256: str = ""
    told_at: str | None = None
    delivery_id: str = ""
    findings: dict[str, Severity] = {}
    waived: list[str] = []
    events: dict[str, str] | None = None
    owed: list[str] = []
    not_covered: list[str] = []
    not_evaluated: list[str] = []
    trouble: str = ""
    failure: str = ""
    url: str = ""
    gone: bool = False


class Wishes(msgspec.Struct, frozen=True):
    """What a receiver wants to hear.

    `repeat_interval`: how long after a message it is reminded of open findings. `heartbeat`: how long after one it is
    told that there are none. Without them there is no such message.
    """

    min_severity: Severity = "low"
    repeat_interval: timedelta | None = None
    heartbeat: timedelta | None = None
    send_resolved: bool = True


NO_WISHES = Wishes()


class Event(NamedTuple):
    """A change that was found in this run (`is_open`) or is remembered; another one has another `mark`.

    `is_recent`: it is open, or was until this run.
    """

    severity: Severity
    mark: str
    is_open: bool
    is_recent: bool

    @classmethod
    def of(cls, finding: Finding, run_id: str) -> Event:
        mark = f"{finding.last_seen} {finding.occurrences}"
        return cls(finding.severity, mark, finding.is_open, finding.is_open or finding.run_id == run_id)


class Standing(msgspec.Struct, frozen=True):
    """What is true after a run, as far as receivers are concerned.

    `open` and `waived`: severity of every such finding by uid, but for changes: those are `events`. `reopened`: uids of
    those open that had been resolved. `worst`: the findings worth naming, worst first, those resolved now last;
    `past_events`: the newest changes. `manifest_location` says where the evidence is, `manifest_sha256` anchors it;
    both are empty for a dry run. `report_url`: where a person reads about it, "" for nowhere. `store` names the
    deployment: two that tell the same to one receiver are told apart by it.
    """

    store: str
    run_id: str
    now: str
    open: Mapping[str, Severity]
    waived: Mapping[str, Severity]
    events: Mapping[str, Event]
    reopened: AbstractSet[str]
    worst: Sequence[Finding]
    past_events: Sequence[Finding]
    extent: Extent
    problems: Sequence[str]
    manifest_location: str
    manifest_sha256: str
    report_url: str = ""


class Message(msgspec.Struct, frozen=True):
    """What one receiver is told; every kind of receiver says this in its own way.

    `findings` are the ones worth naming, `left_out` says how many more are open. `changes`: what happened since the
    last message. `delivery_id` stays the same when the same is told again. `standing` is None where the run could do
    nothing. `told_changes`: uids of the changes that it tells of.
    """

    delivery_id: str
    receiver: str
    run_id: str
    now: str
    headline: str
    changes: Mapping[str, int]
    open_by_severity: Mapping[Severity, int]
    findings: Sequence[Finding]
    left_out: int
    problems: Sequence[str]
    standing: Standing | None
    told_changes: Sequence[str] = ()


def decide(told: Told, standing: Standing, wishes: Wishes = NO_WISHES) -> tuple[Message | None, Told]:
    """Build the message that is due, None for silence, and the record to keep: once it was taken, or at once."""
    floor, extent = _rank(wishes.min_severity), standing.extent
    marks = {uid: event.mark for uid, event in standing.events.items()}
    record = replace(
        told,
        findings={uid: severity for uid, severity in standing.open.items() if _rank(severity) >= floor},
        waived=sorted(uid for uid, severity in standing.waived.items() if _rank(severity) >= floor),
        events=marks,
        not_covered=_not_covered(told, extent),
        not_evaluated=sorted(extent.idle | ((extent.untouched | extent.narrowed) & set(told.not_evaluated))),
    )
    known = told.events or {}
    fresh = {uid for uid, e in standing.events.items() if _rank(e.severity) >= floor and e.mark != known.get(uid)}
    fresh |= set(told.owed)
    changes = _changes(told, record, standing) | {"changes": len(fresh)}
    news = {what: number for what, number in changes.items() if wishes.send_resolved or what != "resolved"}
    reminder = _reminder(told, record, standing, wishes)
    if told.told_at is not None and not any(news.values()) and not reminder:
        # What was resolved without a word would otherwise not be new when it comes back.
        return None, replace(told, findings=record.findings) if changes["resolved"] else told
    record = replace(
        record,
        run_id=standing.run_id,
        manifest_sha256=standing.manifest_sha256,
        told_at=standing.now,
        trouble="",
        failure="",
        owed=[],
        delivery_id=_delivery_id(standing.store, told, record, sorted(marks.get(uid, "") + uid for uid in fresh)),
    )
    message = _build(record, standing, changes, floor, fresh, set(record.waived) - set(told.waived))
    if reminder and not any(news.values()):
        message = replace(message, headline=f"{reminder}: {message.headline}")
    return message, record


def _reminder(told: Told, record: Told, standing: Standing, wishes: Wishes) -> str:
    """Say what kind of message is due though nothing changed; "" for none."""
    wait = wishes.repeat_interval if record.findings else wishes.heartbeat
    if told.told_at is None or wait is None or parse_time(standing.now) - parse_time(told.told_at) < wait:
        return ""
    return "reminder" if record.findings else "still at work"


def begin(told: Told, standing: Standing) -> Told:
    """Take changes that were over before a receiver was first tried as told.

    Not those of the run before: it may have ended between its commit and its messages.
    """
    if told.events is not None:
        return told
    over = {uid: event.mark for uid, event in standing.events.items() if not event.is_recent}
    return replace(told, events=over)


def trouble_message(
    store: str, told: Told, run_id: str, now: str, kind: str, trouble: str
) -> tuple[Message, Told] | None:
    """Build the message of a run that could do nothing, and the record to keep; None where that was said already.

    `kind` is what stays the same from run to run as long as the trouble does.
    """
    if told.trouble == kind:
        return None
    record = replace(told, trouble=kind, told_at=now)
    record = replace(record, delivery_id=_delivery_id(store, told, record))
    headline = f"audit failed: {trouble}"
    message = Message(record.delivery_id, told.receiver, run_id, now, headline, {}, {}, (), 0, (trouble,), None)
    return message, record


def _not_covered(told: Told, extent: Extent) -> list[str]:
    """Name what was not read completely; what was out of this run's scope stays as it was told.

    A run limited by rule asks for less, so that it cannot tell whether a gap is closed.
    """
    missing = {_name(entry) for entry in extent.coverage if entry.state in GAPS}
    untouched = {_name(entry) for entry in extent.coverage if extent.untouched or entry.state == "out_of_scope"}
    return sorted(missing | (untouched & set(told.not_covered)))


def _name(entry: Coverage) -> str:
    """Name a gateway over runs, whatever it is called: region, project and id."""
    return "/".join((entry.region, entry.project_id, entry.gateway_id or "*"))


def _changes(told: Told, record: Told, standing: Standing) -> dict[str, int]:
    before, after, excused = told.findings, record.findings, set(told.waived)
    unknown = after.keys() - before.keys() - excused
    return {
        "working again": int(bool(told.trouble)),
        "new": len(unknown - standing.reopened),
        "reopened": len(unknown & standing.reopened),
        "waiver ended": len(after.keys() & excused),
        "more severe": sum(_rank(after[uid]) > _rank(before[uid]) for uid in after.keys() & before.keys()),
        # Held against all that is open: what became less severe than this receiver hears of is not resolved.
        "resolved": len(before.keys() - standing.open.keys() - standing.waived.keys()),
        "waived": len(set(record.waived) - excused),
        "gaps opened": len(set(record.not_covered) - set(told.not_covered)),
        "gaps closed": len(set(told.not_covered) - set(record.not_covered)),
        "rules lost": len(set(record.not_evaluated) - set(told.not_evaluated)),
        "rules regained": len(set(told.not_evaluated) - set(record.not_evaluated)),
    }


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity)


def _delivery_id(store: str, told: Told, record: Told, events: Sequence[str] = ()) -> str:
    """Name what is told, after what was told before: repeated by a retry or a rerun, by nothing that comes later."""
    news = [sorted(record.findings.items()), record.waived, events]
    news += [record.not_covered, record.not_evaluated, record.trouble]
    resolved = sorted(told.findings.keys() - record.findings.keys())
    return sha256(msgspec.json.encode([store, told.receiver, told.delivery_id, resolved, *news])).hexdigest()[:32]


def _build(
    record: Told,
    standing: Standing,
    changes: Mapping[str, int],
    floor: int,
    fresh: Collection[str],
    waived: Collection[str],
) -> Message:
    """Build the message. `fresh` and `waived`: uids of changes and of waived findings that were not told yet."""
    counts = Counter(record.findings.values())
    by_severity = {severity: counts[severity] for severity in reversed(SEVERITIES) if counts[severity]}
    events = [finding for finding in standing.past_events if finding.uid in fresh][: MOST_FINDINGS // 2]
    states = [f for f in standing.worst if _rank(f.severity) >= floor and f.uid not in standing.events]
    over = [f for f in states if f.status == "resolved" or f.uid in waived][:_MOST_RESOLVED]
    named = [f for f in states if f.is_open][: MOST_FINDINGS - len(over) - len(events)]
    return Message(
        delivery_id=record.delivery_id,
        receiver=record.receiver,
        run_id=standing.run_id,
        now=standing.now,
        headline=_headline(changes, by_severity, standing, SEVERITIES[floor]),
        changes=changes,
        open_by_severity=by_severity,
        findings=[*events, *named, *over],
        left_out=counts.total() + len(fresh) - len(named) - len(events),
        problems=standing.problems,
        standing=standing,
        told_changes=sorted(fresh),
    )


def _headline(changes: Mapping[str, int], by_severity: Mapping[Severity, int], standing: Standing, floor: str) -> str:
    """Say it in a line: what happened, what is open, what was not covered."""
    happened = ["working again"] * changes["working again"]
    happened += [f"{changes[what]} {what}" for what in _HAPPENINGS if changes[what]]
    happened += [count(changes["changes"], "change")] * bool(changes["changes"])
    if by_severity:
        counts = ", ".join(f"{count} {severity}" for severity, count in by_severity.items())
        state = f"{sum(by_severity.values())} open ({counts})"
    else:
        others = standing.open or (not changes["changes"] and any(event.is_open for event in standing.events.values()))
        state = "nothing else open" if changes["changes"] else standing.extent.nothing_open
        state = f"nothing open at or above {floor}" if others else state
    return "; ".join(filter(None, [", ".join(happened), state, *standing.extent.shortfalls, *standing.extent.limits]))


def build_payload(message: Message) -> dict[str, Any]:
    """Lay the message out as plain JSON data but for its findings, for the kinds that send data rather than text."""
    standing = message.standing
    coverage = standing.extent.coverage if standing else ()
    states = Counter(entry.state for entry in coverage if entry.gateway_id is not None)
    return {
        "headline": message.headline,
        "run_id": message.run_id,
        "changes": dict(message.changes),
        "open_by_severity": dict(message.open_by_severity),
        "gateways": dict(states),
        "findings": list(message.findings),
        "findings_left_out": message.left_out,
        "not_covered": [msgspec.to_builtins(entry) for entry in coverage if entry.state in GAPS],
        "rules_not_evaluated": sorted(standing.extent.idle) if standing else [],
        "manifest": {
            "location": standing.manifest_location if standing else "",
            "sha256": standing.manifest_sha256 if standing else "",
        },
        "report": standing.report_url if standing else "",
        "problems": list(message.problems),
    }
