"""The published schemas say what the loader says, as far as a schema can know, and never more."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from audit.ruleset import conditions, language
from audit.ruleset.language import (
    CONNECTION_STATUSES,
    GROUP_KEYS,
    KEYWORDS,
    LISTED,
    SUBJECTS,
    Field,
    Keyword,
    chosen_by,
    required_of,
)
from audit.ruleset.parse import parse_rule
from audit.ruleset.policy import parse_policy
from audit.ruleset.problems import Place
from tests import rule_schemas as schema
from tests.test_rules_parse import JSON
from tests.test_rules_parse import RULE as OTHER_RULE

ROOT = Path(__file__).parents[1]
RULES = ROOT / "rules"
SHIPPED = sorted(path for path in RULES.glob("*.json") if path.name != "policy.json")
RULE: dict[str, Any] = json.loads((RULES / "pending-too-long.json").read_text())
GROUP_RULE: dict[str, Any] = {
    "id": "quota",
    "title": "t",
    "severity": "low",
    "params": {"most": 1},
    "each": {"group": list(GROUP_KEYS)},
    "when": {"status": "accepted", "gateway.permissions": {"contains": "*"}},
    "require": {"count": {"maximum": {"param": "most"}}, "gateway.name": {"like": "prod-*"}},
    "tests": [
        {"name": "f", "given": [{"marker_id": 1, "gateway.permissions": ["*"]}, {}], "expect": "finding"},
        {"name": "p", "given": [{"status": "failed"}], "params": {"most": 9}, "expect": "pass"},
    ],
}
CHANGE_RULE: dict[str, Any] = {
    "id": "moved",
    "title": "t",
    "severity": "low",
    "each": "change",
    "when": {"change": "modified", "before.status": {"not": "accepted"}, "gateway.pending": {"minimum": 0}},
    "require": {"after.domain_id": {"const": {"field": "before.domain_id"}}},
    "tests": [
        {"name": "f", "before": {"domain_id": "d1"}, "given": {"gateway.name": "g"}, "expect": "finding"},
        {"name": "p", "before": None, "given": {"status": "failed"}, "expect": "pass"},
        {"name": "p", "before": {"created_at": "-PT1H"}, "given": None, "expect": "pass"},
    ],
}
GATEWAY_RULE: dict[str, Any] = {
    "id": "no-open-door",
    "title": "t",
    "severity": "low",
    "each": "gateway",
    "require": {"permissions": {"not": {"contains": "*"}}},
    "tests": [{"name": outcome, "given": {}, "expect": outcome} for outcome in ("finding", "pass")],
}
BASES = {"connection": RULE, "group": GROUP_RULE, "change": CHANGE_RULE, "gateway": GATEWAY_RULE}
WAIVER: dict[str, Any] = {
    "id": "w-1",
    "rule": "pending-too-long",
    "match": {"domain_id": {"enum": {"list": "approved-domains"}}},
    "reason": "migration",
    "approved_by": "j.doe",
    "ticket": "SEC-1",
    "expires": "2026-12-31T00:00:00Z",
}
OVERRIDE: dict[str, Any] = {
    "$comment": ["as", "agreed"],
    "match": {"gateway.name": {"like": "prod-*"}},
    "params": {"pending-too-long": {"longest-wait": "PT4H"}},
    "severity": {"pending-too-long": "high"},
    "disable": ["no-open-door"],
}
POLICY: dict[str, Any] = {
    "$comment": "ours",
    "lists": {"approved-domains": ["d1", "d2"]},
    "params": {"pending-too-long": {"longest-wait": "PT4H"}},
    "overrides": [OVERRIDE],
    "waivers": [WAIVER],
}
MISSING = object()


def validator(built: Any) -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(built)
    return jsonschema.Draft202012Validator(built)


RULE_VALIDATOR = validator(schema.build_rule_schema())
POLICY_VALIDATOR = validator(schema.build_policy_schema())


def changed(value: Any, path: list[str | int], to: Any) -> Any:
    """A copy with one place changed."""
    value = copy.deepcopy(value)
    inner = value
    for step in path[:-1]:
        inner = inner[step]
    if to is MISSING:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return value


def loads(value: Any, rule_id: str = "pending-too-long") -> bool:
    """Whether a rule loads, beside a policy that has the lists that it reads."""
    problems: list[str] = []
    rule = parse_rule(copy.deepcopy(value), Place("r.json", problems), rule_id)
    if rule is not None:
        parse_policy({"lists": {name: [] for name in rule.lists}}, Place("policy.json", problems), {rule_id: rule})
    return not problems


def loads_policy(value: Any) -> bool:
    problems: list[str] = []
    rules = {rule["id"]: parse_rule(rule, Place("r.json", problems), rule["id"]) for rule in BASES.values()}
    assert problems == []
    parse_policy(copy.deepcopy(value), Place("policy.json", problems), rules)
    return not problems


def errors_of_rule(value: Any) -> list[str]:
    return [error.message for error in RULE_VALIDATOR.iter_errors(value)]


def errors_of_policy(value: Any) -> list[str]:
    return [error.message for error in POLICY_VALIDATOR.iter_errors(value)]


def places_in(value: Any) -> list[list[str | int]]:
    """The paths of everything in a value but the value itself."""
    inner: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [[key, *rest] for key, item in inner for rest in [[], *places_in(item)]]


@pytest.mark.parametrize("name", schema.SCHEMAS)
def test_the_files_are_what_is_generated(name):
    """Mended by `python -m tests.rule_schemas`."""
    assert (ROOT / "audit/ruleset" / name).read_text() == schema.render_schema(schema.SCHEMAS[name]())


def test_the_command_writes_the_files(tmp_path):
    """Into the rules' language: here, into a copy of it."""
    shutil.copytree(ROOT / "audit", tmp_path / "audit", ignore=shutil.ignore_patterns("*.json", "__pycache__"))
    (tmp_path / "tests").mkdir()
    shutil.copy(schema.__file__, tmp_path / "tests")
    command = [sys.executable, "-m", "tests.rule_schemas"]
    assert subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout == b""
    written = {path.name: path.read_text() for path in (tmp_path / "audit/ruleset").glob("*.json")}
    assert written == {name: schema.render_schema(build()) for name, build in schema.SCHEMAS.items()}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_rule_names_its_schema_and_meets_it(path):
    """An editor finds the schema by the first line of the file."""
    value = json.loads(path.read_text())
    assert next(iter(value)) == "$schema"
    assert (RULES / value["$schema"]).resolve() == ROOT / "audit/ruleset/rule.schema.json"
    assert errors_of_rule(value) == []


