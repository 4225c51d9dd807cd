"""Loading a directory of rules with its policy: everything that is wrong comes in one go."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from audit.errors import OptionsError, UsageError
from audit.ruleset.cases import failing_cases
from audit.ruleset.load import load_rule_set

if TYPE_CHECKING:
    from pathlib import Path

RULE: dict[str, Any] = {
    "title": "t",
    "severity": "low",
    "params": {"wait": "PT24H"},
    "require": {"status_since": {"maxAge": {"param": "wait"}}, "domain_id": {"enum": {"list": "known"}}},
    "tests": [
        {"name": "f", "given": {}, "expect": "finding"},
        {"name": "p", "given": {"domain_id": "d1"}, "lists": {"known": ["d1"]}, "expect": "pass"},
    ],
}
POLICY: dict[str, Any] = {"lists": {"known": ["d1"]}, "params": {"one": {"wait": "PT4H"}}}

KNOWN: dict[str, Any] = {"lists": {"known": ["d1"]}}
WAIVER: dict[str, Any] = {
    "id": "w", "rule": "one", "match": {"domain_id": "d1"}, "reason": "why", "approved_by": "me",
    "expires": "2026-12-31T00:00:00Z",
}  # fmt: skip


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """A directory of two rules and a policy in which all is right."""
    for name in ("two", "one"):
        write(tmp_path, name, {"id": name, **RULE})
    write(tmp_path, "policy", POLICY)
    return tmp_path


def write(directory: Path, name: str, value: Any) -> None:
    (directory / f"{name}.json").write_text(json.dumps(value))


def problems_of(directory: Path, policy: Path | None = None) -> list[str]:
    """What is wrong, each line from the file's name on."""
    with pytest.raises(UsageError) as caught:
        load_rule_set(directory, policy)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return [line.removeprefix(f"{directory}/") for line in caught.value.problems]


def test_rules_come_sorted_with_the_policy_of_the_site(rules):
    """By id; each with the hash of its file's bytes, as the policy has its own."""
    loaded = load_rule_set(rules, None)
    assert [rule.id for rule in loaded.rules] == ["one", "two"]
    assert loaded.rules[0].sha256 == sha256((rules / "one.json").read_bytes()).hexdigest()
    assert loaded.policy.sha256 == sha256((rules / "policy.json").read_bytes()).hexdigest()
    assert loaded.policy.lists == {"known": ("d1",)}
    assert [loaded.policy.apply(rule) for rule in loaded.rules] == [
        (loaded.rules[0], {"wait": "PT4H"}),
        (loaded.rules[1], {"wait": "PT24H"}),
    ]


def test_rules_are_selected_by_id(rules):
    """All where none is named; an unknown one is an error that names the nearest."""
    loaded = load_rule_set(rules, None)
    assert [rule.id for rule in loaded.select(["two"])] == ["two"]
    assert loaded.select([]) == loaded.rules
    with pytest.raises(OptionsError) as caught:
        loaded.select(["oen", "two", "xyz"])
    assert caught.value.problems == ('there is no rule "oen"; did you mean "one"?', 'there is no rule "xyz"')


def test_an_empty_list_is_named(rules):
    """A rule that reads it can say neither yes nor no: the run must not evaluate it, and says so."""
    write(rules, "policy", {"lists": {"known": []}})
    loaded = load_rule_set(rules, None)
    assert loaded.empty_lists_of(loaded.rules[0]) == ["known"]


def test_a_policy_may_stand_elsewhere(rules, tmp_path_factory):
    """Then the one beside the rules does not count, nor is it taken for a rule."""
    elsewhere = tmp_path_factory.mktemp("site") / "values.json"
    elsewhere.write_text(json.dumps({"lists": {"known": ["d2"]}}))
    assert load_rule_set(rules, elsewhere).policy.lists == {"known": ("d2",)}


def test_a_policy_of_another_name_among_the_rules_is_not_taken_for_a_rule(rules):
    """It was named as the policy."""
    (rules / "policy.json").rename(rules / "site.json")
    assert [rule.id for rule in load_rule_set(rules, rules / "site.json").rules] == ["one", "two"]


def test_without_a_policy_rules_that_read_no_list_work(tmp_path):
    """There is nothing to configure."""
    write(tmp_path, "one", {"id": "one", **RULE, "params": {}, "require": {"domain_id": "d1"},
                            "tests": [RULE["tests"][0], {**RULE["tests"][1], "lists": {}}]})  # fmt: skip
    assert load_rule_set(tmp_path, None).policy.sha256 is None


