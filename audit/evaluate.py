"""Holds what was read against the rules: pure, one gateway at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from audit.model import Connection, build_uid
from audit.ruleset.explain import Explanation, explain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from audit.model import EndpointConnection, Gateway
    from audit.ruleset.compiled import Compiled
    from audit.ruleset.parse import Rule


@dataclass(frozen=True)
class Hit:
    """A rule that one connection breaks; `connection` is the connection's key."""

    uid: str
    rule: Rule
    connection: str
    explanation: Explanation


def observe(
    gateway: Gateway, records: Iterable[EndpointConnection], previous: Mapping[str, Connection], run_id: str
) -> list[Connection]:
    """Place records in their gateway, sorted by key, each with the time since when it has had its status.

    `previous` holds the last known reading of this gateway by connection key. At first sight that time is
    `updated_at`; while the status stays, the earliest known one is kept, so that an unrelated update does not
    restart the clock.
    """
    region, project_id, gateway_id = gateway.key
    connections = []
    for record in records:
        since = record.updated_at
        before = previous.get(record.id) if record.id is not None else None
        if before is not None and before.status == record.status and before.status_since is not None:
            since = before.status_since if since is None else min(since, before.status_since)
        connections.append(
            Connection(
                region,
                project_id,
                gateway_id,
                record.id,
                record.marker_id,
                record.created_at,
                record.updated_at,
                record.domain_id,
                record.status,
                since,
                run_id,
            )
        )
    connections.sort(key=lambda connection: connection.id or connection.key)
    return connections


def evaluate(compiled: Compiled, gateway: Gateway, connections: Sequence[Connection]) -> dict[str, Hit]:
    """Return the hits by finding uid."""
    hits: dict[str, Hit] = {}
    for connection, number in compiled.find(connections, gateway):
        bound = compiled.rules[number]
        uid = build_uid(bound.rule.id, gateway.key, "connection", connection.key)
        hits[uid] = Hit(uid, bound.rule, connection.key, explain(bound, connection, gateway))
    return hits