def test_the_shipped_policy_names_its_schema_and_meets_it():
    """As the rules do."""
    value = json.loads((RULES / "policy.json").read_text())
    assert next(iter(value)) == "$schema"
    assert (RULES / value["$schema"]).resolve() == ROOT / "audit/ruleset/policy.schema.json"
    assert errors_of_policy(value) == []


BROKEN: list[tuple[list[str | int], Any]] = [
    (["sevrity"], "low"),
    (["id"], MISSING),
    (["title"], MISSING),
    (["severity"], MISSING),
    (["require"], MISSING),
    (["tests"], MISSING),
    (["id"], "Pending_too_long"),
    (["id"], 5),
    (["title"], ""),
    (["title"], "  "),
    (["description"], None),
    (["severity"], "hihg"),
    (["controls"], ["A.1"]),
    (["controls"], {"ISO": "A.1"}),
    (["controls"], {"ISO": ["A.1", "A.1"]}),
    (["controls"], {"ISO": ["A.1 "]}),
    (["tags"], "x"),
    (["each"], "conection"),
    (["each"], 5),
    (["params"], []),
    (["params"], {"Longest": "PT1H"}),
    (["params"], {"longest-wait": None}),
    (["params"], {"longest-wait": True}),
    (["params"], {"longest-wait": ["PT1H"]}),
    (["when"], "accepted"),
    (["when"], None),
    (["when"], []),
    (["when"], {}),
    (["when"], False),
    (["when"], {"state": "accepted"}),
    (["when"], {"status": "pending"}),
    (["when"], {"status": ["pending"]}),
    (["when"], {"status": []}),
    (["when"], {"status": {}}),
    (["when"], {"status": True}),
    (["when"], {"status": {"not": "pending"}}),
    (["when"], {"status": {"enum": "accepted"}}),
    (["when"], {"status": {"enum": ["accepted", "pending"]}}),
    (["when"], {"status": {"anyOf": []}}),
    (["when"], {"status": {"anyOf": [{"like": 5}]}}),
    (["when"], {"status": {"list": "ok"}}),
    (["when"], {"status": {"maximum": 5}}),
    (["when"], {"status": {"const": {"param": 5}}}),
    (["when"], {"status": {"const": {}}}),
    (["when"], {"status": {"const": {"field": "marker_id"}}}),
    (["when"], {"status": {"const": {"field": "nowhere"}}}),
    (["when"], {"status": {"const": {"list": "ok"}}}),
    (["when"], {"status": {"enum": {"param": "longest-wait"}}}),
    (["when"], {"not": []}),
    (["when"], {"allOf": {}}),
    (["when"], {"anyOf": []}),
    (["when"], {"anyOf": [{"not": {"status": "pending"}}]}),
    (["when"], {"domain_id": 5}),
    (["when"], {"domain_id": {"like": "a" * 129}}),
    (["when"], {"domain_id": {"like": None}}),
    (["when"], {"marker_id": "5"}),
    (["when"], {"marker_id": 1.5}),
    (["when"], {"marker_id": 2**63}),
    (["when"], {"marker_id": {"minimum": "5"}}),
    (["when"], {"marker_id": {"minimum": None}}),
    (["when"], {"marker_id": {"maxAge": "PT1H"}}),
    (["when"], {"created_at": "yesterday"}),
    (["when"], {"created_at": "2026-11-22"}),
    (["when"], {"created_at": "2026-11-22T24:00:00Z"}),
    (["when"], {"created_at": 5}),
    (["when"], {"created_at": {"minAge": 5}}),
    (["when"], {"created_at": {"minAge": "+PT1H"}}),
    (["when"], {"created_at": {"minAge": "P1M"}}),
    (["when"], {"created_at": {"minAge": "PT"}}),
    (["when"], {"created_at": {"like": "2026*"}}),
    (["when"], {"gateway.marker_id": 5}),
    (["require"], True),
    (["require"], {"status_since": {"maxage": "PT1H"}}),
    (["tests"], []),
    (["tests"], {}),
    (["tests"], RULE["tests"][:1]),
    (["tests"], RULE["tests"][1:3]),
    (["tests", 0, "name"], ""),
    (["tests", 0, "name"], MISSING),
    (["tests", 0, "given"], MISSING),
    (["tests", 0, "given"], []),
    (["tests", 0, "expect"], "findings"),
    (["tests", 0, "expected"], "finding"),
    (["tests", 0, "given", "state"], "accepted"),
    (["tests", 0, "given", "status"], 5),
    (["tests", 0, "given", "marker_id"], "5"),
    (["tests", 0, "given", "created_at"], "-25H"),
    (["tests", 0, "params"], {"longest-wait": None}),
    (["tests", 0, "lists"], {"ok": "d1"}),
]
BROKEN_ABOUT_GROUPS: list[tuple[list[str | int], Any]] = [
    (["each"], "group"),
    (["each"], {}),
    (["each", "group"], "domain_id"),
    (["each", "group"], []),
    (["each", "group"], ["domain_id", "domain_id"]),
    (["each", "group"], ["domain"]),
    (["each", "group"], ["count"]),
    (["each", "group"], ["gateway.permissions"]),
    (["each", "group"], [5]),
    (["each", "having"], ["domain_id"]),
    (["when", "count"], 5),
    (["when"], False),
    (["require", "gateway.permissions"], {"contains": "*"}),
    (["require", "counted"], 5),
    (["require", "count"], "5"),
    (["require", "oldest"], {"maximum": 5}),
    (["require", "status"], "pending"),
    (["require", "status"], {"enum": {"field": "gateway.permissions"}}),
    (["tests", 0, "given"], {}),
    (["tests", 0, "given"], None),
    (["tests", 0, "given"], []),
    (["tests", 0, "given"], [None]),
    (["tests", 0, "given", 0, "count"], 5),
    (["tests", 0, "given", 0, "marker_id"], "5"),
    (["tests", 0, "before"], {}),
]
BROKEN_ABOUT_CHANGES: list[tuple[list[str | int], Any]] = [
    (["each"], "changes"),
    (["when", "status"], "accepted"),
    (["when", "change"], "moved"),
    (["when", "before.status"], "pending"),
    (["when", "after.status"], {"not": "pending"}),
    (["when", "count"], 5),
    (["require", "after.domain_id"], {"const": {"field": "before.marker_id"}}),
    (["require", "after.marker_id"], {"maxAge": "PT1H"}),
    (["tests", 0, "before"], MISSING),
    (["tests", 0, "before"], []),
    (["tests", 0, "before", "change"], "added"),
    (["tests", 0, "before", "before.status"], "accepted"),
    (["tests", 0, "before", "created_at"], "yesterday"),
    (["tests", 0, "given"], [{}]),
    (["tests", 0, "given"], MISSING),
    (["tests", 0, "given", "after.status"], "accepted"),
    (["tests", 0, "given", "marker_id"], "5"),
    (["tests", 1, "given"], None),
    (["tests", 2, "before"], MISSING),
]
BROKEN_RULES = [
    *(("connection", *mistake) for mistake in BROKEN),
    *(("group", *mistake) for mistake in BROKEN_ABOUT_GROUPS),
    *(("change", *mistake) for mistake in BROKEN_ABOUT_CHANGES),
    ("connection", ["tests", 0, "before"], {}),
    ("connection", ["tests", 0, "given"], None),
    ("gateway", ["tests", 0, "given"], [{}]),
    ("gateway", ["tests", 0, "given", "gateway.name"], "g"),
]
# Right for the schema: it knows no other file, no other place in this one, and no calendar.
ONLY_THE_LOADER: list[tuple[list[str | int], Any]] = [
    (["id"], "pending"),
    (["id"], "waiver-expired"),
    (["params"], {"longest-wait": "24h"}),
    (["params"], {"longest-wait": "PT24H", "unused": 5}),
    (["params"], {}),
    (["when"], {"status": {"const": {"param": "longest-wiat"}}}),
    (["when"], {"created_at": "2026-02-30T00:00:00Z"}),
    (["when"], {"created_at": {"minAge": "P40000D"}}),
    (["when"], {"marker_id": 5.0}),
    (["tests", 0, "params"], {"longest": "PT1H"}),
    (["tests", 0, "lists"], {"ok": ["d1"]}),
]


