"""Placing records in their gateway and holding them against rules."""

from __future__ import annotations

from audit.evaluate import evaluate, observe
from audit.model import build_uid
from audit.ruleset.compiled import Bindings, BoundRule, compile_rules
from audit.ruleset.parse import parse_rule
from audit.ruleset.problems import Place
from tests.builders import GATEWAY, NOW, RUN_ID, connection, record


def seen(since: str | None, updated_at: str | None, *, status="accepted", before="accepted") -> str | None:
    past = {"c1": connection("c1", status=before, status_since=since)}
    return observe(GATEWAY, [record("c1", status=status, updated_at=updated_at)], past, RUN_ID)[0].status_since


def test_at_first_sight_the_status_is_as_old_as_the_last_update():
    """Nothing better is known."""
    assert observe(GATEWAY, [record(updated_at="2026-11-20T00:00:00Z")], {}, RUN_ID)[0].status_since == (
        "2026-11-20T00:00:00Z"
    )


def test_an_unrelated_update_does_not_restart_the_clock():
    """While the status stays, the earliest known time stays."""
    assert seen("2026-11-01T00:00:00Z", "2026-11-20T00:00:00Z") == "2026-11-01T00:00:00Z"
    assert seen("2026-11-01T00:00:00Z", None) == "2026-11-01T00:00:00Z"
    assert seen(None, "2026-11-20T00:00:00Z") == "2026-11-20T00:00:00Z"
    assert seen("2026-11-21T00:00:00Z", "2026-11-20T00:00:00Z") == "2026-11-20T00:00:00Z"


def test_a_changed_status_starts_the_clock_anew():
    """Its time is the update that changed it."""
    assert seen("2026-11-01T00:00:00Z", "2026-11-20T00:00:00Z", before="pendingAcceptance") == "2026-11-20T00:00:00Z"


def test_connections_come_out_sorted_with_everything_the_api_said():
    """Sorted by key; six fields, the gateway, and the run that read them."""
    rows = observe(GATEWAY, [record("b"), record(None), record("a", domain_id=None)], {}, RUN_ID)
    assert [row.id for row in rows] == ["a", "b", None]
    assert rows[1].gateway_key == GATEWAY.key
    assert {row.read_in for row in rows} == {RUN_ID}
    assert (rows[1].marker_id, rows[1].domain_id, rows[1].status) == (1, "d1", "accepted")
    assert (rows[1].created_at, rows[1].updated_at) == ("2026-11-20T08:15:00Z", "2026-11-20T08:15:00Z")


def test_a_hit_names_rule_connection_and_reason():
    """One hit for each rule that a connection breaks, under its uid for ever."""
    problems: list[str] = []
    rule = parse_rule(
        {
            "id": "r1", "title": "t", "severity": "low", "require": {"domain_id": "d1", "gateway.name": "billing"},
            "tests": [
                {"name": "p", "given": {"domain_id": "d1", "gateway.name": "billing"}, "expect": "pass"},
                {"name": "f", "given": {}, "expect": "finding"},
            ],
        },
        Place("r1.json", problems),
        "r1",
    )  # fmt: skip
    assert rule, problems
    compiled = compile_rules([BoundRule(rule, Bindings({}, {}, NOW))])
    hits = evaluate(
        compiled, GATEWAY, [connection("c1"), connection("c2", domain_id="d2"), connection(None, domain_id=None)]
    )
    nameless = connection(None, domain_id=None).key
    assert {hit.connection for hit in hits.values()} == {"c2", nameless}
    hit = hits[build_uid("r1", GATEWAY.key, "connection", "c2")]
    assert (hit.rule, hit.explanation.message) == (rule, 'domain_id is "d2"; must be "d1"')
    assert hit.explanation.actual == {"domain_id": "d2", "gateway.name": "billing"}
