"""The rules that come with the product, and the guide to writing one's own."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from audit.model import Connection, Gateway
from audit.ruleset.cases import failing_cases
from audit.ruleset.compiled import Bindings, BoundRule, compile_rules
from audit.ruleset.explain import explain
from audit.ruleset.language import CONNECTION_STATUSES, KEYWORDS, REFS, SUBJECTS
from audit.ruleset.load import load_rule_set
from audit.ruleset.parse import Rule, parse_rule
from audit.ruleset.problems import Place

DIRECTORY = Path(__file__).parent.parent / "rules"
LOADED = load_rule_set(DIRECTORY, None)
RULES = {rule.id: rule for rule in LOADED.rules}
GUIDE = (DIRECTORY / "README.md").read_text()
NOW = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)
GATEWAY = Gateway("cn-north-4", "p1", "g1", "billing", "Running")
FIELDS = ("id", "marker_id", "domain_id", "status", "created_at", "updated_at")


def ago(**distance: float) -> str:
    return (NOW - timedelta(**distance)).strftime("%Y-%m-%dT%H:%M:%SZ")


def messages(rule_id: str, lists: Any = None, **fields: Any) -> list[str]:
    """What one shipped rule says about a connection that is otherwise in order."""
    rule = RULES[rule_id]
    bound = BoundRule(rule, Bindings(rule.params, lists or {}, NOW))
    own: dict[str, Any] = {
        "region": "cn-north-4", "project_id": "p1", "gateway_id": "g1", "id": "c1", "marker_id": 7,
        "created_at": ago(days=2), "updated_at": ago(days=1), "domain_id": "d1", "status": "accepted",
        "status_since": ago(hours=1), "read_in": "r",
    }  # fmt: skip
    connection = Connection(**{**own, **fields})
    hits = compile_rules([bound]).find([connection], GATEWAY)
    return [explain(bound, row, GATEWAY).message for row, _ in hits]


@pytest.mark.parametrize("rule", LOADED.rules, ids=lambda rule: rule.id)
def test_every_shipped_rule_passes_its_own_tests(rule: Rule):
    """And says everything that a person who finds it in chat needs to know."""
    assert failing_cases(rule) == []
    assert len({case.name for case in rule.cases}) == len(rule.cases) >= 4
    for text in (rule.title, rule.description, rule.remediation):
        assert text == text.strip() != ""
    assert not rule.title.endswith(".")
    assert rule.description.endswith(".")
    assert rule.remediation.endswith(".")
    assert len(rule.controls) >= 2
    assert all(rule.controls.values())


@pytest.mark.parametrize("rule", LOADED.rules, ids=lambda rule: rule.id)
def test_the_cases_of_every_shipped_rule_hold_its_edge(rule: Rule):
    """Each rule has a case on either side of its edge: two that differ in one field only and come out differently."""
    cases = [(dict(case.given), case) for case in rule.cases]
    assert any(
        len({field for field in (*one, *other) if one.get(field) != other.get(field)}) == 1
        for one, a in cases
        for other, b in cases
        if a.expect == "finding" and b.expect == "pass" and (a.params, a.lists) == (b.params, b.lists)
    )


def test_no_shipped_policy_approves_anyone():
    """Whom to trust is the site's decision: the list comes empty, and the rule that reads it is not configured."""
    assert {name: values for name, values in LOADED.policy.lists.items() if values} == {}
    assert LOADED.empty_lists_of(RULES["only-approved-domains-accepted"]) == ["approved-domains"]


@pytest.mark.parametrize("field", FIELDS)
def test_malformed_record_names_the_field(field):
    """Each documented field that is absent or unreadable, and no other."""
    assert messages("malformed-record", **{field: None}) == [f"{field} is absent or unreadable"]


def test_malformed_record_edges():
    """Zero, empty and unknown are values; several faults make one message."""
    assert messages("malformed-record", marker_id=0, domain_id="", status="brandNew") == []
    assert messages("malformed-record", status_since=None) == []
    (message,) = messages("malformed-record", **dict.fromkeys(FIELDS))
    assert message == "; ".join(f"{field} is absent or unreadable" for field in FIELDS)


