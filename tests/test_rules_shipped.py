"""The rules that come with the product, and the guide to writing one's own."""

from __future__ import annotations

import json
import re
import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from audit.errors import UsageError
from audit.evaluate import Judge
from audit.model import Connection, CoverageState, EndpointConnection, Gateway, Reading
from audit.ruleset.cases import failing_cases
from audit.ruleset.compiled import Bindings
from audit.ruleset.explain import explain
from audit.ruleset.language import (
    CONNECTION_STATUSES,
    GROUP_KEYS,
    KEYWORDS,
    LISTED,
    REFS,
    SUBJECTS,
    All,
    AnyOf,
    required_of,
)
from audit.ruleset.load import load_rule_set
from audit.ruleset.parse import Case, Rule, parse_rule
from audit.ruleset.policy import Policy, parse_policy
from audit.ruleset.problems import Place
from audit.ruleset.program import BoundRule
from audit.subjects import observe
from tests.builders import compile_rules, record

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    hits = compile_rules([bound])([connection], GATEWAY)
    return [explain(bound, row, GATEWAY).message for row, _ in hits]


def judged(
    rule_id: str,
    records: list[EndpointConnection],
    before: list[EndpointConnection] | None = None,
    state: CoverageState = "complete",
    policy: Policy = LOADED.policy,
) -> list[str] | None:
    """What one shipped rule says of a gateway under the shipped policy, None where it is not evaluated."""
    past = None if before is None else {row.key: row for row in observe(GATEWAY, before, {}, "r")}
    reading = Reading(GATEWAY, state, tuple(records))
    verdict = Judge([RULES[rule_id]], policy, NOW).judge(reading, observe(GATEWAY, records, past or {}, "r"), past)
    assert verdict.failed == {}
    if rule_id not in verdict.evaluated:
        assert set(verdict.unable) == {rule_id}
        return None
    return [hit.explanation.message for hit in verdict.hits.values()]


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
    assert json.loads((DIRECTORY / f"{rule.id}.json").read_text())["$schema"] == "../audit/ruleset/rule.schema.json"


CONTROLS = {
    "ISO 27001:2022": r"A\.(5\.([1-9]|[12]\d|3[0-7])|6\.[1-8]|7\.([1-9]|1[0-4])|8\.([1-9]|[12]\d|3[0-4]))",
    "NIST SP 800-53 r5": r"(AC|AU|CA|CM|RA|SC|SI)-\d{1,2}(\(\d{1,2}\))?",
    "CSA CCM v4": r"(CCC-0[1-9]|GRC-0[1-8]|IAM-(0[1-9]|1[0-6])|IVS-0[1-9]|LOG-(0[1-9]|1[0-3]))",
}


@pytest.mark.parametrize("rule", LOADED.rules, ids=lambda rule: rule.id)
def test_every_control_is_one_of_its_framework(rule: Rule):
    """By its form: that it fits the rule, a person has to judge."""
    for framework, ids in rule.controls.items():
        assert [each for each in ids if not re.fullmatch(CONTROLS[framework], each)] == []


def facts_of(case: Case) -> dict[Any, Any]:
    """What a case gives, fact by fact."""
    if len(case.given) > 1:
        return dict(enumerate(case.given))
    after = {name: value for given in case.given for name, value in given.items()}
    return {**after, **{f"before {name}": value for name, value in (case.before or {}).items()}}


@pytest.mark.parametrize("rule", LOADED.rules, ids=lambda rule: rule.id)
def test_the_cases_of_every_shipped_rule_hold_its_edge(rule: Rule):
    """Each rule has a case on either side of its edge: two that differ in one field only and come out differently.

    Of groups, two that differ in one connection only.
    """
    cases = [(facts_of(case), case) for case in rule.cases]
    assert any(
        len({field for field in (*one, *other) if one.get(field) != other.get(field)}) == 1
        for one, a in cases
        for other, b in cases
        if a.expect == "finding" and b.expect == "pass" and (a.params, a.lists) == (b.params, b.lists)
    )


def weakened(rule: Rule) -> Iterator[tuple[str, Rule]]:
    """The rule without one of its conditions, or without one of the fields that make its groups."""
    for part in ("when", "require"):
        predicate = getattr(rule, part)
        terms = predicate.terms if isinstance(predicate, All | AnyOf) else (predicate,)
        for number in range(len(terms)):
            rest: Any = All(terms[:number] + terms[number + 1 :])
            yield f"{part} {number}", replace(rule, **{part: rest})
    for key in rule.keys if len(rule.keys) > 1 else ():
        yield key, replace(rule, keys=tuple(other for other in rule.keys if other != key))


