"""The published schemas say what the loader says, as far as a schema can know, and never more."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from audit.ruleset import conditions, language, schema
from audit.ruleset.language import CONNECTION_STATUSES, KEYWORDS, SUBJECTS, Field, Keyword
from audit.ruleset.parse import parse_rule
from audit.ruleset.policy import parse_policy
from audit.ruleset.problems import Place
from tests.test_rules_parse import JSON, PLACES
from tests.test_rules_parse import RULE as OTHER_RULE

DIRECTORY = Path(schema.__file__).parent
RULES = DIRECTORY.parents[1] / "rules"
SHIPPED = sorted(path for path in RULES.glob("*.json") if path.name != "policy.json")
RULE: dict[str, Any] = json.loads((RULES / "pending-too-long.json").read_text())
POLICY: dict[str, Any] = {
    "lists": {"approved-domains": ["d1", "d2"]},
    "params": {"pending-too-long": {"longest-wait": "PT4H"}},
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
    problems: list[str] = []
    return parse_rule(copy.deepcopy(value), Place("r.json", problems), rule_id) is not None


def loads_policy(value: Any) -> bool:
    problems: list[str] = []
    rule = parse_rule(RULE, Place("r.json", problems), RULE["id"])
    parse_policy(copy.deepcopy(value), Place("policy.json", problems), {RULE["id"]: rule})
    return not problems


@pytest.mark.parametrize("name", schema.SCHEMAS)
def test_the_files_are_what_is_generated(name):
    """Mended by `python -m audit.ruleset.schema`."""
    assert (DIRECTORY / name).read_text() == schema.render_schema(schema.SCHEMAS[name]())


def test_the_command_writes_the_files(tmp_path):
    """It says nothing, and writes beside its module: here, beside a copy of it."""
    for name in ("__init__.py", "schema.py"):
        (tmp_path / name).write_text((DIRECTORY / name).read_text())
    subprocess.run([sys.executable, tmp_path / "schema.py"], cwd=RULES.parent, env={"PYTHONPATH": "."}, check=True)
    written = {path.name: path.read_text() for path in tmp_path.glob("*.json")}
    assert written == {name: schema.render_schema(build()) for name, build in schema.SCHEMAS.items()}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_rule_names_its_schema_and_meets_it(path):
    """An editor finds the schema by the first line of the file."""
    value = json.loads(path.read_text())
    assert next(iter(value)) == "$schema"
    assert (RULES / value["$schema"]).resolve() == DIRECTORY / "rule.schema.json"
    assert [error.message for error in RULE_VALIDATOR.iter_errors(value)] == []


def test_the_shipped_policy_names_its_schema_and_meets_it():
    """As the rules do."""
    value = json.loads((RULES / "policy.json").read_text())
    assert next(iter(value)) == "$schema"
    assert (RULES / value["$schema"]).resolve() == DIRECTORY / "policy.schema.json"
    assert [error.message for error in POLICY_VALIDATOR.iter_errors(value)] == []


REQUIRE: list[str | int] = ["require"]
GIVEN: list[str | int] = ["tests", 0, "given"]
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
# Right for the schema: it knows no other file, no other place in this one, and no calendar.
ONLY_THE_LOADER: list[tuple[list[str | int], Any]] = [
    (["id"], "pending"),
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


def test_the_rule_that_is_broken_below_is_right():
    """Else nothing below would prove anything."""
    assert loads(RULE)
    assert RULE_VALIDATOR.is_valid(RULE)
    assert loads_policy(POLICY)
    assert POLICY_VALIDATOR.is_valid(POLICY)


@pytest.mark.parametrize(("path", "to"), BROKEN, ids=str)
def test_what_the_schema_can_know_both_refuse(path, to):
    """One mistake each, and the schema's error lies at the mistake or above it, never beside it."""
    value = changed(RULE, path, to)
    assert not loads(value)
    errors = list(RULE_VALIDATOR.iter_errors(value))
    assert errors
    for error in errors:
        at = list(error.absolute_path)
        assert at[: len(path)] == path[: len(at)], error.message


@pytest.mark.parametrize(("path", "to"), ONLY_THE_LOADER, ids=str)
def test_what_only_the_loader_can_know(path, to):
    """Names, sense and calendars; should the schema learn one of them, it moves to the list above."""
    value = changed(RULE, path, to)
    assert not loads(value)
    assert RULE_VALIDATOR.is_valid(value)


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
    ],
    ids=str,
)
def test_both_refuse_a_broken_policy(path, to):
    """As with rules."""
    value = changed(POLICY, path, to)
    assert not loads_policy(value)
    assert not POLICY_VALIDATOR.is_valid(value)


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


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(PLACES), JSON | CONDITIONS)
@example(["when", "status"], {"not": None})
def test_the_schema_refuses_nothing_that_loads(path, to):
    """Whatever stands anywhere: what the loader takes, the schema takes, so that an editor never cries wolf."""
    value = changed(OTHER_RULE, path, to)
    if loads(value, "r"):
        assert [error.message for error in RULE_VALIDATOR.iter_errors(value)] == []


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(sorted(SUBJECTS)).flatmap(
        lambda each: st.tuples(st.just(each), st.sampled_from([*SUBJECTS[each]]))
    ),
    CONDITIONS,
)
def test_the_schema_refuses_no_condition_that_loads(subject_and_field, condition):
    """Every field of every subject, with conditions that are nearly right."""
    each, field = subject_and_field
    cases: list[Any] = [{"name": outcome, "given": {}, "expect": outcome} for outcome in ("finding", "pass")]
    value = {"id": "r", "title": "t", "severity": "low", "each": each, "require": {field: condition}, "tests": cases}
    if loads(value, "r"):
        assert [error.message for error in RULE_VALIDATOR.iter_errors(value)] == []


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
    """The descriptions are those of the tables."""
    definitions = schema.build_rule_schema()["$defs"]
    for subject, fields in SUBJECTS.items():
        shown = definitions[f"{subject}-predicate"]["properties"]
        assert {name: shown[name]["description"] for name in fields} == {
            name: field.meaning for name, field in fields.items()
        }
        assert set(definitions[f"{subject}-case"]["properties"]["given"]["properties"]) == set(fields)
    words = {word for part in objects_in(definitions) for word in part.get("properties", ()) if word in KEYWORDS}
    assert words == set(KEYWORDS)
    status = definitions["connection-status"]
    assert status["examples"] == [*CONNECTION_STATUSES]


def test_the_schemas_follow_the_tables(monkeypatch):
    """A subject, a field, a type or a condition more needs no word in the generator."""
    number: Any = "decimal"
    speed = Field(number, "how fast it is", 1.5)
    faster = Keyword((number,), "number", "{x} > {k}", True, "must be above {}", "must not", "is faster")
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
