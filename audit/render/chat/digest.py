"""What a chat message says, decided once for all services: which lines, in which order, how many are left out.

Every text in a digest is inert already; what a service's own markup needs besides is its module's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

import msgspec

from audit.extent import GAPS
from audit.model import SEVERITIES
from audit.render.chat.inert import inert
from audit.render.console import about, name_entry, place, state
from audit.render.naming import name_coverage, name_findings
from audit.text import count, shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from audit.model import Coverage, Finding
    from audit.notify import Message

# In every title, and made of what no service escapes: a keyword filter set to it lets every message pass.
PREFIX = "apig-vpcep-audit"
REPORT = "Open the report"
OPEN = "Open"
NOTHING_MORE = "Nothing more to say."
SEE_REPORT = "more, see the report"
Mood: TypeAlias = Literal["critical", "high", "medium", "low", "info", "clear"]
EMOJI: dict[Mood, str] = {"critical": "🔴", "high": "🟠", "medium": "🟡", "low": "🔵", "info": "⚪", "clear": "🟢"}
_MOST_LINES = {"Findings": 10, "Over": 5, "Not covered": 5, "Rules not evaluated": 5, "Problems": 3}
_SHORT_HASH = 12
_LONGEST = 1_000
Item = TypeVar("Item")


class Section(msgspec.Struct, frozen=True):
    """A heading with lines below it; `left_out` counts those that are not here."""

    heading: str
    lines: tuple[str, ...]
    left_out: int = 0

    @property
    def texts(self) -> tuple[str, ...]:
        """The lines, the last one about those left out."""
        return (*self.lines, f"+{self.left_out} {SEE_REPORT}") if self.left_out else self.lines


class Digest(msgspec.Struct, frozen=True):
    """A message in words. `facts`: what is open and how far the run reached. `anchors`: what leads to the evidence.

    `link`: a web address of the report, "" for none; it is trusted, as it comes from the own store.
    """

    mood: Mood
    headline: str
    sections: tuple[Section, ...]
    facts: tuple[tuple[str, str], ...]
    anchors: tuple[tuple[str, str], ...]
    link: str

    @property
    def title(self) -> str:
        return f"{PREFIX} {EMOJI[self.mood]} {self.headline}"


def build_digest(message: Message) -> Digest:
    """Say a message in words, worst first; what is too much for a chat is counted."""
    standing = message.standing
    url = standing.report_url if standing else ""
    link = url if url.startswith(("https://", "http://")) and url.isascii() and url.isprintable() else ""
    elsewhere = [("Report", _inert(url))] if url and not link else []
    return Digest(
        mood=_mood(message),
        headline=_inert(message.headline),
        sections=tuple(section for section in _sections(message) if section.texts),
        facts=((OPEN, _describe_counts(message)), ("Coverage", _describe_coverage(message))),
        anchors=(("Run", inert(message.run_id)), ("Manifest", _describe_manifest(message)), *elsewhere),
        link=link,
    )


def _sections(message: Message) -> Iterator[Section]:
    """Yield what there is to say; a sign begins each line that may hold a name, where markup would mean most."""
    targets = message.standing.extent.targets if message.standing else {}
    findings = list(name_findings(message.findings, targets))
    news = [finding for finding in findings if _is_news(finding)]
    yield _section("Findings", news, _describe, message.left_out)
    over = [finding for finding in findings if not _is_news(finding)]
    happened = message.changes.get("resolved", 0) + message.changes.get("waived", 0)
    yield _section("Over", over, _describe, max(0, happened - len(over)))
    coverage = name_coverage(message.standing.extent.coverage if message.standing else (), targets)
    yield _section("Not covered", [entry for entry in coverage if entry.state in GAPS], _describe_gap)
    idle, problems = _split_problems(message)
    yield _section("Rules not evaluated", idle, str)
    yield _section("Problems", problems, "⚠ {}".format)


def _section(heading: str, items: Sequence[Item], describe: Callable[[Item], str], left_out: int = 0) -> Section:
    most = _MOST_LINES[heading]
    lines = tuple(_inert(describe(item)) for item in items[:most])
    return Section(heading, lines, left_out + len(items[most:]))


def _inert(text: str) -> str:
    """Cut first, so that nobody pays for a name without end."""
    return inert(shorten(text, _LONGEST))


def _is_news(finding: Finding) -> bool:
    """Whether it is open, or a change that happened."""
    return finding.is_open or (finding.subject == "change" and finding.status != "waived")


def _mood(message: Message) -> Mood:
    """The worst severity of what is open or happened; a gap is as bad as medium, to know nothing is critical."""
    if message.standing is None:
        return "critical"
    found = {*message.open_by_severity, *(f.severity for f in message.findings if _is_news(f))}
    extent = message.standing.extent
    found |= {"medium"} if extent.has_gaps or extent.idle else set()
    return max(found, key=SEVERITIES.index, default="clear")


def _describe(finding: Finding) -> str:
    """Say a finding in a line: how bad, what is wrong, where, by which rule."""
    where = " / ".join(filter(None, (place(finding) if finding.gateway else "", about(finding))))
    sign = EMOJI[finding.severity] if _is_news(finding) else EMOJI["clear"]
    told = [f"{sign} {finding.severity} {state(finding)}: {finding.message}", where, finding.rule_id]
    return " · ".join(filter(None, told))


def _describe_gap(entry: Coverage) -> str:
    return f"{EMOJI['medium']} {name_entry(entry)}: {entry.state.replace('_', ' ')}: {entry.reason}"


def _describe_counts(message: Message) -> str:
    by_severity = message.open_by_severity
    if message.standing is None:
        return "unknown"
    said = ", ".join(f"{number} {severity}" for severity, number in by_severity.items())
    return f"{sum(by_severity.values())} ({said})" if said else "0"


def _describe_coverage(message: Message) -> str:
    if message.standing is None:
        return "unknown"
    extent = message.standing.extent
    scope = extent.gateways("complete", "partial", "not_covered")
    return f"{extent.gateways('complete')} of {count(scope, 'gateway')} read completely"


def _describe_manifest(message: Message) -> str:
    digest = message.standing.manifest_sha256 if message.standing else ""
    return f"sha256 {digest[:_SHORT_HASH]}" if digest else "none was recorded"


def _split_problems(message: Message) -> tuple[list[str], list[str]]:
    """Return the rules that were not evaluated, with the reason where a problem tells it, and all other problems."""
    idle = message.standing.extent.idle if message.standing else frozenset()
    reasons, others = dict.fromkeys(sorted(idle), ""), []
    for problem in message.problems:
        rule, _, why = problem.removeprefix("rule ").partition(" was not evaluated: ")
        if rule in reasons:
            reasons[rule] = f": {why}"
        elif f"audit failed: {problem}" != message.headline:
            others.append(problem)
    return [f"{rule}{why}" for rule, why in reasons.items()], others
