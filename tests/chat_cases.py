"""What the seven chat services are told in four situations, and the golden files that keep it.

`python -m tests.chat_cases` writes the golden files anew; look at the difference before you keep it.
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from audit.extent import Extent
from audit.model import Coverage, GatewayRef
from audit.notify import Message, Standing, Told, Wishes, decide
from audit.render.kinds import KINDS
from tests.builders import NOW_TEXT, RUN_ID, finding
from tests.emulator.receiver import SECRET

GOLDEN = Path(__file__).parent / "golden" / "chat"
NOW = 1755828000.0
SECRETS = {"generic": SECRET, "feishu": "test-secret", "dingtalk": "SECtest"}
REPORT_URL = "https://evidence.example.com/runs/20261122T081500Z-7f3a9c/report.html?AccessKeyId=AK&Signature=a%2Bb%3D"
HOSTILE = "pay\u202e[now](https://evil.example.com) <!here> @all <at id=all></at> *x* `y` _z_ \x1b[2J\nevil.example.com"

_LATER = "2026-11-23T08:15:00Z"
_GATEWAYS = [
    Coverage("cn-north-4", "p1", "g1", "billing", "complete", "", 12, None),
    Coverage("cn-north-4", "p1", "g2", HOSTILE, "complete", "", 3, None),
]
_PAY = GatewayRef("g2", HOSTILE, "cn-north-4", "p1")
_FINDINGS = [
    finding("no-open-door", "c1", severity="critical", title="No open door",
            message="gateway.permissions holds *: every account may ask for a connection"),
    finding("only-approved-domains-accepted", "c2", severity="high", gateway=_PAY,
            message="domain_id d-9 is not in approved-domains"),
    finding("pending-too-long", "c3", message="pending for 49 h; at most 24 h allowed"),
]  # fmt: skip
_OPEN = {found.uid: found.severity for found in _FINDINGS}
_FIRST = Standing(
    store="obs://evidence", run_id=RUN_ID, now=NOW_TEXT, open={**_OPEN, "other": "low"}, waived={}, events={},
    reopened=frozenset(), worst=_FINDINGS, past_events=[],
    extent=Extent(_GATEWAYS, idle=frozenset({"unique-marker-id"})),
    problems=["rule unique-marker-id was not evaluated: not configured: list markers is empty in the policy"],
    manifest_location="obs://evidence/manifest.json", manifest_sha256="ab12cd34ef56" + "0" * 52, report_url=REPORT_URL,
)  # fmt: skip
_AGAIN = replace(_FIRST, run_id="20261123T081500Z-112233", now=_LATER, worst=[
    finding(f.rule_id, str(f.connection), status="ongoing", severity=f.severity, message=f.message, gateway=f.gateway)
    for f in _FINDINGS
])  # fmt: skip
_RESOLVED = replace(_AGAIN, open={}, extent=Extent(_GATEWAYS), problems=[], report_url="", worst=[
    finding(f.rule_id, str(f.connection), status="resolved", resolution="fixed", severity=f.severity,
            message=f.message, gateway=f.gateway)
    for f in _FINDINGS
])  # fmt: skip
_LOST = replace(_AGAIN, extent=Extent(
    [_GATEWAYS[0], Coverage("cn-north-4", "p1", "g2", HOSTILE, "not_covered", "HTTP 500 APIC.9999", 0, "req1")],
    idle=frozenset({"unique-marker-id"}),
), report_url="/evidence/report.html")  # fmt: skip


def _build_situations() -> dict[str, Message]:
    told = Told("soc")
    first, known = decide(told, _FIRST)
    reminder, _ = decide(known, _AGAIN, Wishes(repeat_interval=timedelta(days=1)))
    resolved, _ = decide(known, _RESOLVED)
    lost, _ = decide(known, _LOST)
    found = {"first-findings": first, "reminder": reminder, "all-resolved": resolved, "coverage-lost": lost}
    return {name: message for name, message in found.items() if message is not None}


SITUATIONS = _build_situations()


def document(kind: str, message: Message) -> str:
    """A whole request as a person reads it."""
    post = KINDS[kind].build(message, SECRETS.get(kind), NOW)
    request: dict[str, Any] = {"query": dict(post.query), "headers": dict(post.headers), "body": json.loads(post.body)}
    return json.dumps(request, ensure_ascii=False, indent=2) + "\n"


def write_golden() -> None:
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for path in GOLDEN.glob("*.json"):
        path.unlink()
    for kind in KINDS:
        for name, message in SITUATIONS.items():
            (GOLDEN / f"{kind}-{name}.json").write_text(document(kind, message), encoding="utf-8")


if __name__ == "__main__":
    write_golden()
