"""A rule in an English sentence, with the values in force and where they come from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from audit.ruleset.describe import describe_rule, explain_rule
from audit.ruleset.load import load_rule_set
from audit.ruleset.parse import parse_rule
from audit.ruleset.problems import Place

if TYPE_CHECKING:
    from pathlib import Path

CASES: list[dict[str, Any]] = [{"name": name, "given": {}, "expect": name} for name in ("finding", "pass")]


def sentence(rule: dict[str, Any]) -> str:
    problems: list[str] = []
    tests = rule.pop("tests", CASES)
    parsed = parse_rule({"id": "r", "title": "t", "severity": "low", **rule, "tests": tests}, Place("r", problems), "r")
    assert parsed, problems
    return describe_rule(parsed, parsed.params)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"require": {"status": "accepted"}}, 'For each connection, it is required that status is "accepted".'),
        ({"when": {"status": "failed"}, "require": False}, 'There must be no connection where status is "failed".'),
        (
            {"when": {"status": ["failed", "rejected"]}, "require": {"marker_id": None}},
            'For each connection where status is one of "failed", "rejected", it is required that marker_id is null.',
        ),
        (
            {"params": {"wait": "PT48H"}, "require": {"created_at": {"maxAge": {"param": "wait"}}}},
            "For each connection, it is required that created_at is at most 48 h ago (wait).",
        ),
        (
            {"require": {"created_at": {"not": {"minAge": "PT1H"}}}},
            "For each connection, it is required that created_at is less than 1 h ago (or is null).",
        ),
        (
            {"require": {"created_at": {"minAge": "PT0S", "not": {"maxAge": "PT0S"}}}},
            (
                "For each connection, it is required that created_at is not in the future and created_at "
                "is in the past (or is null)."
            ),
        ),
        (
            {"require": {"created_at": {"minAge": "-PT5M"}, "updated_at": {"not": {"maxAge": "-PT5M"}}}},
            (
                "For each connection, it is required that created_at is at most 5 min in the future and "
                "updated_at is less than 5 min in the future (or is null)."
            ),
        ),
        (
            {"each": "gateway", "require": {"permissions": {"not": {"contains": "*"}}, "pending": 3}},
            'For each gateway, it is required that permissions does not hold "*" (or is null) and pending is 3.',
        ),
        (
            {"require": {"domain_id": {"enum": {"field": "gateway.permissions"}}}},
            "For each connection, it is required that domain_id is in gateway.permissions.",
        ),
        (
            {"require": {"domain_id": {"not": {"enum": {"list": "blocked"}}}}},
            'For each connection, it is required that domain_id is not in the list "blocked".',
        ),
        (
            {"require": {"not": {"status": "failed", "anyOf": [{"marker_id": 1}, {"marker_id": 2}]}}},
            (
                'For each connection, it is required that either status is not "failed" or (marker_id is not 1 and '
                "marker_id is not 2)."
            ),
        ),
        (
            {"require": {"status": "failed", "anyOf": [{"marker_id": 1}, {"gateway.name": {"like": "a*"}}]}},
            (
                'For each connection, it is required that status is "failed" and (either marker_id is 1 '
                'or gateway.name is like "a*").'
            ),
        ),
        (
            {
                "each": "change",
                "when": {"change": "modified"},
                "require": {"after.domain_id": {"const": {"field": "before.domain_id"}}},
                "tests": [{"before": None, **case} for case in CASES],
            },
            (
                'For each change of a connection since the reading before where change is "modified", it '
                "is required that "
                "after.domain_id is the same as before.domain_id."
            ),
        ),
        (
            {
                "each": {"group": ["gateway.id", "domain_id"]},
                "when": {"status": "accepted"},
                "require": {"count": {"maximum": 5}},
                "tests": [{**case, "given": [{}]} for case in CASES],
            },
            (
                'For each group of connections where status is "accepted" with the same domain_id and '
                "gateway.id, it is "
                "required that count is at most 5."
            ),
        ),
    ],
)
def test_a_rule_is_said_in_one_sentence(rule, expected):
    """What it is about, for which of them, and what must hold; denials say that null passes them."""
    assert sentence(rule) == expected


def test_values_in_force_name_their_source(tmp_path: Path):
    """The rule itself, the policy, its overrides and waivers; a list says whether it holds anything."""
    rule = {
        "id": "slow", "title": "Nobody waits", "severity": "low", "params": {"wait": "PT24H", "most": 5},
        "description": "Why.", "remediation": "What.", "controls": {"F": ["1", "2"]}, "tags": ["x"],
        "when": {"domain_id": {"enum": {"list": "known"}}, "marker_id": {"maximum": {"param": "most"}}},
        "require": {"status_since": {"maxAge": {"param": "wait"}}},
        "tests": [
            {"name": "f", "given": {"status_since": None, "domain_id": "d"}, "lists": {"known": ["d"]},
             "expect": "finding"},
            {"name": "p", "given": {}, "expect": "pass"},
        ],
    }  # fmt: skip
    policy = {
        "lists": {"known": []},
        "params": {"slow": {"wait": "PT12H"}},
        "overrides": [
            {"match": {"gateway.name": {"like": "prod-*"}}, "params": {"slow": {"wait": "PT1H"}},
             "severity": {"slow": "high"}},
            {"match": {"gateway.id": "g1"}, "disable": ["slow"]},
        ],
        "waivers": [
            {
                "id": "w1", "rule": "slow", "match": {"domain_id": "a\u202eb"}, "reason": "because",
                "approved_by": "me", "ticket": "T-1", "expires": "2026-12-31T00:00:00Z",
            }
        ],
    }  # fmt: skip
    (tmp_path / "slow.json").write_text(json.dumps(rule))
    (tmp_path / "policy.json").write_text(json.dumps(policy))
    rule_set = load_rule_set(tmp_path, None)
    assert explain_rule(rule_set.rules[0], rule_set, "2026-11-22T08:15:00Z").splitlines() == [
        "slow: Nobody waits",
        "",
        (
            'For each connection where domain_id is in the list "known" and marker_id is at most 5 '
            "(most), it is required "
            "that status_since is at most 12 h ago (wait)."
        ),
        "",
        "why: Why.",
        "what to do: What.",
        "controls: F 1, 2",
        "tags: x",
        "",
        "in force",
        "  severity: low (the rule's own)",
        "  wait: PT12H (from the policy; the rule's own is PT24H)",
        "  most: 5 (the rule's own)",
        "  list known: empty, so that the rule is not evaluated (from the policy)",
        '  where gateway.name is like "prod-*": wait: PT1H, severity: high (from the policy\'s override 0)',
        '  where gateway.id is "g1": does not apply (from the policy\'s override 1)',
        (
            '  waived until 2026-12-31T00:00:00Z where domain_id is "a\\u202eb" (from the policy\'s waiver w1: '
            "because, me, T-1)"
        ),
    ]
    assert "  no longer waived since 2026-12-31T00:00:00Z where" in explain_rule(
        rule_set.rules[0], rule_set, "2026-12-31T00:00:00Z"
    )