def test_pending_too_long():
    """Exactly a day is allowed, one second more is not; only what is pending waits."""

    def pending(**since: float) -> list[str]:
        return messages("pending-too-long", status="pendingAcceptance", status_since=ago(**since))

    assert pending(hours=24) == []
    assert pending(hours=24, seconds=1) == ["pending for just over 24 h; at most 24 h allowed"]
    assert pending(hours=49) == ["pending for 49 h; at most 24 h allowed"]
    assert pending(days=4) == ["pending for 4 days; at most 24 h allowed"]
    assert pending(hours=-1) == []
    assert messages("pending-too-long", status="pendingAcceptance", status_since=None) == [
        "status_since is absent or unreadable; at most 24 h allowed"
    ]
    assert messages("pending-too-long", status="creating", status_since=ago(days=9)) == []


def test_only_approved_domains_accepted():
    """By exact id; what cannot be read is not approved."""
    lists = {"approved-domains": ("d1", "d2")}
    assert messages("only-approved-domains-accepted", lists) == []
    assert messages("only-approved-domains-accepted", lists, domain_id="d3") == [
        'domain_id is "d3"; must be in the list "approved-domains" (2 entries)'
    ]
    assert messages("only-approved-domains-accepted", lists, domain_id=None) == [
        'domain_id is absent or unreadable; must be in the list "approved-domains" (2 entries)'
    ]
    assert messages("only-approved-domains-accepted", lists, domain_id="d3", status="rejected") == []


def test_no_failed_connections():
    """One status, and nothing else."""
    assert messages("no-failed-connections", status="failed") == ['status is "failed"; not allowed']
    assert messages("no-failed-connections", status="Failed") == []


@pytest.mark.parametrize("status", [*CONNECTION_STATUSES, None])
def test_known_status_knows_the_six(status):
    """Null is the business of malformed-record."""
    assert messages("known-status", status=status) == []


@pytest.mark.parametrize("status", ["suspended", "Accepted", "accepted ", "", "null"])
def test_known_status_finds_any_other(status):
    """To the letter."""
    (message,) = messages("known-status", status=status)
    assert message.startswith(f'status is "{status}"; must be one of "pendingAcceptance", "creating", "accepted"')