@pytest.mark.parametrize("base", BASES)
def test_the_rules_that_are_broken_below_are_right(base):
    """Else nothing below would prove anything."""
    assert loads(BASES[base], BASES[base]["id"])
    assert errors_of_rule(BASES[base]) == []


@pytest.mark.parametrize(("base", "path", "to"), BROKEN_RULES, ids=str)
def test_what_the_schema_can_know_both_refuse(base, path, to):
    """One mistake each, and the schema's error lies at the mistake or above it, never beside it."""
    value = changed(BASES[base], path, to)
    assert not loads(value, BASES[base]["id"])
    errors = list(RULE_VALIDATOR.iter_errors(value))
    assert errors
    for error in errors:
        at = list(error.absolute_path)
        assert at[: len(path)] == path[: len(at)], error.message


@pytest.mark.parametrize(
    ("base", "path", "to"),
    [
        *(("connection", *mistake) for mistake in ONLY_THE_LOADER),
        ("group", ["each", "group"], ["domain_id"]),  # then `require` has no gateway.name
    ],
    ids=str,
)
def test_what_only_the_loader_can_know(base, path, to):
    """Names, sense and calendars; should the schema learn one of them, it moves to the list above."""
    value = changed(BASES[base], path, to)
    assert not loads(value, BASES[base]["id"])
    assert errors_of_rule(value) == []