@pytest.mark.parametrize("rule", LOADED.rules, ids=lambda rule: rule.id)
def test_nothing_in_a_shipped_rule_can_go_unnoticed(rule: Rule):
    """Without any one of its conditions or keys, some case comes out otherwise."""
    assert [what for what, weaker in weakened(rule) if not failing_cases(weaker)] == []


def test_no_shipped_policy_approves_anyone():
    """Whom to trust is the site's decision: the list comes empty, and the rule that reads it is not configured."""
    assert {name: values for name, values in LOADED.policy.lists.items() if values} == {}
    assert LOADED.empty_lists_of(RULES["only-approved-domains-accepted"]) == ["approved-domains"]


def test_the_shipped_policy_changes_nothing():
    """Its parameters are those of the rules, to be seen and changed; nothing is excepted."""
    assert {rule_id: RULES[rule_id].params for rule_id in LOADED.policy.params} == LOADED.policy.params
    assert (LOADED.policy.overrides, LOADED.policy.waivers) == ((), ())


def test_the_examples_in_the_shipped_policy_work():
    """What its comment shows can be put in its place; each part has a word."""
    value = json.loads((DIRECTORY / "policy.json").read_text())
    comment = value["$comment"]
    assert comment.keys() == {"how to use this file", *value} - {"$schema", "$comment"}
    for part in ("overrides", "waivers"):
        text, example = comment[part]
        assert text.endswith(".")
        value[part] = [example]
    problems: list[str] = []
    policy = parse_policy(value, Place("policy.json", problems), RULES)
    assert problems == []
    assert len(policy.overrides) == len(policy.waivers) == 1


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


def test_unique_marker_id():
    """Two connections of one gateway; a partial reading can show it, and cannot show that there is none."""
    found = ["count is 2; must be at most 1"]
    assert judged("unique-marker-id", [record("c1", marker_id=7), record("c2", marker_id=7)]) == found
    assert judged("unique-marker-id", [record("c1", marker_id=7), record("c2", marker_id=8)]) == []
    assert judged("unique-marker-id", [record("c1", marker_id=None), record("c2", marker_id=None)]) == []
    assert judged("unique-marker-id", [record("c1"), record("c2")], state="partial") == found
    assert judged("unique-marker-id", []) == []


def test_a_maximum_is_judged_in_part_and_an_exact_count_is_not():
    """Which is why the shipped rules, and the guide, set a maximum."""
    exact = {**json.loads((DIRECTORY / "unique-marker-id.json").read_text()), "require": {"count": 1}}
    rule = parse_rule(exact, Place("r", []), "unique-marker-id")
    assert rule is not None
    assert failing_cases(rule) == []
    reading = Reading(GATEWAY, "partial", (record("c1"), record("c2")))
    rows = observe(GATEWAY, reading.connections, {}, "r")
    assert Judge([rule], Policy(), NOW).judge(reading, rows).evaluated == frozenset()
    assert '`{"count": {"maximum": 1}}` rather than `{"count": 1}`' in GUIDE


def test_unique_marker_id_is_said_once_for_each_marker():
    """However many connections share it."""
    markers = [7, 7, 7, 8, 8, 9]
    found = judged("unique-marker-id", [record(f"c{number}", marker_id=m) for number, m in enumerate(markers)])
    assert sorted(found or []) == ["count is 2; must be at most 1", "count is 3; must be at most 1"]


def test_connections_per_domain():
    """20 in all statuses are allowed, one more is not; each account counts for itself, an unreadable one not at all."""

    def of(count: int, domain_id: str | None, status: str = "accepted") -> list[EndpointConnection]:
        return [record(f"{domain_id}-{status}-{n}", domain_id=domain_id, status=status) for n in range(count)]

    found = ["count is 21; must be at most 20"]
    assert judged("connections-per-domain", of(20, "d1") + of(20, "d2") + of(21, None)) == []
    assert judged("connections-per-domain", of(21, "d1") + of(20, "d2")) == found
    assert judged("connections-per-domain", of(20, "d1") + of(1, "d1", "rejected")) == found
    assert judged("connections-per-domain", of(21, "d1"), state="partial") == found


def test_accepted_per_gateway():
    """100 are allowed, one more is not; only what is accepted counts."""

    def of(accepted: int, pending: int = 0) -> list[EndpointConnection]:
        statuses = ["accepted"] * accepted + ["pendingAcceptance"] * pending
        return [record(f"c{number}", status=status) for number, status in enumerate(statuses)]

    assert judged("accepted-per-gateway", of(100, pending=9)) == []
    assert judged("accepted-per-gateway", of(101)) == ["count is 101; must be at most 100"]
    assert judged("accepted-per-gateway", of(101), state="partial") == ["count is 101; must be at most 100"]
    assert judged("accepted-per-gateway", of(0, pending=101)) == []


