"""What a person reads about a finding: message, what was expected and what was there."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from audit.model import Connection, Gateway
from audit.ruleset.compiled import Bindings
from audit.ruleset.explain import Explanation, explain
from audit.ruleset.parse import parse_rule
from audit.ruleset.problems import Place
from audit.ruleset.program import BoundRule
from tests.builders import compile_rules

NOW = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)
GATEWAY = Gateway("cn-north-4", "p1", "g1", "prod-billing", "Running")
LISTS = {"known": ("d9",), "none": (), "many": ("a", "b")}


def ago(**distance: float) -> str:
    return (NOW - timedelta(**distance)).strftime("%Y-%m-%dT%H:%M:%SZ")


def explained(require: Any, when: Any = True, params: Any = None, **fields: Any) -> Explanation:
    """What is said about a connection, which the rule has to find."""
    cases = [{"name": "f", "given": {}, "expect": "finding"}, {"name": "p", "given": {}, "expect": "pass"}]
    value = {
        "id": "r", "title": "t", "severity": "low", "when": when, "require": require, "params": params or {},
        "tests": cases,
    }  # fmt: skip
    problems: list[str] = []
    rule = parse_rule(value, Place("r.json", problems), "r")
    assert rule is not None, problems
    bound = BoundRule(rule, Bindings(params or {}, LISTS, NOW))
    own: dict[str, Any] = {
        "region": "cn-north-4", "project_id": "p1", "gateway_id": "g1", "id": "c1", "marker_id": 7,
        "created_at": ago(days=2), "updated_at": ago(days=1), "domain_id": "d1", "status": "accepted",
        "status_since": ago(hours=1), "read_in": "r",
    }  # fmt: skip
    connection = Connection(**{**own, **fields})
    assert compile_rules([bound])([connection], GATEWAY) == [(connection, 0)]
    return explain(bound, connection, GATEWAY)


@pytest.mark.parametrize(
    ("require", "fields", "message"),
    [
        ({"domain_id": "d9"}, {}, 'domain_id is "d1"; must be "d9"'),
        ({"domain_id": "d9"}, {"domain_id": None}, 'domain_id is absent or unreadable; must be "d9"'),
        ({"domain_id": None}, {}, 'domain_id is "d1"; must be null'),
        ({"domain_id": {"not": None}}, {"domain_id": None}, "domain_id is absent or unreadable"),
        ({"status": {"not": "failed"}}, {"status": "failed"}, 'status is "failed"; not allowed'),
        ({"status": ["failed", "rejected"]}, {}, 'status is "accepted"; must be one of "failed", "rejected"'),
        (
            {"status": {"not": ["accepted", "failed"]}},
            {},
            'status is "accepted"; must not be one of "accepted", "failed"',
        ),
        ({"domain_id": [*"abcdefg"]}, {}, 'domain_id is "d1"; must be one of "a", "b", "c", "d", "e", "f" and 1 more'),
        ({"domain_id": {"enum": {"list": "known"}}}, {}, 'domain_id is "d1"; must be in the list "known" (1 entry)'),
        ({"domain_id": {"enum": {"list": "none"}}}, {}, 'domain_id is "d1"; must be in the list "none" (0 entries)'),
        (
            {"domain_id": {"not": {"enum": {"list": "many"}}}},
            {"domain_id": "a"},
            'domain_id is "a"; must not be in the list "many" (2 entries)',
        ),
        ({"gateway.name": {"like": "test-*"}}, {}, 'gateway.name is "prod-billing"; must be like "test-*"'),
        (
            {"gateway.name": {"not": {"like": "prod-*"}}},
            {},
            'gateway.name is "prod-billing"; must not be like "prod-*"',
        ),
        ({"marker_id": {"minimum": 8}}, {}, "marker_id is 7; must be at least 8"),
        ({"marker_id": {"maximum": 6.5}}, {}, "marker_id is 7; must be at most 6.5"),
        ({"marker_id": {"maximum": 6}}, {"marker_id": None}, "marker_id is absent or unreadable; must be at most 6"),
        ({"marker_id": {"not": {"minimum": 7}}}, {}, "marker_id is 7; must be below 7"),
        ({"marker_id": {"minimum": 8, "not": 7}}, {}, "marker_id is 7; must be at least 8 and not allowed"),
        (
            {"created_at": {"const": {"field": "updated_at"}}},
            {},
            'created_at is "2026-11-20T12:00:00Z"; must be the same as updated_at ("2026-11-21T12:00:00Z")',
        ),
        (
            {"domain_id": {"not": {"const": {"field": "gateway.project_id"}}}},
            {"domain_id": "p1"},
            'domain_id is "p1"; must not be the same as gateway.project_id ("p1")',
        ),
    ],
)
def test_values(require, fields, message):
    """What it is, and what it must be; nothing else."""
    assert explained(require, **fields).message == message


@pytest.mark.parametrize(
    ("require", "fields", "message"),
    [
        (
            {"status_since": {"maxAge": "PT24H"}},
            {"status": "pendingAcceptance", "status_since": ago(hours=49)},
            "pending for 49 h; at most 24 h allowed",
        ),
        (
            {"status_since": {"maxAge": "PT24H"}},
            {"status": "pendingAcceptance", "status_since": ago(hours=24, seconds=1)},
            "pending for just over 24 h; at most 24 h allowed",
        ),
        (
            {"status_since": {"maxAge": "P30D"}},
            {"status": "rejected", "status_since": ago(days=31, hours=5, minutes=7)},
            "rejected for 31 days 5 h; at most 30 days allowed",
        ),
        (
            {"status_since": {"maxAge": "PT24H"}},
            {"status": None, "status_since": ago(hours=49)},
            "without a readable status for 49 h; at most 24 h allowed",
        ),
        (
            {"status_since": {"maxAge": "PT24H"}},
            {"status_since": None},
            "status_since is absent or unreadable; at most 24 h allowed",
        ),
        ({"created_at": {"maxAge": "PT1H"}}, {}, "created_at was 48 h ago; at most 1 h allowed"),
        ({"created_at": {"minAge": "P7D"}}, {}, "created_at was 48 h ago; at least 7 days required"),
        (
            {"created_at": {"minAge": "P2D"}},
            {"created_at": ago(hours=47, minutes=59, seconds=59)},
            "created_at was 47 h 59 min ago; at least 48 h required",
        ),
        (
            {"created_at": {"minAge": "PT48H30S"}},
            {},
            "created_at was just under 48 h ago; at least 48 h required",
        ),
        ({"created_at": {"not": {"maxAge": "P2D"}}}, {}, "created_at was 48 h ago; more than 48 h required"),
        ({"created_at": {"not": {"minAge": "P1D"}}}, {}, "created_at was 48 h ago; less than 24 h required"),
        (
            {"created_at": {"minAge": "PT0S"}},
            {"created_at": ago(minutes=-5)},
            "created_at lies 5 min in the future; not allowed",
        ),
        (
            {"created_at": {"minAge": "PT1H"}},
            {"created_at": ago(seconds=-5)},
            "created_at lies 5 s in the future; at least 1 h required",
        ),
        (
            {"created_at": {"not": {"maxAge": "PT1H"}}},
            {"created_at": ago(seconds=-5)},
            "created_at lies 5 s in the future; more than 1 h required",
        ),
    ],
)
def test_ages(require, fields, message):
    """How long, in words that compare at a glance, and never "24 h; at most 24 h"."""
    assert explained(require, **fields).message == message


@pytest.mark.parametrize(
    ("require", "fields", "message"),
    [
        (
            {"domain_id": "d9", "marker_id": 7, "status": "failed"},
            {},
            'domain_id is "d1"; must be "d9"; status is "accepted"; must be "failed"',
        ),
        (
            {"domain_id": {"anyOf": ["d8", {"like": "e*"}]}},
            {},
            'domain_id is "d1"; must be "d8" or must be like "e*"',
        ),
        (
            {"anyOf": [{"domain_id": "d9"}, {"status": "failed"}]},
            {},
            'domain_id is "d1"; must be "d9", or status is "accepted"; must be "failed"',
        ),
        (
            {"anyOf": [{"domain_id": "d9", "marker_id": 8}, {"status": "failed"}]},
            {},
            'domain_id is "d1"; must be "d9"; marker_id is 7; must be 8, or status is "accepted"; must be "failed"',
        ),
        (
            {"not": {"domain_id": "d1", "status": "accepted"}},
            {},
            'domain_id is "d1"; not allowed, or status is "accepted"; not allowed',
        ),
        ({"not": {"anyOf": [{"domain_id": "d1"}, {"status": "failed"}]}}, {}, 'domain_id is "d1"; not allowed'),
        ({"anyOf": [False, {"domain_id": "d9"}]}, {}, 'domain_id is "d1"; must be "d9"'),
    ],
)
def test_combinations(require, fields, message):
    """Only what is wrong is said, each fact once."""
    assert explained(require, **fields).message == message


def test_require_false_says_what_must_never_occur():
    """There is nothing to demand but that it were not there."""
    said = explained(False, when={"status": "failed", "marker_id": {"minimum": 7, "maximum": 9}}, status="failed")
    assert said.message == 'status is "failed"; marker_id is 7; this must never occur'
    assert said.expected is False
    assert said.actual == {"status": "failed", "marker_id": 7}
    assert explained(False).message == "it is there; this must never occur"
    assert explained({"anyOf": [False, {"not": True}]}, when={"status": "accepted"}).message == (
        'status is "accepted"; this must never occur'
    )


def test_expected_and_actual():
    """The requirement with its parameters filled in, and every field that it looks at; both can be written as JSON."""
    require = {
        "created_at": {"maxAge": {"param": "most"}},
        "anyOf": [{"domain_id": {"enum": {"list": "known"}}}, {"marker_id": {"maximum": {"param": "m"}}}],
    }
    said = explained(require, params={"most": "PT24H", "m": 5})
    assert said.expected == {
        "created_at": {"maxAge": "PT24H"},
        "anyOf": [{"domain_id": {"enum": {"list": "known"}}}, {"marker_id": {"maximum": 5}}],
    }
    assert said.actual == {"created_at": ago(days=2), "domain_id": "d1", "marker_id": 7}
    assert msgspec.json.decode(msgspec.json.encode(said.actual)) == said.actual


def test_long_and_hostile_values_are_shown_safely():
    """Cut at 80 characters, and nothing that moves a cursor or turns the direction of writing."""
    long = explained({"domain_id": "d9"}, domain_id="x" * 500).message
    assert long == f'domain_id is "{"x" * 79}…"; must be "d9"'
    said = explained({"domain_id": "d9"}, domain_id="a\x1b[2J\u202eb\n").message
    assert said == 'domain_id is "a\\x1b[2J\\u202eb\\n"; must be "d9"'
    status = explained({"status_since": {"maxAge": "PT0S"}}, status="x\n" * 100).message
    assert "\n" not in status
    assert len(status) < 150