@pytest.mark.parametrize(
    ("path", "to"),
    [
        (["lsits"], {}),
        (["lists"], []),
        (["lists", "Approved"], []),
        (["lists", "approved-domains"], "d1"),
        (["lists", "approved-domains"], ["d1", "d1"]),
        (["lists", "approved-domains"], ["d1 "]),
        (["lists", "approved-domains"], [""]),
        (["lists", "approved-domains"], [5]),
        (["params"], []),
        (["params", "pending-too-long"], "PT4H"),
        (["params", "pending-too-long"], {"longest-wait": None}),
        (["params", "pending-too-long"], {"longest-wait": True}),
        (["params", "pending-too-long"], {"Longest": "PT1H"}),
        (["params"], {"Pending": {}}),
        (["overides"], []),
        (["overrides"], {}),
        (["overrides"], None),
        (["overrides", 0], "gateway-1"),
        (["overrides", 0], {"match": True}),
        (["overrides", 0], {"match": True, "params": {}, "severity": {}, "disable": []}),
        (["overrides", 0, "reason"], "because"),
        (["overrides", 0, "match"], MISSING),
        (["overrides", 0, "match"], False),
        (["overrides", 0, "match"], {}),
        (["overrides", 0, "match"], "prod-*"),
        (["overrides", 0, "match"], {"name": "g"}),
        (["overrides", 0, "match"], {"gateway.permissions": {"contains": "*"}}),
        (["overrides", 0, "match"], {"gateway.pending": 5}),
        (["overrides", 0, "match"], {"domain_id": "d1"}),
        (["overrides", 0, "match"], {"gateway.name": {"minimum": 5}}),
        (["overrides", 0, "match"], {"gateway.name": {"like": {"param": "longest-wait"}}}),
        (["overrides", 0, "match"], {"gateway.name": {"const": {"param": "longest-wait"}}}),
        (["overrides", 0, "match"], {"gateway.name": {"const": {"field": "name"}}}),
        (["overrides", 0, "match"], {"gateway.name": {"enum": {"field": "gateway.permissions"}}}),
        (["overrides", 0, "params"], {"pending-too-long": {"longest-wait": None}}),
        (["overrides", 0, "params"], ["pending-too-long"]),
        (["overrides", 0, "severity"], "high"),
        (["overrides", 0, "severity"], {"pending-too-long": "hihg"}),
        (["overrides", 0, "severity"], {"Pending": "high"}),
        (["overrides", 0, "disable"], "no-open-door"),
        (["overrides", 0, "disable"], ["No open door"]),
        (["overrides", 0, "disable"], ["no-open-door", "no-open-door"]),
        (["waivers"], {}),
        (["waivers", 0], "w-1"),
        (["waivers", 0, "$comment"], "w"),
        *((["waivers", 0, key], MISSING) for key in WAIVER if key != "ticket"),
        *((["waivers", 0, key], " ") for key in WAIVER),
        *((["waivers", 0, key], None) for key in WAIVER),
        (["waivers", 0, "rule"], "Pending"),
        (["waivers", 0, "expires"], "2026-12-31"),
        (["waivers", 0, "expires"], "P7D"),
        (["waivers", 0, "match"], False),
        (["waivers", 0, "match"], {}),
        (["waivers", 0, "match"], {"domain": "d1"}),
        (["waivers", 0, "match"], {"marker_id": "5"}),
        (["waivers", 0, "match"], {"marker_id": {"minimum": {"param": "longest-wait"}}}),
        (["waivers", 0, "match"], {"domain_id": {"like": {"param": "longest-wait"}}}),
        (["waivers", 0, "match"], {"gateway.permissions": {"contains": {"param": "longest-wait"}}}),
        (["waivers", 0, "match"], {"created_at": {"maxAge": {"param": "longest-wait"}}}),
        (["waivers", 0, "match"], {"not": False, "anyOf": []}),
    ],
    ids=str,
)
def test_both_refuse_a_broken_policy(path, to):
    """As with rules: the schema's error lies at the mistake or above it."""
    value = changed(POLICY, path, to)
    assert not loads_policy(value)
    errors = list(POLICY_VALIDATOR.iter_errors(value))
    assert errors
    for error in errors:
        at = list(error.absolute_path)
        assert at[: len(path)] == path[: len(at)], error.message