@pytest.mark.parametrize(("name", "found"), [("bill*", []), ("prod-*", ["count is 101; must be at most 100"])])
def test_the_quota_of_a_gateway_can_be_its_own(name, found):
    """By an override, as the gateway is among the fields that make the group."""
    override = {"match": {"gateway.name": {"like": name}}, "params": {"accepted-per-gateway": {"quota": 101}}}
    problems: list[str] = []
    policy = parse_policy(
        {"lists": {"approved-domains": []}, "overrides": [override]}, Place("policy.json", problems), RULES
    )
    assert problems == []
    records = [record(f"c{number}") for number in range(101)]
    assert judged("accepted-per-gateway", records, policy=policy) == found


@pytest.mark.parametrize("rule_id", ["newly-accepted", "domain-changed", "rejected-accepted-again"])
def test_a_first_reading_says_nothing_of_changes(rule_id):
    """There is nothing to compare with, which is not the same as that nothing changed."""
    assert judged(rule_id, [record()]) is None
    assert judged(rule_id, [record()], before=[record()]) == []
    assert judged(rule_id, [], before=[record()]) == []


def test_newly_accepted():
    """What became accepted, appeared so, or was unreadable before; not what stays or goes."""

    def became(status: str | None, before: str | None, **state: Any) -> list[str] | None:
        return judged("newly-accepted", [record(status=status)], before=[record(status=before)], **state)

    found = ['after.status is "accepted"; before.status is "{}"; this must never occur']
    for status in set(CONNECTION_STATUSES) - {"accepted"}:
        assert became("accepted", status) == [found[0].format(status)]
        assert became(status, "accepted") == became(status, status) == []
    assert became("accepted", "pendingAcceptance", state="partial") == [found[0].format("pendingAcceptance")]
    absent = ['after.status is "accepted"; before.status is null; this must never occur']
    assert became("accepted", None) == judged("newly-accepted", [record()], before=[]) == absent
    assert became(None, "accepted") == []
    assert judged("newly-accepted", [record(domain_id="d2")], before=[record()]) == []


def test_domain_changed():
    """Another account, or one on one side only; not what stays, comes or goes."""

    def became(domain_id: str | None, before: str | None, **fields: Any) -> list[str] | None:
        return judged("domain-changed", [record(domain_id=domain_id, **fields)], before=[record(domain_id=before)])

    assert became("d2", "d1") == ['after.domain_id is "d2"; must be the same as before.domain_id ("d1")']
    assert became("d2", "d1", status="rejected", marker_id=9) == became("d2", "d1")
    assert became(None, "d1") == [
        'after.domain_id is absent or unreadable; must be the same as before.domain_id ("d1")'
    ]
    assert became("d1", None) == ['after.domain_id is "d1"; must be the same as before.domain_id (null)']
    assert became("d1", "d1", status="rejected") == became(None, None, status="rejected") == []
    assert judged("domain-changed", [record("c2", domain_id="d2")], before=[record("c1")]) == []


def test_rejected_accepted_again():
    """From the one reading to the next; by way of another status it is not seen."""

    def became(status: str | None, before: str | None) -> list[str] | None:
        return judged("rejected-accepted-again", [record(status=status)], before=[record(status=before)])

    found = ['before.status is "rejected"; after.status is "accepted"; this must never occur']
    assert became("accepted", "rejected") == found
    for status in (*CONNECTION_STATUSES, None):
        if status != "accepted":
            assert became(status, "rejected") == []
        if status != "rejected":
            assert became("accepted", status) == []


def table(header: str) -> list[str]:
    """The rows of the table with this header in the guide."""
    rows = GUIDE.split(header + "\n", 1)[1].split("\n\n", 1)[0].splitlines()
    return rows[1:]


def row(name: str, *cells: str) -> str:
    return f"| `{name}` | {' | '.join(cells)} |"


def test_the_guide_lists_every_field():
    """Name, type and meaning as in the code; what the list of gateways tells is marked."""
    connection = {name: field for name, field in SUBJECTS["connection"].items() if "." not in name}
    gateway, change = SUBJECTS["gateway"], SUBJECTS["change"]["change"]
    assert table("| field of a connection | type | meaning |") == [
        row(name, field.type, field.meaning) for name, field in connection.items()
    ]
    assert table("| field of a gateway | type | listed | meaning |") == [
        row(name, field.type, "yes" if f"gateway.{name}" in LISTED else "no", field.meaning)
        for name, field in gateway.items()
    ]
    assert table("| field of a change | type | meaning |")[0] == row("change", change.type, change.meaning)
    assert table("| field of a group | type | meaning |") == [
        row(name, field.type, field.meaning) for name, field in required_of("group", ()).items()
    ]