@pytest.mark.parametrize("field", ["created_at", "updated_at", "status_since"])
def test_no_future_timestamps(field):
    """15 minutes are tolerated, one second more is not; null is the business of malformed-record."""

    def ahead(**distance: float) -> list[str]:
        later = (NOW + timedelta(**distance)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return messages("no-future-timestamps", **{field: later})

    assert ahead() == ahead(minutes=15) == messages("no-future-timestamps", **{field: None}) == []
    assert ahead(minutes=15, seconds=1) == [f"{field} lies 15 min 1 s in the future; at most 15 min allowed"]
    assert ahead(days=400) == [f"{field} lies 400 days in the future; at most 15 min allowed"]


def test_no_future_timestamps_names_each():
    """Several times in one message, and an absent one excuses none."""
    (message,) = messages("no-future-timestamps", created_at=ago(hours=-1), updated_at=None, status_since=ago(hours=-2))
    assert message == (
        "created_at lies 1 h in the future; at most 15 min allowed; "
        "status_since lies 2 h in the future; at most 15 min allowed"
    )


@pytest.mark.parametrize("status", ["creating", "deleting"])
def test_not_stuck_in_transition(status):
    """An hour is allowed, one second more is not."""

    def moving(**since: float) -> list[str]:
        return messages("not-stuck-in-transition", status=status, status_since=ago(**since))

    assert moving(hours=1) == []
    assert moving(hours=-1) == []
    assert moving(hours=1, seconds=1) == [f"{status} for just over 1 h; at most 1 h allowed"]
    assert moving(days=90) == [f"{status} for 90 days; at most 1 h allowed"]
    assert messages("not-stuck-in-transition", status=status, status_since=None) == [
        "status_since is absent or unreadable; at most 1 h allowed"
    ]
    assert messages("not-stuck-in-transition", status="failed", status_since=ago(days=9)) == []


def test_no_rejected_backlog():
    """90 days are allowed, one second more is not; only what is rejected counts."""
    found = ["rejected for just over 90 days; at most 90 days allowed"]
    assert messages("no-rejected-backlog", status="rejected", status_since=ago(days=90)) == []
    assert messages("no-rejected-backlog", status="rejected", status_since=ago(days=90, seconds=1)) == found
    assert messages("no-rejected-backlog", status="failed", status_since=ago(days=91)) == []


def table(header: str) -> list[str]:
    """The rows of the table with this header in the guide."""
    rows = GUIDE.split(header + "\n", 1)[1].split("\n\n", 1)[0].splitlines()
    return rows[1:]


def test_the_guide_lists_every_field():
    """Name, type and meaning as in the code."""
    assert table("| field | type | meaning |") == [
        f"| `{name}` | {field.type} | {field.meaning} |" for name, field in SUBJECTS["connection"].items()
    ]


def test_the_guide_lists_every_condition():
    """What it is for, what it takes, and what it means, as in the code."""
    rows = []
    for name, word in KEYWORDS.items():
        written = "an array of values" if word.takes == "values" else f"a {word.takes}"
        *others, last = [written, *(f"a {kind}" for kind in REFS[word.takes])]
        takes = f"{', '.join(others)} or {last}"
        rows.append(f"| `{name}` | {', '.join(word.types)} | {takes} | {word.meaning} |")
    assert table("| condition | fields of type | takes | holds when the field |") == rows


def test_the_guide_lists_every_shipped_rule():
    """Id, severity and title as in the files."""
    assert table("| rule | severity | what it says |") == [
        f"| [`{rule.id}`]({rule.id}.json) | {rule.severity} | {rule.title} |" for rule in LOADED.rules
    ]


def test_the_example_in_the_guide_is_the_shipped_rule():
    """To the letter."""
    (example,) = re.findall(r"```json\n(\{\n  \"\$schema\".*?)```", GUIDE, re.DOTALL)
    assert example == (DIRECTORY / "pending-too-long.json").read_text()


def test_the_policy_in_the_guide_works():
    """Every other block of JSON is one that the shipped rules load with."""
    blocks = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)]
    (policy,) = (block for block in blocks if "lists" in block)
    assert set(policy) == {"lists", "params"}
    assert set(policy["lists"]) == set(LOADED.policy.lists)
    assert set(policy["params"]) == set(LOADED.policy.params)


@pytest.mark.parametrize(
    "condition", re.findall(r"^\| `(\{.*\})` \|", GUIDE, re.MULTILINE), ids=lambda text: text.replace("::", ":")
)
def test_every_condition_in_the_guide_is_one(condition):
    """What stands in a table as an example of a condition is read without a problem."""
    value = {
        "id": "r", "title": "t", "severity": "low", "require": json.loads(condition),
        "params": {"longest-wait": "PT24H"} if "longest-wait" in condition else {},
        "tests": [{"name": "f", "given": {}, "expect": "finding"}, {"name": "p", "given": {}, "expect": "pass"}],
    }  # fmt: skip
    problems: list[str] = []
    assert parse_rule(value, Place("r.json", problems), "r") is not None, problems


ERRORS: list[tuple[str, Any, Any]] = [
    ("severity", "sevrity", None),
    ("when", "when", {"state": "pendingAcceptance"}),
    ("when", "when", {"status": "pending"}),
    ("require", "require", {"status_since": {"maxage": {"param": "longest-wait"}}}),
    ("require", "require", {"marker_id": {"maxAge": {"param": "longest-wait"}}}),
    ("params", "params", {"longest-wait": "24h"}),
    ("id", "id", "pending"),
]


@pytest.mark.parametrize(("key", "name", "to"), ERRORS)
def test_the_errors_in_the_guide_are_those_that_come(key, name, to):
    """Each line of the guide is made by the mistake it speaks of."""
    value = json.loads((DIRECTORY / "pending-too-long.json").read_text())
    old = value.pop(key)
    value[name] = old if to is None else to
    problems: list[str] = []
    assert parse_rule(value, Place("my-rules/pending-too-long.json", problems), "pending-too-long") is None
    (line,) = problems
    assert f"\n{line}\n" in GUIDE