@pytest.mark.parametrize(
    ("path", "to"),
    [
        (["overrides", 0, "match"], {"gateway.name": {"enum": {"list": "unheard-of"}}}),
        (["overrides", 0, "params"], {"quota": {"most": 1}, "no-rule": {}}),
        (["overrides", 0, "disable"], ["no-rule"]),
        (["waivers", 0, "rule"], "no-rule"),
        (["waivers", 0, "match"], {"count": 5}),
        (["waivers", 0, "match"], {"status": "Running"}),
        (["waivers", 0, "expires"], "2026-02-30T00:00:00Z"),
        (["waivers"], [WAIVER, WAIVER]),
    ],
    ids=str,
)
def test_what_only_the_loader_can_know_of_a_policy(path, to):
    """Other files, which rule a waiver is for, and calendars."""
    value = changed(POLICY, path, to)
    assert not loads_policy(value)
    assert errors_of_policy(value) == []


@pytest.mark.parametrize(
    ("path", "to"),
    [
        ([], {}),
        (["overrides"], []),
        (["waivers"], []),
        (["$comment"], MISSING),
        (["overrides", 0, "$comment"], None),
        (["overrides", 0, "match"], True),
        (["overrides", 0, "match"], {"anyOf": [{"gateway.region": ["a", None]}, {"not": {"gateway.status": "x"}}]}),
        (["overrides", 0, "match"], {"gateway.name": {"const": {"field": "gateway.id"}}}),
        (["overrides", 0, "match"], {"gateway.project_id": {"enum": {"list": "approved-domains"}}}),
        *((["overrides", 0], {"match": True, key: OVERRIDE[key]}) for key in ("params", "severity", "disable")),
        (["waivers", 0, "match"], True),
        (["waivers", 0, "ticket"], MISSING),
        (["waivers", 0, "id"], "W 2026/014"),
        (["waivers", 0, "match"], {"domain_id": {"enum": {"field": "gateway.permissions"}}}),
        (["waivers", 0, "match"], {"created_at": {"maxAge": "PT1H", "const": {"field": "updated_at"}}}),
    ],
    ids=str,
)
def test_both_take_a_right_policy(path, to):
    """What may be left out, and the values that a policy can name."""
    value = changed(POLICY, path, to) if path else to
    assert loads_policy(value)
    assert errors_of_policy(value) == []