def test_every_subject_has_the_fields_that_the_guide_says():
    """Built from those of a connection and a gateway by the prefixes that the guide names."""
    connection = {name for name in SUBJECTS["connection"] if "." not in name}
    gateway = {f"gateway.{name}" for name in SUBJECTS["gateway"]}
    sides = {f"{side}.{name}" for side in ("before", "after") for name in connection}
    assert set(SUBJECTS["connection"]) == connection | gateway
    assert set(SUBJECTS["change"]) == {"change"} | sides | gateway
    assert set(GROUP_KEYS) == connection | set(LISTED)
    rows = [line.split(" | ")[0] for line in table("| `each` | `when` reads | `require` reads | a test gives |")]
    assert rows == ['| `"connection"`', '| `"gateway"`', '| `"change"`', '| `{"group": [FIELD, ...]}`']
    assert len(rows) == len(SUBJECTS)


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


BLOCKS = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)]


def test_the_policy_in_the_guide_works():
    """With the shipped rules, and it shows every part of a policy."""
    (policy,) = (block for block in BLOCKS if "lists" in block)
    problems: list[str] = []
    parsed = parse_policy(policy, Place("policy.json", problems), RULES)
    assert problems == []
    assert list(policy) == ["lists", "params", "overrides", "waivers"]
    assert list(policy["overrides"][0]) == ["$comment", "match", "params", "severity", "disable"]
    assert list(parsed.waivers[0].note) == ["id", "reason", "approved_by", "ticket", "expires"]


def test_the_guide_shows_every_subject_by_a_shipped_rule():
    """What it shows of a rule stands in that rule's file, cases included."""
    shown = [block for block in BLOCKS if "require" in block]
    subjects = [block.get("each", "connection") for block in shown]
    assert ["group" if isinstance(each, dict) else each for each in subjects] == list(SUBJECTS)
    shipped = [json.loads((DIRECTORY / f"{rule.id}.json").read_text()) for rule in LOADED.rules]
    for block in shown:
        cases = block.pop("tests")
        assert [
            whole["id"]
            for whole in shipped
            if block.items() <= whole.items() and all(case in whole["tests"] for case in cases)
        ]


def test_a_failing_case_is_named_as_the_guide_shows():
    """An example of a rule whose edge is a second off."""
    rule = RULES["pending-too-long"]
    (line,) = failing_cases(replace(rule, params={"longest-wait": "PT23H59M59S"}))
    assert f"\nFAIL  {rule.id}: {len(rule.cases)} cases\n      {line}\n" in GUIDE


CONDITIONS = [re.match(r"\| `(.*)` \|", line)[1] for line in table("| example | holds when |")]  # type: ignore[index]


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda text: text.replace("::", ":"))
def test_every_condition_in_the_guide_is_one(condition):
    """What stands in a table as an example of a condition is read without a problem."""
    value = {
        "id": "r", "title": "t", "severity": "low", "require": json.loads(condition),
        "params": {"longest-wait": "PT24H"} if "longest-wait" in condition else {},
        "tests": [{"name": "f", "given": {}, "expect": "finding"}, {"name": "p", "given": {}, "expect": "pass"}],
    }  # fmt: skip
    problems: list[str] = []
    assert parse_rule(value, Place("r.json", problems), "r") is not None, problems


MISTAKES = re.findall(r"^\| `(\".*)` \| `(my-rules/([\w-]+\.json)#.*)` \|$", GUIDE, re.MULTILINE)


def test_the_guide_names_ten_mistakes():
    """Each another one."""
    assert len(MISTAKES) == len(set(MISTAKES)) == len(table("| written | what comes |")) == 10


@pytest.mark.parametrize(("written", "line", "name"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_mistake_in_the_guide_makes_the_error_beside_it(tmp_path, monkeypatch, written, line, name):
    """Written into the shipped rules, it makes that one line and no other."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(DIRECTORY, "my-rules")
    file = Path("my-rules", name)
    file.write_text(json.dumps(json.loads(file.read_text()) | json.loads(f"{{{written}}}")))
    with pytest.raises(UsageError) as caught:
        load_rule_set(Path("my-rules"), None)
    assert caught.value.problems == (line,)