def test_other_files_are_left_alone(rules):
    """Only *.json of the directory itself are rules."""
    (rules / "README.md").write_text("not JSON")
    (rules / "old").mkdir()
    (rules / "old" / "three.json").write_text("not JSON")
    assert len(load_rule_set(rules, None).rules) == 2


def test_a_byte_order_mark_is_taken(rules):
    """In rules and policy."""
    for path in rules.glob("*.json"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(load_rule_set(rules, None).rules) == 2


def test_a_directory_that_is_missing_or_no_directory(tmp_path, rules):
    """Both are said in one line each."""
    assert problems_of(tmp_path / "no") == [f"{tmp_path}/no: the rules cannot be read: No such file or directory"]
    one = rules / "one.json"
    assert problems_of(one) == [f"{one}: the rules cannot be read: Not a directory"]


def test_a_directory_without_rules(tmp_path):
    """No rules at all is an error: a run of nothing would look like health."""
    write(tmp_path, "policy", {})
    assert problems_of(tmp_path) == [f"{tmp_path}: there is no rule (*.json) in this directory"]


def test_a_policy_that_is_named_and_missing(rules):
    """It is not silently taken for none."""
    assert problems_of(rules, rules / "no.json") == ["no.json: cannot be read: No such file or directory"]


def test_what_cannot_be_read_as_a_file(rules):
    """A directory named like a rule."""
    (rules / "zoo.json").mkdir()
    assert problems_of(rules) == ["zoo.json: cannot be read: it is no regular file"]


def test_no_broken_file_hides_the_problems_of_another(rules):
    """Files that are no JSON, wrong rules and a wrong policy: all their lines in one go, in the order of the files."""
    write(rules, "one", {"id": "one", **RULE, "sevrity": "low"})
    (rules / "three.json").write_bytes(b"")
    (rules / "four.json").write_bytes(b"{")
    (rules / "five.json").write_bytes(b'{"title": "\xff"}')
    write(rules, "six", [])
    (rules / "six2.json").write_bytes(b'{"id": "six2", "id": "six2"}')
    write(rules, "policy", {"list": {"known": ["d1"]}, "params": {"three": {"x": 1}, "twoo": {}}})
    problems = problems_of(rules)
    assert problems[1].startswith("four.json: not JSON: ")
    assert [problems[0], *problems[2:]] == [
        "five.json: not UTF-8 at byte 11",
        'one.json#/sevrity: unknown key "sevrity"; did you mean "severity"?',
        "six.json: the file holds an empty array; an object is wanted",
        'six2.json: cannot be read: the key "id" stands twice in one object',
        "three.json: the file is empty",
        'policy.json#/list: unknown key "list"; did you mean "lists"?',
        'policy.json#/params/twoo: there is no rule "twoo"; did you mean "two"?',
    ]


def test_a_broken_policy_does_not_make_every_list_missing(rules):
    """What it holds is unknown, not absent."""
    (rules / "policy.json").write_text("")
    assert problems_of(rules) == ["policy.json: the file is empty"]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"lists": {"known": ["d1"]}, "parms": {}}, ['#/parms: unknown key "parms"; did you mean "params"?']),
        ({"lists": {"known": []}, "waiver": []}, ['#/waiver: unknown key "waiver"; did you mean "waivers"?']),
        ({"lists": []}, ["#/lists: an object from list to values is wanted, not an empty array"]),
        ({"lists": {"known": "d1"}}, ["#/lists/known: an array of texts is wanted, not a text"]),
        ({"lists": {"known": ["d1", "d2", "d1"]}}, ['#/lists/known/2: "d1" stands twice in this list']),
        ({"lists": {"known": ["d1 "]}}, ["#/lists/known/0: a text without blanks around it is wanted"]),
        ({"lists": {"known": ["d1", 5]}}, ["#/lists/known/1: a text without blanks around it is wanted"]),
        (
            {"lists": {"known": [], "My_List": []}},
            ["#/lists/My_List: a list's name is lower-case words with dashes"],
        ),
        (
            {"lists": {"knwon": ["d1"]}},
            [
                f'#/lists: rule "{name}" reads the list "known", which is missing; did you mean "knwon"?'
                for name in ("one", "two")
            ],
        ),
        (KNOWN | {"overrides": {}}, ["#/overrides: an array is wanted, not an empty object"]),
        (KNOWN | {"overrides": [5]}, ["#/overrides/0: an object is wanted, not a whole number"]),
        (KNOWN | {"overrides": [{"disable": ["one"]}]}, ['#/overrides/0: "match" is missing']),
        (
            KNOWN | {"overrides": [{"match": {"gateway.name": "x"}}]},
            ['#/overrides/0: it changes nothing; give it "params", "severity" or "disable"'],
        ),
        (
            KNOWN | {"overrides": [{"match": True, "params": {"one": {}}}]},
            ['#/overrides/0: it changes nothing; give it "params", "severity" or "disable"'],
        ),
        (
            KNOWN | {"overrides": [{"match": True, "disable": [5]}]},
            ["#/overrides/0/disable/0: a text without blanks around it is wanted"],
        ),
        (
            KNOWN | {"overrides": [{"match": True, "params": 5}]},
            ["#/overrides/0/params: an object from rule to parameters is wanted, not a whole number"],
        ),
        (
            KNOWN | {"overrides": [{"match": {"gateway.pending": 1}, "disable": ["one"]}]},
            [
                (
                    '#/overrides/0/match/gateway.pending: the field "gateway.pending" cannot be used here; known: '
                    "gateway.id, gateway.name, gateway.region, gateway.project_id, gateway.status, not, allOf, anyOf"
                )
            ],
        ),
        (
            KNOWN | {"overrides": [{"match": {"gateway.name": {"like": {"param": "wait"}}}, "disable": ["one"]}]},
            ["#/overrides/0/match/gateway.name/like/param: a policy has no parameters; write the value or name a list"],
        ),
        (
            KNOWN | {"overrides": [{"match": False, "disable": ["one"]}]},
            ["#/overrides/0/match: it matches nothing"],
        ),
        (
            KNOWN | {"overrides": [{"match": True, "disable": ["oen"], "severity": {"two": "hihg"}}]},
            [
                '#/overrides/0/severity/two: "hihg" is none of info, low, medium, high, critical; did you mean "high"?',
                '#/overrides/0/disable/0: there is no rule "oen"; did you mean "one"?',
            ],
        ),
        (
            KNOWN | {"overrides": [{"match": True, "params": {"one": {"wiat": "PT1H"}}}]},
            ['#/overrides/0/params/one/wiat: unknown parameter "wiat"; did you mean "wait"?'],
        ),
        (
            KNOWN | {"overrides": [{"match": {"gateway.name": {"enum": {"list": "knwon"}}}, "disable": ["one"]}]},
            ['#/lists: override 0 reads the list "knwon", which is missing; did you mean "known"?'],
        ),
        (
            KNOWN | {"waivers": [{"id": "w", "rule": "one"}]},
            [f'#/waivers/0: "{key}" is missing' for key in ("match", "reason", "approved_by", "expires")],
        ),
        (KNOWN | {"waivers": [WAIVER | {"match": {"not": True}}]}, ["#/waivers/0/match: it matches nothing"]),
        (KNOWN | {"waivers": [WAIVER, WAIVER]}, ['#/waivers/1/id: "w" is the id of an earlier waiver']),
        (
            KNOWN | {"waivers": [WAIVER | {"expires": "2026-12-31"}]},
            ['#/waivers/0/expires: a time such as "2026-12-31T00:00:00Z" is wanted, not "2026-12-31"'],
        ),
        (KNOWN | {"waivers": [WAIVER | {"reason": " "}]}, ["#/waivers/0/reason: a text that says something is wanted"]),
        (
            KNOWN | {"waivers": [WAIVER | {"rule": "oen"}]},
            ['#/waivers/0/rule: there is no rule "oen"; did you mean "one"?'],
        ),
        (
            KNOWN | {"waivers": [WAIVER | {"match": {"domain": "d1"}}]},
            ['#/waivers/0/match/domain: unknown field "domain"; did you mean "domain_id"?'],
        ),
        (
            KNOWN | {"waivers": [WAIVER | {"match": {}}]},
            ["#/waivers/0/match: an empty object says nothing; true means all"],
        ),
        (
            KNOWN | {"waivers": [WAIVER | {"match": {"domain_id": {"enum": {"list": "friends"}}}}]},
            ['#/lists: waiver "w" reads the list "friends", which is missing'],
        ),
        (
            KNOWN | {"waivers": [WAIVER | {"aproved_by": "me"}]},
            ['#/waivers/0/aproved_by: unknown key "aproved_by"; did you mean "approved_by"?'],
        ),
        ({}, [f'#/lists: rule "{name}" reads the list "known", which is missing' for name in ("one", "two")]),
    ],
)
def test_mistakes_in_lists(rules, policy, expected):
    """Each with its place in the policy."""
    write(rules, "policy", policy)
    assert problems_of(rules) == [f"policy.json{line}" for line in expected]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ([], "#/params: an object from rule to parameters is wanted, not an empty array"),
        ({"oen": {"wait": "PT1H"}}, '#/params/oen: there is no rule "oen"; did you mean "one"?'),
        ({"one": "PT1H"}, "#/params/one: an object from parameter to value is wanted, not a text"),
        ({"one": {"wiat": "PT1H"}}, '#/params/one/wiat: unknown parameter "wiat"; did you mean "wait"?'),
        ({"one": {"wait": 24}}, '#/params/one/wait: a duration such as "PT24H" is wanted, not a whole number'),
        ({"one": {"wait": None}}, "#/params/one/wait: a text or a number is wanted, not null"),
        ({"one": {"wait": ["PT1H"]}}, "#/params/one/wait: a text or a number is wanted, not an array"),
        (
            {"one": {"wait": "1h"}},
            '#/params/one/wait: "1h" is not a duration such as "PT24H" or "P7D" (days, hours, minutes, seconds)',
        ),
    ],
)
def test_mistakes_in_parameters(rules, params, expected):
    """A policy that names an unknown rule or parameter, or a value that does not fit where it is used."""
    write(rules, "policy", {**POLICY, "params": params})
    assert problems_of(rules) == [f"policy.json{expected}"]


