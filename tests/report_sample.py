"""Runs to write a page about: as many findings as a test asks for, of every kind."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from audit.archive import Counts, Link, Manifest, RuleUsed, RunScope, TrendPoint, folder_of
from audit.model import SEVERITIES, STATUSES, Coverage, Finding
from audit.objects import StoredObject
from audit.ruleset.load import RuleSet, load_rule_set
from audit.settings import RULES_BESIDE_HANDLER
from audit.times import format_time
from tests.builders import NOW, NOW_TEXT, RUN_ID, finding, gateway

if TYPE_CHECKING:
    from collections.abc import Sequence

    from audit.ruleset.parse import Rule

RULES: RuleSet = load_rule_set(RULES_BESIDE_HANDLER, None)
GATEWAYS = [gateway(f"{number:02}d66704ddb534683445c19ae2d1a5b", name) for number, name in enumerate(
    ["orders-prod", "billing-prod", "partner-gateway-eu", "identity", "legacy-gateway", "reports", "sandbox"]
)]  # fmt: skip
ACCOUNTS = ("0e9b47d3a85c4f21b6d07c92e3f1a854", "c5d8e7416b2f49a0935c1f7ad84e60b2")
MESSAGES = (
    'domain_id is "{account}"; must be in approved-domains',
    "pending for {hours} h; at most 24 h allowed",
    'status is "failed"; not allowed',
    "count is {hours}; must be at most 20",
)
WAIVER = {"id": "w-partner-move", "reason": "partner moves to the new account", "approved_by": "ciso@example.com",
          "ticket": "SEC-1187", "expires": format_time(NOW + timedelta(days=3))}  # fmt: skip


def build_findings(number: int) -> list[Finding]:
    return [_build_finding(index) for index in range(number)]


def _build_finding(index: int) -> Finding:
    rule: Rule = RULES.rules[index * 7 % len(RULES.rules)]
    status: Any = (*STATUSES, "ongoing", "ongoing", "new")[index * 5 % 9]
    account = ACCOUNTS[index % 2]
    text = MESSAGES[index % len(MESSAGES)].format(account=account, hours=25 + index % 400)
    seen = format_time(NOW - timedelta(hours=13 * (index % 160)))
    return finding(
        rule.id, f"{index:08x}-23aa-5e07-9bff-83aec6eb8317", GATEWAYS[index * 3 % 7],
        title=rule.title, severity=SEVERITIES[(index * 11 + index // 7) % 5], status=status, message=text,
        expected={"domain_id": {"enum": {"list": "approved-domains"}}}, actual={"domain_id": account},
        remediation=rule.remediation, controls=dict(rule.controls), first_seen=seen, last_seen=NOW_TEXT,
        waiver=WAIVER if status == "waived" else None, occurrences=1 + index % 160, run_id=RUN_ID,
        resolution="fixed" if status == "resolved" else None, resolved_at=NOW_TEXT if status == "resolved" else None,
    )  # fmt: skip


def build_coverage(*, gaps: bool) -> list[Coverage]:
    coverage = [
        Coverage(g.region, g.project_id, g.id, g.name, "complete", "", 40 + 17 * number, None, RUN_ID)
        for number, g in enumerate(GATEWAYS)
    ]
    if gaps:
        coverage[4] = msgspec.structs.replace(
            coverage[4], state="not_covered", connections=0, request_id="98be8d61308c51d083502e88afd4eff6",
            reason="HTTP 403 APIC.7106 No permissions to request for the method; grant apig:instance:listVpcEndpoint "
            "(identity policy) or apig:instances:get (role policy)",
        )  # fmt: skip
        coverage[5] = msgspec.structs.replace(
            coverage[5], not_evaluated={"newly-accepted": "no earlier reading to compare with"}
        )
    return coverage


def build_run(findings: Sequence[Finding], *, gaps: bool = False, runs: int = 24, **fields: Any) -> Manifest:
    """The manifest of a run that found these."""
    by_status = {status: sum(f.status == status for f in findings) for status in STATUSES}
    by_severity: dict[str, int] = {
        word: sum(f.is_open and f.severity == word for f in findings) for word in SEVERITIES[::-1]
    }
    trend = [
        TrendPoint(
            RUN_ID, format_time(NOW - timedelta(days=back)), by_status,
            {word: count + (count and (back * 7) % 5) for word, count in by_severity.items()},
            6 if back in {3, 4} or (gaps and not back) else 7, 7,
        )
        for back in reversed(range(runs))
    ]  # fmt: skip
    used = [RuleUsed(rule.id, "5b" * 32, "") for rule in RULES.rules]
    if gaps:
        used[9] = RuleUsed(used[9].id, used[9].sha256, "not configured: list approved-domains is empty in the policy")
    names = ("gateways.ndjson.gz", "connections.ndjson.gz", "findings.ndjson.gz")
    manifest = Manifest(
        run_id=RUN_ID, mode="scheduled", started_at=NOW_TEXT, finished_at=NOW_TEXT, now=NOW_TEXT, version="0.1.0",
        scope=RunScope([], []), rules=used, policy_sha256="a7" * 32, coverage=build_coverage(gaps=gaps),
        counts=Counts(by_status, by_severity, 0), trend=trend,
        objects=[StoredObject(folder_of(RUN_ID) + name, 30553 + len(name), "c0ffee" * 10 + "beef") for name in names],
        parent=Link("20261121T081500Z-0a1b2c", "f0" * 32),
    )  # fmt: skip
    return msgspec.structs.replace(manifest, **fields)
