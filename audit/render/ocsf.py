"""A finding as an event of the Open Cybersecurity Schema Framework, for a SIEM: one Compliance Finding each. Pure.

Source: schema.ocsf.io, version 1.8.0: class "Compliance Finding" (2003) with the profile "Cloud"; objects "Compliance",
"Finding Information", "Resource Details", "Cloud", "Metadata". Every line is valid under that class's JSON Schema. As
in `findings.ndjson.gz`, names are data and stay as they came: whoever shows them must escape them.
"""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from audit import __version__
from audit.render.console import name_subject
from audit.times import parse_time

if TYPE_CHECKING:
    from audit.model import Finding, FindingStatus, GatewayRef, Severity

CLASS = 2003
VERSION = "1.8.0"
_EPOCH = parse_time("1970-01-01T00:00:00Z")
_MILLISECOND = timedelta(milliseconds=1)
_PRODUCT = {"name": "apig-vpcep-audit", "vendor_name": "apig-vpcep-audit", "version": __version__}
# Numbers and captions of the class's enumerations: severity_id; activity_id and status_id; compliance.status_id.
_SEVERITIES: dict[Severity, tuple[int, str]] = {
    "info": (1, "Informational"), "low": (2, "Low"), "medium": (3, "Medium"), "high": (4, "High"),
    "critical": (5, "Critical"),
}  # fmt: skip
_CREATE, _UPDATE, _CLOSE = (1, "Create"), (2, "Update"), (3, "Close")
_NEW, _IN_PROGRESS, _SUPPRESSED, _RESOLVED = (1, "New"), (2, "In Progress"), (3, "Suppressed"), (4, "Resolved")
# The schema on a warning: the check "did not yield a result due to missing information".
_PASS, _WARNING, _FAIL = (1, "Pass"), (2, "Warning"), (3, "Fail")
_STATES: dict[FindingStatus, tuple[tuple[int, str], tuple[int, str], tuple[int, str]]] = {
    "new": (_CREATE, _NEW, _FAIL),
    "ongoing": (_UPDATE, _IN_PROGRESS, _FAIL),
    "reopened": (_UPDATE, _IN_PROGRESS, _FAIL),
    "unverified": (_UPDATE, _IN_PROGRESS, _WARNING),
    "waived": (_UPDATE, _SUPPRESSED, _FAIL),
    "resolved": (_CLOSE, _RESOLVED, _PASS),
}
_AFFECTED, _RELATED = 3, 4  # resource_details.role_id


def build_event(finding: Finding) -> dict[str, Any]:
    """Build the event of a finding. Its `time` is when that was last found, or resolved; times in milliseconds.

    `status_code` is our status, `compliance.control` our rule; what OCSF has no word for is `unmapped`.
    """
    (activity_id, activity), (status_id, status), (result_id, result) = _STATES[finding.status]
    severity_id, severity = _SEVERITIES[finding.severity]
    first_seen, last_seen = _milliseconds(finding.first_seen), _milliseconds(finding.last_seen)
    return {
        "category_uid": 2,
        "class_uid": CLASS,
        "class_name": "Compliance Finding",
        "type_uid": CLASS * 100 + activity_id,
        "activity_id": activity_id,
        "activity_name": activity,
        "time": last_seen if finding.resolved_at is None else _milliseconds(finding.resolved_at),
        "severity_id": severity_id,
        "severity": severity,
        "status_id": status_id,
        "status": status,
        "status_code": finding.status,
        "message": finding.message,
        "metadata": {
            "version": VERSION,
            "profiles": ["cloud"],
            "product": _PRODUCT,
            # Of this event: in a run that did not read its gateway, a finding keeps the id of the last one that did.
            "uid": f"{finding.uid}:{finding.run_id}:{finding.status}",
        },
        "cloud": _cloud(finding.gateway),
        "finding_info": {
            "uid": finding.uid,
            "title": finding.title,
            "desc": finding.message,
            "first_seen_time": first_seen,
            "last_seen_time": last_seen,
            "analytic": {"type_id": 1, "type": "Rule", "uid": finding.rule_id},
        },
        "compliance": {
            "control": finding.rule_id,
            "standards": list(finding.controls),
            "requirements": [f"{name} {control}" for name, ids in finding.controls.items() for control in ids],
            "status_id": result_id,
            "status": result,
        },
        "remediation": {"desc": finding.remediation},
        "resources": _resources(finding),
        "unmapped": {
            "subject": finding.subject,
            "resolution": finding.resolution,
            "group": finding.group,
            "expected": finding.expected,
            "actual": finding.actual,
            "waiver": finding.waiver,
            "resolved_at": finding.resolved_at,
            "occurrences": finding.occurrences,
            "run_id": finding.run_id,
        },
    }


def _cloud(gateway: GatewayRef | None) -> dict[str, Any]:
    if gateway is None:
        return {"provider": "Huawei Cloud"}
    account = {"uid": gateway.project_id, "type_id": 99, "type": "Huawei Cloud project"}
    return {"provider": "Huawei Cloud", "region": gateway.region, "account": account}


def _resources(finding: Finding) -> list[dict[str, Any]]:
    """Name what a finding is about, narrowest first: that is affected, the rest related."""
    found: list[dict[str, Any]] = []
    if finding.connection is not None:
        found.append({"type": "VPC endpoint connection", "uid": finding.connection})
    if finding.group is not None:
        uid = msgspec.json.encode(sorted(finding.group.items())).decode()
        name = name_subject(None, finding.group)
        found.append({"type": "group of VPC endpoint connections", "uid": uid, "name": name})
    if (gateway := finding.gateway) is not None:
        name = gateway.name or gateway.id
        found.append({"type": "API gateway", "uid": gateway.id, "name": name, "region": gateway.region})
    if not found:
        found.append({"type": "audit policy", "name": finding.subject})
    for place, resource in enumerate(found):
        resource["role_id"] = _RELATED if place else _AFFECTED
    return found


@lru_cache(maxsize=1024)
def _milliseconds(time: str) -> int:
    """Milliseconds since 1970; findings share few instants, those of runs."""
    return (parse_time(time) - _EPOCH) // _MILLISECOND
