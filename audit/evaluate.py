"""Holds what was read against the rules: pure, one gateway at a time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from audit.model import Connection, build_uid
from audit.ruleset.compiled import compile_rules
from audit.ruleset.explain import Explanation, explain
from audit.ruleset.language import COUNTS, TRUE, Test

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from audit.model import EndpointConnection, Gateway, Reading
    from audit.ruleset.compiled import BoundRule, Compiled
    from audit.ruleset.parse import Rule


@dataclass(frozen=True)
class Hit:
    """A rule that one subject breaks; `connection` is the connection's key, None where it is about the gateway."""

    uid: str
    rule: Rule
    connection: str | None
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


def describe(reading: Reading) -> Gateway:
    """Complete a gateway by what its reading tells of it."""
    statuses = Counter(record.status for record in reading.connections)
    return msgspec.structs.replace(
        reading.gateway,
        permissions=reading.permissions,
        connections=len(reading.connections),
        accepted=statuses["accepted"],
        pending=statuses["pendingAcceptance"],
    )


def can_judge(rule: Rule, reading: Reading) -> bool:
    """Say whether a reading is enough for a rule.

    Permissions may be unreadable where connections are not. Of a gateway that was read in part, a count says only that
    there are at least so many: enough for a maximum, for nothing else.
    """
    if reading.state not in {"complete", "partial"} or reading.gone:
        return False
    if reading.permissions is None and "gateway.permissions" in rule.fields:
        return False
    counts = {name for name in rule.fields if name.removeprefix("gateway.") in COUNTS}
    if reading.is_whole or not counts:
        return True
    only = rule.require
    is_maximum = isinstance(only, Test) and only.keyword == "maximum" and rule.fields == counts
    return is_maximum and rule.when == TRUE and len(counts) == 1


@dataclass(frozen=True)
class Verdict:
    """What came of one gateway: hits by finding uid, and the ids of the rules that could be evaluated."""

    hits: Mapping[str, Hit]
    evaluated: frozenset[str]


class Judge:
    """Holds readings against rules; each set of rules that occurs is compiled once."""

    def __init__(self, rules: Sequence[BoundRule]) -> None:
        self._rules = rules
        self._compiled: dict[tuple[str, ...], Compiled] = {}

    def judge(self, reading: Reading, connections: Sequence[Connection]) -> Verdict:
        """Evaluate every rule for which this reading is enough."""
        gateway = describe(reading)
        able = [bound for bound in self._rules if can_judge(bound.rule, reading)]
        hits: dict[str, Hit] = {}
        for each, subjects in (("connection", connections), ("gateway", [gateway])):
            compiled = self._compile([bound for bound in able if bound.rule.each == each])
            for subject, number in compiled.find(subjects, gateway):
                bound = compiled.rules[number]
                connection = subject.key if each == "connection" else None
                uid = build_uid(bound.rule.id, gateway.key, each, connection or gateway.id)
                hits[uid] = Hit(uid, bound.rule, connection, explain(bound, subject, gateway))
        return Verdict(hits, frozenset(bound.rule.id for bound in able))

    def _compile(self, rules: Sequence[BoundRule]) -> Compiled:
        key = tuple(bound.rule.id for bound in rules)
        if key not in self._compiled:
            self._compiled[key] = compile_rules(rules)
        return self._compiled[key]
