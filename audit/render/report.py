"""report.html: one self-contained page about a run, whoever opens it and wherever it lies.

It knows what the manifest, the findings and (in the run itself) rules and policy say, and keeps of the findings only
the worst. What it is given it shows with invisible characters as escapes: `_show` stands behind every expression of the
template, and what is not markup of the template's own is escaped.
"""

from __future__ import annotations

import heapq
import json
from base64 import b64encode
from collections import Counter
from functools import cache
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from audit.archive import FINDINGS, REPORT, SHEET, folder_of, manifest_of
from audit.extent import GAPS
from audit.model import OPEN, SEVERITIES, STATUSES
from audit.render.console import about, place
from audit.render.naming import name_coverage, name_findings
from audit.ruleset.parse import WAIVER_EXPIRED
from audit.text import printable, shorten
from audit.times import describe_duration, format_time, parse_time
from audit.waivers import SOON

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from jinja2 import Template

    from audit.archive import Manifest, RuleUsed, TrendPoint
    from audit.model import Coverage, Finding
    from audit.ruleset.parse import Rule
    from audit.ruleset.policy import Waiver

MOST_SHOWN = 2_000
_LONGEST_TEXT = 2_000
_WORST_FIRST = SEVERITIES[::-1]
# The drawing of the trend: pixels down, percent across; a few runs do not make wide bars.
_GROUND, _HEIGHT, _FEWEST_SLOTS = 145.0, 126.0, 12


def render_report(
    run: Manifest, findings: Iterable[Finding], rules: Iterable[Rule] = (), waivers: Iterable[Waiver] = ()
) -> Iterator[bytes]:
    """Yield the page in pieces; ages are those at the time of the run.

    `rules` and `waivers` are those in force where they are known; of a past run, its findings tell what can be told.
    """
    seen = _Survey()
    seen.rules = {rule.id: (rule.title, rule.severity) for rule in rules}
    seen.waivers = {waiver.id: {**waiver.note, "rule": waiver.rule} for waiver in waivers}
    worst = heapq.nlargest(MOST_SHOWN, seen.watch(findings), key=_weight)
    worst = list(name_findings(worst, run.scope.names))
    run = msgspec.structs.replace(run, coverage=name_coverage(run.coverage, run.scope.names))
    worst.sort(key=lambda finding: (*(-part for part in _weight(finding)), place(finding), finding.rule_id))
    now = parse_time(run.now)
    page = _template().stream(
        run=run,
        seen=seen,
        worst=worst,
        extent=run.extent,
        gaps=[entry for entry in run.coverage if entry.state in GAPS],
        others=[entry for entry in run.coverage if entry.state not in GAPS],
        unjudged=_unjudged(run),
        evaluated={rule.id: _say_where(rule, run) for rule in run.rules},
        waivers=_pressing(seen, run.now, format_time(now + SOON)),
        trend=_draw(run.trend),
        trend_top=_top(run.trend),
        objects=[item for item in run.objects if item.key != folder_of(run.run_id) + REPORT],
        manifest_key=manifest_of(run.run_id),
        most=MOST_SHOWN,
        findings_name=FINDINGS,
        sheet_name=SHEET,
        statuses=STATUSES,
        open_statuses=OPEN,
        gateways=_gateways(worst),
        severities=_WORST_FIRST,
        place=place,
        about=about,
        count=_count,
        age=lambda time: describe_duration(abs(now - parse_time(time))),
    )
    page.enable_buffering(200)
    return (part.encode() for part in page)


class _Survey(msgspec.Struct):
    """What is gathered as findings pass by: bounded by rules and waivers, not by findings."""

    total: int = 0
    matrix: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)
    open_by_rule: Counter[str] = msgspec.field(default_factory=Counter)
    # Title and severity of a rule, what is known of a waiver, and how many findings it covers or would.
    rules: dict[str, tuple[str, str]] = msgspec.field(default_factory=dict)
    waivers: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    covers: Counter[str] = msgspec.field(default_factory=Counter)

    def count(self, severities: Iterable[str], statuses: Iterable[str]) -> int:
        return sum(self.matrix[pair] for pair in product(severities, statuses))

    def watch(self, findings: Iterable[Finding]) -> Iterator[Finding]:
        for finding in findings:
            self.total += 1
            self.matrix[finding.severity, finding.status] += 1
            self.open_by_rule[finding.rule_id] += finding.is_open
            self.rules.setdefault(finding.rule_id, (finding.title, finding.severity))
            if finding.waiver:
                self.covers[finding.waiver["id"]] += 1
                self.waivers.setdefault(finding.waiver["id"], {**finding.waiver, "rule": finding.rule_id})
            elif finding.rule_id == WAIVER_EXPIRED and finding.is_open:
                self.covers[finding.actual["id"]] = finding.actual["findings"]
                self.waivers.setdefault(finding.actual["id"], finding.actual)
            yield finding


