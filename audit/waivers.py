"""What is said of waivers themselves: which expired while they were needed, end soon, or match nothing. Pure."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from audit.evaluate import Hit
from audit.model import ESTATE, build_uid
from audit.ruleset.explain import Explanation
from audit.ruleset.language import FALSE, TRUE
from audit.ruleset.parse import WAIVER_EXPIRED, Rule
from audit.text import count
from audit.times import describe_duration, format_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from datetime import datetime

    from audit.ruleset.policy import Waiver

SOON = timedelta(days=7)
_MOST_NOTICES = 20
_RULE = Rule(
    id=WAIVER_EXPIRED,
    title="No expired waiver may still be needed",
    severity="medium",
    description="An exception that was accepted for a time has outlived it: what it covered is open again.",
    remediation="Mend what the waiver covers, or have it approved anew with a later date; then delete the old entry "
    'from "waivers" in the policy.',
    controls={"ISO 27001:2022": ["A.5.36"], "NIST SP 800-53 r5": ["CA-5", "RA-7"], "CSA CCM v4": ["GRC-04"]},
    params={},
    each="policy",
    keys=(),
    when=TRUE,
    require=FALSE,
    require_json=False,
)


class WaiverUse(msgspec.Struct):
    """Counts, as hits pass by, what each waiver matches, and what an expired one would still cover."""

    matched: Counter[str] = msgspec.field(default_factory=Counter)
    needed: Counter[str] = msgspec.field(default_factory=Counter)

    def add(self, hits: Iterable[Hit]) -> None:
        for hit in hits:
            self.matched.update(hit.matching)
            if not hit.waiver:
                self.needed.update(hit.matching)


class WaiverReport(msgspec.Struct, frozen=True):
    """`hits`: expired waivers that would still cover something. `unsure`: expired ones of which that is not known."""

    hits: dict[str, Hit]
    unsure: frozenset[str]
    notices: list[str]


def judge_waivers(
    waivers: Sequence[Waiver], use: WaiverUse, now: datetime, judged: Collection[str], events: Collection[str]
) -> WaiverReport:
    """Judge the waivers of a policy after a run.

    `judged`: ids of rules that were evaluated everywhere. `events`: of those about changes, for which it says nothing
    that a waiver matched none in one run.
    """
    report = WaiverReport({}, frozenset(w.id for w in waivers if _ended(w, now) and w.rule not in judged), [])
    for waiver in waivers:
        what = f"waiver {waiver.id} for rule {waiver.rule}"
        if _ended(waiver, now) and use.needed[waiver.id]:
            hit = _build_hit(waiver, use.needed[waiver.id])
            report.hits[hit.uid] = hit
        elif waiver.rule in judged and waiver.rule not in events and not use.matched[waiver.id]:
            ended = " and has expired" if _ended(waiver, now) else ""
            report.notices.append(f"{what} matches nothing{ended}: delete it, or mend its match")
        elif not _ended(waiver, now) and waiver.expires <= format_time(now + SOON):
            left = describe_duration(parse_time(waiver.expires) - now)
            report.notices.append(f"{what} expires on {waiver.expires}, in {left}")
    if (more := len(report.notices) - _MOST_NOTICES) > 0:
        report.notices[_MOST_NOTICES:] = [f"{more} more waivers match nothing or expire soon"]
    return report


def _ended(waiver: Waiver, now: datetime) -> bool:
    return waiver.expires <= format_time(now)


def _build_hit(waiver: Waiver, findings: int) -> Hit:
    return Hit(
        uid=build_uid(WAIVER_EXPIRED, ESTATE, "policy", waiver.id),
        rule=_RULE,
        gateway=None,
        connection=None,
        group=None,
        explanation=Explanation(
            message=f"waiver {waiver.id} for rule {waiver.rule} expired on {waiver.expires}; it still matches "
            + count(findings, "finding"),
            expected={"expires": "after the run"},
            actual={**waiver.note, "rule": waiver.rule, "findings": findings},
        ),
    )