CONDITIONS = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([0, 1.5, 2**63, "", "a", "accepted", "PT1H", "P1M", "2026-11-22T08:15:00Z", "domain_id"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from([*KEYWORDS, "not", "anyOf", "allOf", "param", "list", "field", "status"]), inner, max_size=2
        )
    ),
    max_leaves=4,
)


# Mostly right ones: what is right for one type of field is wrong for the others.
LIKELY = st.recursive(
    st.sampled_from([None, 0, -5, "a", "accepted", "added", "2026-11-22T08:15:00Z", ["a", None], [5], ["failed"]])
    | st.dictionaries(
        st.sampled_from([*KEYWORDS]),
        st.sampled_from([0, 1.5, "accepted", "P7D", "-PT5M", "gw-?*", ["accepted", "failed"], [None], None])
        | st.sampled_from([{"param": "p"}, {"list": "approved-domains"}, {"field": "gateway.permissions"}])
        | st.builds(lambda name: {"field": name}, st.sampled_from(sorted({*SUBJECTS["change"], *SUBJECTS["group"]}))),
        min_size=1,
        max_size=1,
    ),
    lambda inner: (
        st.builds(lambda term: {"not": term}, inner)
        | st.lists(inner, min_size=1, max_size=2).map(lambda terms: {"anyOf": terms})
    ),
    max_leaves=3,
)
FIELDS = [(each, name) for each, fields in SUBJECTS.items() for name in fields]
PLACES = [(base, place) for base, rule in {**BASES, "other": OTHER_RULE}.items() for place in places_in(rule)]


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(PLACES), JSON | CONDITIONS | LIKELY)
@example(("other", ["when", "status"]), {"not": None})
def test_the_schema_refuses_nothing_that_loads(base_and_place, to):
    """Whatever stands anywhere: what the loader takes, the schema takes, so that an editor never cries wolf."""
    base, place = base_and_place
    value = changed({**BASES, "other": OTHER_RULE}[base], place, to)
    if loads(value, value["id"] if isinstance(value["id"], str) else ""):
        assert errors_of_rule(value) == []


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(places_in(POLICY)), JSON | CONDITIONS | LIKELY | st.sampled_from(["info", ["quota"], []]))
def test_the_schema_refuses_no_policy_that_loads(place, to):
    """As with rules."""
    value = changed(POLICY, place, to)
    if loads_policy(value):
        assert errors_of_policy(value) == []