def test_a_missing_list_is_told_together_with_everything_else(rules):
    """It does not wait until the rest is mended."""
    write(rules, "one", {"id": "one", **RULE, "severity": "x"})
    write(rules, "policy", {"lists": {}})
    assert [line.split(":")[0] for line in problems_of(rules)] == ["one.json#/severity", "policy.json#/lists"]


def test_a_policy_with_no_file_is_named_where_it_would_stand(rules):
    """So that one knows which file to write."""
    (rules / "policy.json").unlink()
    assert problems_of(rules)[0] == 'policy.json#/lists: rule "one" reads the list "known", which is missing'


def test_cases_that_disagree_are_named(rules):
    """Number, name, what was expected and what came out."""
    tests = [{**RULE["tests"][0], "expect": "pass"}, {**RULE["tests"][1], "lists": {"known": ["d2"]}}]
    write(rules, "one", {"id": "one", **RULE, "tests": [*tests, *RULE["tests"]]})
    one, two = load_rule_set(rules, None).rules
    assert failing_cases(one) == [
        'case 0 "f": expected pass, came out as finding',
        'case 1 "p": expected pass, came out as finding',
    ]
    assert failing_cases(two) == []


def test_cases_use_the_rules_own_values_not_the_sites(rules):
    """A site's policy must not break the tests of the rules it configures."""
    tests = [
        {"name": "f", "given": {"domain_id": "d", "status_since": "-PT24H1S"}, "lists": {"known": ["d"]},
         "expect": "finding"},
        {"name": "p", "given": {"domain_id": "d", "status_since": "-PT5H"}, "lists": {"known": ["d"]},
         "expect": "pass"},
        {"name": "own", "given": {"domain_id": "d", "status_since": "-PT5H"}, "lists": {"known": ["d"]},
         "params": {"wait": "PT4H"}, "expect": "finding"},
        {"name": "null", "given": {"domain_id": None}, "lists": {"known": ["d"]}, "expect": "finding"},
        {"name": "future", "given": {"domain_id": "d", "status_since": "PT5H"}, "lists": {"known": ["d"]},
         "expect": "pass"},
        {"name": "absolute", "given": {"domain_id": "d", "status_since": "2001-01-01T00:00:00Z"},
         "lists": {"known": ["d"]}, "expect": "finding"},
    ]  # fmt: skip
    write(rules, "one", {"id": "one", **RULE, "tests": tests})
    assert failing_cases(load_rule_set(rules, None).rules[0]) == []
