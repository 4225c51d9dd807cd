"""Placing records in their gateway and holding them against rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from audit.evaluate import Judge
from audit.model import Reading, build_uid
from audit.ruleset.parse import parse_rule
from audit.ruleset.policy import Policy
from audit.ruleset.problems import Place
from audit.subjects import observe
from tests.builders import GATEWAY, NOW, RUN_ID, connection, record

if TYPE_CHECKING:
    from audit.model import CoverageState


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


def judged(rule: dict[str, Any], reading: Reading, rows=()) -> tuple[list[str], bool]:
    """The messages of one rule on one reading, and whether it could be evaluated at all."""
    problems: list[str] = []
    cases: list[Any] = [{"name": word, "given": {}, "expect": word} for word in ("finding", "pass")]
    parsed = parse_rule(
        {"id": "r1", "title": "t", "severity": "low", "tests": cases, **rule}, Place("r1", problems), "r1"
    )
    assert parsed, problems
    verdict = Judge([parsed], Policy(), NOW).judge(reading, rows)
    return [hit.explanation.message for hit in verdict.hits.values()], verdict.evaluated == {"r1"}


def reading_of(state: CoverageState = "complete", **fields: Any) -> Reading:
    statuses = ["accepted", "accepted", "pendingAcceptance", "failed"]
    records = tuple(record(f"c{number}", status=status) for number, status in enumerate(statuses))
    return Reading(GATEWAY, state, records, **fields)


@pytest.mark.parametrize(
    ("require", "message"),
    [
        ({"connections": {"maximum": 3}}, "connections is 4; must be at most 3"),
        ({"accepted": {"maximum": 1}}, "accepted is 2; must be at most 1"),
        ({"pending": {"minimum": 2}}, "pending is 1; must be at least 2"),
        ({"permissions": {"not": {"contains": "*"}}}, 'permissions is "a", "*"; must not hold "*"'),
        ({"permissions": {"contains": "b"}}, 'permissions is "a", "*"; must hold "b"'),
        ({"name": {"like": "prod-*"}}, 'name is "billing"; must be like "prod-*"'),
    ],
)
def test_a_rule_about_a_gateway_sees_what_its_reading_tells(require, message):
    """Counts of its connections and its permissions, beside what the list of gateways says."""
    assert judged({"each": "gateway", "require": require}, reading_of(permissions=("a", "*"))) == ([message], True)


def test_permissions_that_could_not_be_read_judge_nothing():
    """Neither about the gateway nor about its connections; rules that do not read them go on."""
    for rule in (
        {"each": "gateway", "require": {"permissions": {"not": {"contains": "*"}}}},
        {"require": {"domain_id": {"enum": {"field": "gateway.permissions"}}}},
        {"when": {"gateway.permissions": {"contains": "x"}}, "require": False},
    ):
        assert judged(rule, reading_of("partial"), [connection()]) == ([], False)
    assert judged({"each": "gateway", "require": {"name": "x"}}, reading_of("partial"))[1]


def test_a_count_in_part_of_a_gateway_can_exceed_a_maximum_and_prove_nothing_else():
    """There are at least so many."""
    most = {"each": "gateway", "require": {"accepted": {"maximum": 1}}}
    assert judged(most, reading_of("partial")) == (["accepted is 2; must be at most 1"], True)
    least = {"each": "gateway", "require": {"accepted": {"minimum": 9}}}
    assert judged(least, reading_of("partial")) == ([], False)
    other = {"each": "gateway", "require": {"pending": {"maximum": {"field": "accepted"}}}}
    assert judged(other, reading_of("partial")) == ([], False)
    mixed = {"each": "gateway", "when": {"pending": {"maximum": 1}}, "require": {"accepted": {"maximum": 1}}}
    assert judged(mixed, reading_of("partial")) == ([], False)


def test_a_gateway_that_was_not_read_is_not_judged():
    """Not even by what the list of gateways says."""
    rule = {"each": "gateway", "require": {"name": "x"}}
    for reading in (
        Reading(GATEWAY, "not_covered"),
        Reading(GATEWAY, "out_of_scope"),
        Reading(GATEWAY, "complete", gone=True),
    ):
        assert judged(rule, reading) == ([], False)


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
    judge = Judge([rule], Policy(), NOW)
    rows = [connection("c1"), connection("c2", domain_id="d2"), connection(None, domain_id=None)]
    hits = judge.judge(Reading(GATEWAY, "complete"), rows).hits
    nameless = connection(None, domain_id=None).key
    assert {hit.connection for hit in hits.values()} == {"c2", nameless}
    hit = hits[build_uid("r1", GATEWAY.key, "connection", "c2")]
    assert (hit.rule, hit.explanation.message) == (rule, 'domain_id is "d2"; must be "d1"')
    assert hit.explanation.actual == {"domain_id": "d2", "gateway.name": "billing"}