def rule_about(each: str, **conditions: Any) -> dict[str, Any]:
    """A rule with these conditions; of a group, every key that there is makes it."""
    given: Any = [{}] if each == "group" else {}
    before = {"before": None} if each == "change" else {}
    return {
        "id": "r",
        "title": "t",
        "severity": "low",
        "each": {"group": list(GROUP_KEYS)} if each == "group" else each,
        "params": {"p": "PT1H"} if '"param"' in json.dumps(conditions) else {},
        **conditions,
        "tests": [{"name": word, **before, "given": given, "expect": word} for word in ("finding", "pass")],
    }


def waiver_of(each: str, match: Any) -> dict[str, Any]:
    return {**POLICY, "waivers": [{**WAIVER, "rule": BASES[each]["id"], "match": match}]}


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(FIELDS), LIKELY | CONDITIONS)
def test_the_schema_refuses_no_condition_that_loads(subject_and_field, condition):
    """Every field of every subject, in every place that has it, with conditions that are right or nearly so."""
    each, name = subject_and_field
    rules = [rule_about(each, require={name: condition})]
    if name in chosen_by(each):
        rules.append(rule_about(each, when={"anyOf": [{name: condition}]}, require=False))
    for rule in rules:
        if loads(rule, "r"):
            assert errors_of_rule(rule) == []
    policies = [waiver_of(each, {name: condition})]
    if name in LISTED:
        policies.append(changed(POLICY, ["overrides", 0, "match"], {"not": {name: condition}}))
    for policy in policies:
        if loads_policy(policy):
            assert errors_of_policy(policy) == []


@pytest.mark.parametrize(("each", "name"), FIELDS)
def test_every_field_has_its_place_and_its_type(each, name):
    """Conditions that fit and that do not: in `require`, in `when` where it has the field, in waivers and overrides."""
    field = SUBJECTS[each][name]
    held = {"contains": "x"} if field.type == "texts" else field.example
    for condition, fits in [(held, True), ({"not": held}, True), (True, False), ([held], field.type != "texts")]:
        for key in ("when", "require"):
            has_it = name in (chosen_by(each) if key == "when" else required_of(each, list(GROUP_KEYS)))
            rule = {**rule_about(each, require=False), key: {name: condition}}
            assert loads(rule, "r") == RULE_VALIDATOR.is_valid(rule) == (fits and has_it), (key, condition)
        policy = waiver_of(each, {name: condition})
        assert loads_policy(policy) == POLICY_VALIDATOR.is_valid(policy) == fits, condition
        policy = changed(POLICY, ["overrides", 0, "match"], {name: condition})
        assert loads_policy(policy) == POLICY_VALIDATOR.is_valid(policy) == (fits and name in LISTED), condition


READINGS: list[Any] = [None, True, 5, 1.5, 2**63, "", "a", "Unheard-of", "-PT25H", "2026-11-22T08:15:00Z", "25H"]
READINGS += [[], ["d1"], ["d1", "d1"], [" d1"], [5], {}]


@pytest.mark.parametrize("name", [*{**SUBJECTS["connection"], **SUBJECTS["gateway"], **SUBJECTS["group"]}, "nothing"])
@pytest.mark.parametrize(("each", "key"), [*((each, "given") for each in SUBJECTS), ("change", "before")])
def test_both_take_the_same_in_a_test_case(each, key, name):
    """Whatever a reading could hold, of the fields that the case's subject has."""
    for value in READINGS:
        rule = rule_about(each, require=False)
        reading: Any = {name: value}
        rule["tests"][0][key] = [{}, reading] if each == "group" else reading
        assert loads(rule, "r") == RULE_VALIDATOR.is_valid(rule), value


def objects_in(value: Any) -> list[dict[str, Any]]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [*([value] if isinstance(value, dict) else []), *(found for item in inner for found in objects_in(item))]