def _weight(finding: Finding) -> tuple[int, int, int]:
    """Open before waived before resolved, then by severity, then what is new before what is known."""
    kind = 2 if finding.is_open else int(finding.status == "waived")
    return kind, SEVERITIES.index(finding.severity), -STATUSES.index(finding.status)


def _gateways(worst: Iterable[Finding]) -> list[tuple[str, str]]:
    """What the filter offers: id and name, the id behind names that are not unique."""
    names = {finding.gateway.id if finding.gateway else "-": place(finding) for finding in worst}
    uses = Counter(names.values())
    labels = {ident: name if uses[name] == 1 else f"{name} ({ident})" for ident, name in names.items()}
    return sorted(labels.items(), key=lambda item: item[1])


def _unjudged(run: Manifest) -> dict[str, list[tuple[str, list[Coverage]]]]:
    """Say by rule why it was not evaluated, and on which gateways: none named means nowhere at all."""
    found: dict[str, dict[str, list[Coverage]]] = {
        rule.id: {rule.not_evaluated: []} for rule in run.rules if rule.not_evaluated
    }
    for entry in run.coverage:
        for rule_id, why in entry.not_evaluated.items():
            found.setdefault(rule_id, {}).setdefault(why, []).append(entry)
    return {rule_id: list(found[rule_id].items()) for rule_id in sorted(found)}


def _say_where(rule: RuleUsed, run: Manifest) -> str:
    """Say where a rule was evaluated; "" for nowhere."""
    read, left_out = run.extent.gateways("complete", "partial"), sum(rule.id in e.not_evaluated for e in run.coverage)
    if rule.not_evaluated or left_out >= read:
        return ""
    return f"on {read - left_out} of {_count(read, 'gateway')}" if left_out else "yes"


def _pressing(seen: _Survey, now: str, soon: str) -> list[Mapping[str, Any]]:
    """Waivers that have expired or soon will, the earliest first."""
    due = [waiver for waiver in seen.waivers.values() if waiver["expires"] <= soon]
    due.sort(key=lambda waiver: (waiver["expires"], waiver["id"]))
    return [{"ticket": "", **w, "expired": w["expires"] <= now, "covers": seen.covers[w["id"]]} for w in due]


def _top(trend: Iterable[TrendPoint]) -> int:
    return max((sum(point.by_severity.values()) for point in trend), default=0)


def _draw(trend: Sequence[TrendPoint]) -> list[dict[str, Any]]:
    """Stack each run's open findings, the worst at the bottom: parts are (severity, y, height)."""
    bars, scale, slot = [], _HEIGHT / (_top(trend) or 1), 100 / max(len(trend), _FEWEST_SLOTS)
    for number, point in enumerate(trend):
        parts, y = [], _GROUND
        for severity in _WORST_FIRST:
            height = scale * point.by_severity.get(severity, 0)
            y -= height
            if height:
                parts.append((severity, round(y, 2), round(height, 2)))
        across = {"x": round(number * slot, 3), "width": round(slot * 0.8, 3)}
        bars.append({"point": point, "parts": parts, "open": sum(point.by_severity.values()), **across})
    return bars


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' * (number != 1)}"


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415  (only where a page is written)
    from markupsafe import Markup  # noqa: PLC0415

    def show(value: object) -> object:
        if isinstance(value, str) and not isinstance(value, Markup):
            return shorten(printable(value), _LONGEST_TEXT)
        return f"{value:,}" if isinstance(value, int) else "none" if value is None else value

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=show,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["csp"] = lambda text: "sha256-" + b64encode(sha256(text.encode()).digest()).decode()
    environment.filters["plain"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.get_template("report.html.j2")
