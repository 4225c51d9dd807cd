"""Small objects for tests, with harmless values in everything that a test does not name."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from audit.model import Connection, EndpointConnection, Finding, Gateway, GatewayRef, build_uid
from audit.ruleset.compiled import compile_conditions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from audit.ruleset.compiled import Find
    from audit.ruleset.program import BoundRule

NOW = datetime(2026, 11, 22, 8, 15, tzinfo=timezone.utc)
NOW_TEXT = "2026-11-22T08:15:00Z"
RUN_ID = "20261122T081500Z-7f3a9c"
GATEWAY = Gateway("cn-north-4", "p1", "g1", "billing", "Running")


def gateway(gateway_id: str, name: str = "") -> Gateway:
    return Gateway("cn-north-4", "p1", gateway_id, name or gateway_id, "Running")


def record(connection_id: str | None = "c1", **fields: Any) -> EndpointConnection:
    values: dict[str, Any] = {
        "marker_id": 1,
        "created_at": "2026-11-20T08:15:00Z",
        "updated_at": "2026-11-20T08:15:00Z",
        "domain_id": "d1",
        "status": "accepted",
    }
    return EndpointConnection(id=connection_id, **{**values, **fields})


def connection(connection_id: str | None = "c1", **fields: Any) -> Connection:
    values: dict[str, Any] = {
        "region": GATEWAY.region,
        "project_id": GATEWAY.project_id,
        "gateway_id": GATEWAY.id,
        "marker_id": 1,
        "created_at": "2026-11-20T08:15:00Z",
        "updated_at": "2026-11-20T08:15:00Z",
        "domain_id": "d1",
        "status": "accepted",
        "status_since": "2026-11-20T08:15:00Z",
        "read_in": "earlier",
    }
    return Connection(id=connection_id, **{**values, **fields})


def finding(rule_id: str = "r1", connection_id: str = "c1", on: Gateway = GATEWAY, **fields: Any) -> Finding:
    values: dict[str, Any] = {
        "title": "a title",
        "severity": "medium",
        "status": "new",
        "resolution": None,
        "subject": "connection",
        "gateway": GatewayRef(on.id, on.name, on.region, on.project_id),
        "connection": connection_id,
        "group": None,
        "message": "a message",
        "expected": {},
        "actual": {},
        "remediation": "do something",
        "controls": {},
        "waiver": None,
        "first_seen": "2026-11-20T08:15:00Z",
        "last_seen": "2026-11-21T08:15:00Z",
        "resolved_at": None,
        "occurrences": 2,
        "run_id": "20261121T081500Z-000001",
    }
    uid = build_uid(rule_id, on.key, "connection", connection_id)
    return Finding(uid=uid, rule_id=rule_id, **{**values, **fields})


def compile_rules(rules: Sequence[BoundRule]) -> Find:
    """Fuse rules about one kind of subject, as a program does."""
    return compile_conditions([bound.condition for bound in rules])