@pytest.mark.parametrize("build", schema.SCHEMAS.values(), ids=schema.SCHEMAS)
def test_every_key_is_described_and_every_object_closed(build):
    """What an editor shows beside a word; a new key of the language wants its words here too."""
    built = build()
    undescribed = [
        name
        for part in objects_in(built)
        if part.get("additionalProperties") is False
        for name, inner in part["properties"].items()
        if "description" not in inner
    ]
    assert undescribed == []
    assert "oneOf" not in json.dumps(built)


def test_every_field_and_condition_is_there_with_its_meaning():
    """The descriptions are those of the tables, in the editor as in `rules fields`."""
    definitions = schema.build_rule_schema()["$defs"]
    for subject, fields in SUBJECTS.items():
        shown = definitions[f"{subject}-predicate"]["properties"]
        assert {name: shown[name]["description"] for name in fields} == {
            name: field.meaning for name, field in fields.items()
        }
    for subject in ("connection", "gateway"):
        assert set(definitions[f"{subject}-given"]["properties"]) == set(SUBJECTS[subject])
    words = {word for part in objects_in(definitions) for word in part.get("properties", ()) if word in KEYWORDS}
    assert words == set(KEYWORDS)
    assert definitions["connection-status"]["examples"] == [*CONNECTION_STATUSES]
    each = schema.build_rule_schema()["properties"]["each"]
    assert each["examples"] == ["connection", "gateway", "change", {"group": ["gateway.id"]}]
    assert set(each["examples"][:-1]) == SUBJECTS.keys() - {"group"}


def test_a_waiver_shows_every_meaning_that_a_field_can_have():
    """It does not say which rule's subject it is about before its rule is read."""
    definitions = schema.build_policy_schema()["$defs"]
    shown = definitions["waiver-predicate"]["properties"]
    for fields in SUBJECTS.values():
        for name, field in fields.items():
            assert field.meaning in shown[name]["description"]
    assert shown["id"]["description"] == "connection id; or gateway id"
    shown = definitions["override-predicate"]["properties"]
    assert set(shown) == {*LISTED, "not", "allOf", "anyOf"}
    assert definitions["override-text"]["properties"]["like"]["type"] == ["string"]  # there is nothing to name


@pytest.mark.parametrize("build", schema.SCHEMAS.values(), ids=schema.SCHEMAS)
def test_every_definition_is_used_and_there(build):
    """Nothing is left over, and no reference leads nowhere."""
    built = build()
    used = {part["$ref"] for part in objects_in(built) if isinstance(part.get("$ref"), str)}
    assert used == {f"#/$defs/{name}" for name in built["$defs"]}


def test_the_schemas_follow_the_tables(monkeypatch):
    """A subject, a field, a type or a condition more needs no word in the generator."""
    number: Any = "decimal"
    speed = Field(number, "how fast it is", 1.5)
    faster = Keyword(
        (number,), "number", "{x} > {k}", True, "must be above {}", "must not", "is above", "is not", "is faster"
    )
    monkeypatch.setitem(SUBJECTS, "horse", {"speed": speed, "coat": Field("text", "its coat", "bay", ("bay", "black"))})
    monkeypatch.setitem(KEYWORDS, "above", faster)
    monkeypatch.setitem(conditions._FORMS, "decimal", ("a number", (float,)))
    found = validator(schema.build_rule_schema())
    rule = {**RULE, "each": "horse", "params": {}, "require": {"speed": {"above": 3.5}}, "when": {"coat": "bay"}}
    rule["tests"] = [{"name": "n", "given": {"speed": 1}, "expect": expect} for expect in ("finding", "pass")]
    assert [error.message for error in found.iter_errors(rule)] == []
    for key, value in [
        ("each", "connection"),
        ("each", "dog"),
        ("require", {"speed": {"above": "3"}}),
        ("require", {"speed": {"like": "3"}}),
        ("require", {"coat": {"above": 3}}),
        ("when", {"coat": "pink"}),
        ("when", {"status": "accepted"}),
    ]:
        assert not found.is_valid({**rule, key: value}), (key, value)
    assert "above" not in language.KEYWORDS["const"].types
