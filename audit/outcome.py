"""What a run came to: counts as findings pass by, the summary that every front door returns, the exit code."""

from __future__ import annotations

import heapq
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from audit.archive import Counts, manifest_of, report_link
from audit.extent import Extent
from audit.model import SEVERITIES, STATUSES, Coverage, Finding, Severity
from audit.notify import Event, Standing

if TYPE_CHECKING:
    from audit.model import TargetNames
    from audit.notify import Message
    from audit.reconcile import Slice
    from audit.store import Store

NEVER = "never"
_MOST_NAMED = 50
_Weighed: TypeAlias = "tuple[tuple[Any, ...], Finding]"


class Delivery(msgspec.Struct, frozen=True):
    """What became of one receiver's message."""

    receiver: str
    outcome: Literal["delivered", "nothing to tell", "failed", "not sent"]
    detail: str = ""


class ManifestRef(msgspec.Struct, frozen=True):
    """Where the evidence of a run is: `key` in the store, `sha256` of its bytes."""

    key: str
    sha256: str


class Summary(msgspec.Struct, frozen=True):
    """The result of a run, as the handler returns it and `--format json` prints it.

    `manifest` is None where nothing was recorded; `report` is the key of the run's page, None without one.
    """

    run_id: str
    exit_code: int
    counts: Counts
    coverage: list[Coverage]
    manifest: ManifestRef | None
    report: str | None
    deliveries: list[Delivery]
    problems: list[str]


class Outcome(msgspec.Struct, frozen=True):
    """A finished run: its summary, why it ended so, the findings worth naming, and the messages that were due."""

    summary: Summary
    reason: str
    worst: tuple[Finding, ...]
    messages: tuple[Message, ...]
    targets: TargetNames = {}


class Tally(msgspec.Struct):
    """Counts what passes by. Findings are not kept, but for the worst of them and the uid of each open one.

    `failed`: ids of rules that broke down. `report`: the key of the run's page, None where there is none.
    """

    run_id: str
    by_status: Counter[str] = msgspec.field(default_factory=Counter)
    by_severity: Counter[str] = msgspec.field(default_factory=Counter)
    carried: int = 0
    failed: frozenset[str] = frozenset()
    waived: dict[str, Severity] = msgspec.field(default_factory=dict)
    events: dict[str, Event] = msgspec.field(default_factory=dict)
    reopened: set[str] = msgspec.field(default_factory=set)
    open: dict[str, Severity] = msgspec.field(default_factory=dict)
    coverage: list[Coverage] = msgspec.field(default_factory=list)
    problems: list[str] = msgspec.field(default_factory=list)
    # How far the run reached, but for the coverage, which is still growing.
    reach: Extent = msgspec.field(default_factory=lambda: Extent(()))
    report: str | None = None
    _worst: list[_Weighed] = msgspec.field(default_factory=list)
    _past_events: list[_Weighed] = msgspec.field(default_factory=list)

    def restart(self, run_id: str) -> None:
        """Forget everything: the gateways come again."""
        for name, value in msgspec.structs.asdict(Tally(run_id)).items():
            setattr(self, name, value)

    def add(self, findings: Slice) -> None:
        for finding in findings.findings:
            if finding.subject == "change" and finding.waiver is None:
                self.events[finding.uid] = Event.of(finding, self.run_id)
                _push(self._past_events, (finding.last_seen, finding.uid), finding)
            elif finding.is_open:
                self.open[finding.uid] = finding.severity
                if finding.status == "reopened":
                    self.reopened.add(finding.uid)
            elif finding.status == "waived":
                self.waived[finding.uid] = finding.severity
            if finding.uid in findings.carried:
                self.carried += 1
                continue
            self.by_status[finding.status] += 1
            if finding.is_open:
                self.by_severity[finding.severity] += 1
            if finding.is_open or finding.run_id == self.run_id:
                self._keep(finding)

    def _keep(self, finding: Finding) -> None:
        novelty = -STATUSES.index(finding.status)
        weight = (finding.is_open, finding.status != "waived", SEVERITIES.index(finding.severity), novelty, finding.uid)
        _push(self._worst, weight, finding)

    @property
    def worst(self) -> tuple[Finding, ...]:
        """The findings worth naming: open ones first, by severity, then novelty; then those resolved now, or waived."""
        return _heaviest(self._worst)

    @property
    def past_events(self) -> tuple[Finding, ...]:
        """The newest changes that are remembered."""
        return _heaviest(self._past_events)

    @property
    def counts(self) -> Counts:
        return Counts(
            {status: self.by_status[status] for status in STATUSES},
            {severity: self.by_severity[severity] for severity in reversed(SEVERITIES)},
            self.carried,
        )

    @property
    def extent(self) -> Extent:
        return replace(self.reach, coverage=self.coverage)

    def stand(self, store: Store, now: str, manifest_sha256: str) -> Standing:
        """Say what receivers may be told of this; `manifest_sha256` is "" where nothing was recorded."""
        return Standing(
            store=store.url,
            run_id=self.run_id,
            now=now,
            open=self.open,
            waived=self.waived,
            events=self.events,
            reopened=self.reopened,
            worst=self.worst,
            past_events=self.past_events,
            extent=self.extent,
            problems=self.problems,
            manifest_location=store.locate(manifest_of(self.run_id)) if manifest_sha256 else "",
            manifest_sha256=manifest_sha256,
            report_url=report_link(store, self.run_id) if self.report else "",
        )

    def judge(self, fail_on: str, trouble: str) -> tuple[int, str]:
        """Return the exit code and its reason. `trouble`: what failed in the store, "" where nothing did."""
        extent = self.extent
        covered = extent.gateways("complete", "partial")
        counting = SEVERITIES[SEVERITIES.index(fail_on) :] if fail_on != NEVER else ()
        verdicts = [
            (bool(trouble), 4, trouble),
            (extent.has_gaps and not covered, 4, "nothing was covered"),
            (extent.has_gaps, 3, "something in scope was not covered"),
            (bool(self.failed), 3, "a rule broke down"),
            (any(self.by_severity[severity] for severity in counting), 1, f"findings of severity {fail_on} or worse"),
            (any(self.by_severity.values()), 0, "no finding is as severe as --fail-on asks"),
        ]
        return next(((code, reason) for holds, code, reason in verdicts if holds), (0, extent.nothing_open))


def _push(heap: list[_Weighed], weight: tuple[Any, ...], finding: Finding) -> None:
    """Keep a finding as long as it is among the heaviest."""
    if len(heap) < _MOST_NAMED:
        heapq.heappush(heap, (weight, finding))
    else:
        heapq.heappushpop(heap, (weight, finding))


def _heaviest(heap: list[_Weighed]) -> tuple[Finding, ...]:
    return tuple(finding for _, finding in sorted(heap, key=lambda entry: entry[0], reverse=True))
