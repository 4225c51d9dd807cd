"""Each typical mistake in a rule gives exactly one line that says where, what, and what is meant."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.ruleset import language
from audit.ruleset.language import GROUP_KEYS, KEYWORDS, REFS, SUBJECTS, Not, Ref
from audit.ruleset.parse import Rule, parse_rule
from audit.ruleset.problems import Place, parse_json

FIELDS = SUBJECTS["connection"]
KNOWN_FIELDS = ", ".join([*FIELDS, "not", "allOf", "anyOf"])
RULE: dict[str, Any] = {
    "id": "r",
    "title": "t",
    "severity": "low",
    "params": {"wait": "PT24H", "most": 5, "glob": "a*"},
    "when": {"status": "accepted"},
    "require": {
        "status_since": {"maxAge": {"param": "wait"}},
        "marker_id": {"maximum": {"param": "most"}},
        "gateway.name": {"like": {"param": "glob"}},
        "domain_id": {"enum": {"list": "known"}},
    },
    "tests": [
        {"name": "f", "given": {}, "params": {"most": 4}, "lists": {"known": ["d1"]}, "expect": "finding"},
        {"name": "p", "given": {"status": "failed"}, "expect": "pass"},
    ],
}
MISSING = object()
EACH = '#/each: a rule is for each "connection", "gateway", "change" or {"group": [FIELD, ...]}'
OF_GROUP = ("domain_id", "gateway.id", "count", "oldest", "newest", "not", "allOf", "anyOf")


def changed(*path: str | int, to: Any) -> dict[str, Any]:
    """The rule above with one place changed."""
    value = copy.deepcopy(RULE)
    inner: Any = value
    for step in path[:-1]:
        inner = inner[step]
    if to is MISSING:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return value


def problems_of(value: Any) -> list[str]:
    problems: list[str] = []
    rule = parse_rule(value, Place("r.json", problems), "r")
    assert (rule is None) == bool(problems)
    return problems


def problems_of_condition(condition: Any, field: str = "domain_id") -> list[str]:
    """What is wrong with a rule that requires this of a field, each line from the field on."""
    value = {**RULE, "params": {}, "require": {field: condition}}
    value["tests"] = [{"name": "f", "given": {}, "expect": "finding"}, {"name": "p", "given": {}, "expect": "pass"}]
    return [line.removeprefix(f"r.json#/require/{field}") for line in problems_of(value)]


def rule_of(**changes: Any) -> Rule:
    problems: list[str] = []
    rule = parse_rule({**RULE, **changes}, Place("r.json", problems), "r")
    assert rule is not None, problems
    return rule


def test_a_right_rule_has_no_problems():
    """The rule that all mistakes below are made in."""
    assert problems_of(RULE) == []


def test_what_a_rule_says_is_kept():
    """Every key ends up where it is used."""
    rule = rule_of(description="d", remediation="m", controls={"ISO": ["A.1"]}, tags=["x"], **{"$schema": "s"})
    assert (rule.id, rule.title, rule.severity, rule.description, rule.remediation) == ("r", "t", "low", "d", "m")
    assert rule.controls == {"ISO": ["A.1"]}
    assert rule.params == {"wait": "PT24H", "most": 5, "glob": "a*"}
    assert rule.lists == {"known"}
    assert rule.require_json == RULE["require"]
    assert [case.expect for case in rule.cases] == ["finding", "pass"]
    assert rule.cases[0].lists == {"known": ("d1",)}


STATUS_WORDS = "pendingAcceptance, creating, accepted, rejected, failed, deleting"


@pytest.mark.parametrize(
    ("path", "to", "expected"),
    [
        (["sevrity"], "low", '#/sevrity: unknown key "sevrity"; did you mean "severity"?'),
        (
            ["xyz"],
            1,
            (
                '#/xyz: unknown key "xyz"; known: $schema, id, title, severity, description, remediation, '
                "controls, tags, params, each, when, require, tests"
            ),
        ),
        (["id"], MISSING, ': "id" is missing'),
        (["title"], MISSING, ': "title" is missing'),
        (["severity"], MISSING, ': "severity" is missing'),
        (["tests"], MISSING, ': "tests" is missing'),
        (["id"], "s", '#/id: the id must be the file\'s name: "r", not "s"'),
        (["id"], "R_1", '#/id: a rule id is lower-case words with dashes, such as "pending-too-long"'),
        (["id"], 5, '#/id: a rule id is lower-case words with dashes, such as "pending-too-long"'),
        (["title"], "", "#/title: a text is wanted, not an empty text"),
        (["title"], ["t"], "#/title: a text is wanted, not an array"),
        (["description"], None, "#/description: a text is wanted, not null"),
        (["severity"], "hihg", '#/severity: "hihg" is none of info, low, medium, high, critical; did you mean "high"?'),
        (["severity"], 3, "#/severity: one of info, low, medium, high, critical is wanted, not a whole number"),
        (["severity"], [], "#/severity: one of info, low, medium, high, critical is wanted, not an empty array"),
        (["controls"], ["A.1"], "#/controls: an object is wanted, not an array"),
        (["controls"], {"ISO/IEC": "A.1"}, "#/controls/ISO~1IEC: an array of texts is wanted, not a text"),
        (["controls"], {"ISO~": [1]}, "#/controls/ISO~0/0: a text without blanks around it is wanted"),
        (["tags"], "x", "#/tags: an array of texts is wanted, not a text"),
        (
            ["each"],
            "conection",
            f'{EACH}, not "conection"; did you mean "connection"?',
        ),
        (
            ["each"],
            "group",
            f'{EACH}, not "group"; did you mean {{"group": [FIELD, ...]}}?',
        ),
        (["each"], {"group": ["gatway.id"]}, '#/each/group/0: unknown field "gatway.id"; did you mean "gateway.id"?'),
        (
            ["each"],
            {"group": ["gateway.pending"]},
            f'#/each/group/0: "gateway.pending" cannot make groups; known: {", ".join(GROUP_KEYS)}',
        ),
        (["each"], {"group": ["id", 5]}, "#/each/group/1: a text without blanks around it is wanted"),
        (["each"], {"group": ["id", "id"]}, '#/each/group/1: "id" stands twice in this list'),
        (["each"], {"group": []}, "#/each/group: an array of fields, with at least one, is wanted, not an empty array"),
        (["each"], {"grop": ["id"]}, '#/each/grop: unknown key "grop"; did you mean "group"?'),
        (["each"], {}, '#/each: "group" is missing'),
        (["params"], [], "#/params: an object from parameter to default is wanted, not an empty array"),
        (
            ["params", "wait"],
            "24h",
            ('#/params/wait: "24h" is not a duration such as "PT24H" or "P7D" (days, hours, minutes, seconds)'),
        ),
        (["params", "wait"], 24, '#/params/wait: a duration such as "PT24H" is wanted, not a whole number'),
        (["params", "wait"], {"x": 1}, "#/params/wait: a text or a number is wanted, not an object"),
        (["params", "wait"], None, "#/params/wait: a text or a number is wanted, not null"),
        (["params", "most"], True, "#/params/most: a text or a number is wanted, not true or false"),
        (["params", "most"], "5", "#/params/most: a number is wanted, not a text"),
        (["params", "glob"], "a" * 129, "#/params/glob: the glob has 129 characters; at most 128 are allowed"),
        (["params", "more"], 5, "#/params/more: this parameter is used nowhere in the rule"),
        (["when"], "accepted", "#/when: true, false or an object from field to condition is wanted, not a text"),
        (["when"], None, "#/when: true, false or an object from field to condition is wanted, not null"),
        (["when"], {}, "#/when: an empty object says nothing; true means all"),
        (
            ["when"],
            {"anyOf": []},
            ("#/when/anyOf: an array of conditions, with at least one, is wanted, not an empty array"),
        ),
        (
            ["when"],
            {"allOf": {"status": "failed"}},
            ("#/when/allOf: an array of conditions, with at least one, is wanted, not an object"),
        ),
        (
            ["when"],
            {"not": 3},
            ("#/when/not: true, false or an object from field to condition is wanted, not a whole number"),
        ),
        (
            ["when"],
            {"anyOf": [{"status": "failed"}, {"stat": 1}]},
            ('#/when/anyOf/1/stat: unknown field "stat"; did you mean "status"?'),
        ),
        (["when"], {"q": 1}, f'#/when/q: unknown field "q"; known: {KNOWN_FIELDS}'),
        (
            ["when"],
            {"gateway.nmae": 1},
            ('#/when/gateway.nmae: unknown field "gateway.nmae"; did you mean "gateway.name"?'),
        ),
        (
            ["when", "status"],
            "pending",
            f'#/when/status: "pending" is none of {STATUS_WORDS}; did you mean "pendingAcceptance"?',
        ),
        (
            ["when", "status"],
            "acepted",
            f'#/when/status: "acepted" is none of {STATUS_WORDS}; did you mean "accepted"?',
        ),
        (
            ["when", "status"],
            ["accepted", "Failed"],
            (f'#/when/status/1: "Failed" is none of {STATUS_WORDS}; did you mean "failed"?'),
        ),
        (
            ["require", "status_since"],
            {"maxage": "P1D"},
            ('#/require/status_since/maxage: unknown condition "maxage"; did you mean "maxAge"?'),
        ),
        (
            ["require", "marker_id"],
            {"zzz": 1},
            ('#/require/marker_id/zzz: unknown condition "zzz"; known: const, enum, minimum, maximum, not, anyOf'),
        ),
        (["tests"], {}, "#/tests: an array of test cases is wanted, not an empty object"),
        (["tests"], [], "#/tests: an array of test cases is wanted, not an empty array"),
        (["tests", 0], "x", "#/tests/0: an object is wanted, not a text"),
        (["tests", 0, "nmae"], "x", '#/tests/0/nmae: unknown key "nmae"; did you mean "name"?'),
        (["tests", 0, "name"], 5, "#/tests/0/name: a text is wanted, not a whole number"),
        (["tests", 0, "expect"], MISSING, '#/tests/0: "expect" is missing'),
        (
            ["tests", 0, "expect"],
            "findings",
            ('#/tests/0/expect: "findings" is none of finding, pass; did you mean "finding"?'),
        ),
        (["tests", 0, "expect"], ["finding"], "#/tests/0/expect: one of finding, pass is wanted, not an array"),
        (["tests", 0, "given"], MISSING, '#/tests/0: "given" is missing'),
        (["tests", 0, "given"], [], "#/tests/0/given: an object is wanted, not an empty array"),
        (
            ["tests", 0, "given"],
            {"statuss": 1},
            ('#/tests/0/given/statuss: unknown field "statuss"; did you mean "status"?'),
        ),
        (["tests", 0, "given"], {"marker_id": "1"}, "#/tests/0/given/marker_id: a whole number is wanted, not a text"),
        (["tests", 0, "given"], {"domain_id": {}}, "#/tests/0/given/domain_id: a text is wanted, not an empty object"),
        (
            ["tests", 0, "given"],
            {"created_at": "-25h"},
            (
                '#/tests/0/given/created_at: "-25h" is neither a time such as '
                '"2026-11-22T08:15:00Z" nor relative such as "-PT25H"'
            ),
        ),
        (
            ["tests", 0, "given"],
            {"created_at": 25},
            ('#/tests/0/given/created_at: a time such as "2026-11-22T08:15:00Z" is wanted, not a whole number'),
        ),
        (
            ["tests", 0, "params"],
            {"wiat": "PT1H"},
            ('#/tests/0/params/wiat: unknown parameter "wiat"; did you mean "wait"?'),
        ),
        (
            ["tests", 0, "params"],
            {"wait": 1},
            ('#/tests/0/params/wait: a duration such as "PT24H" is wanted, not a whole number'),
        ),
        (["tests", 0, "lists"], {"knwon": []}, '#/tests/0/lists/knwon: unknown list "knwon"; did you mean "known"?'),
        (["tests", 0, "lists"], {"known": "d1"}, "#/tests/0/lists/known: an array of texts is wanted, not a text"),
        (
            ["tests", 0, "expect"],
            "pass",
            '#/tests: a rule needs at least one case of each kind; none expects "finding"',
        ),
        (
            ["tests", 1, "expect"],
            "finding",
            '#/tests: a rule needs at least one case of each kind; none expects "pass"',
        ),
        (["when"], False, "#/when: it never applies, so it could never find anything"),
        (["when"], {"status": "failed", "not": True}, "#/when: it never applies, so it could never find anything"),
        (["when"], {"anyOf": [{"not": True}, False]}, "#/when: it never applies, so it could never find anything"),
    ],
)
def test_one_mistake_is_one_line(path, to, expected):
    """File, JSON pointer, what is wrong, the nearest right word; and nothing that merely follows from it."""
    assert problems_of(changed(*path, to=to)) == [f"r.json{expected}"]


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("require", "requires"), ("tests", "test"), ("params", "param"), ("when", "wen"), ("severity", "Severity")],
)
def test_a_misspelt_key_is_not_missing_too(right, wrong):
    """It stands for the one that is meant, so that what it holds is neither lost nor reported as absent."""
    value = {wrong if key == right else key: inner for key, inner in RULE.items()}
    assert problems_of(value) == [f'r.json#/{wrong}: unknown key "{wrong}"; did you mean "{right}"?']


def test_a_list_in_a_misspelt_condition_is_not_unknown_in_the_tests_too():
    """What cannot be read may well be what the test case speaks of."""
    value = changed("require", "domain_id", to={"enmu": {"list": "known"}})
    assert problems_of(value) == [
        'r.json#/require/domain_id/enmu: unknown condition "enmu"; did you mean "enum"?'
    ]  # fmt: skip


def test_a_rule_that_requires_nothing_is_refused():
    """`require: true` could never find anything; an empty object says so too."""
    value = {**RULE, "params": {}, "tests": [{**case, "params": {}, "lists": {}} for case in RULE["tests"]]}
    assert problems_of({**value, "require": True}) == [
        "r.json#/require: it requires nothing, so it could never find anything"
    ]
    empty = problems_of({**value, "params": {}, "require": {}})
    assert empty == ["r.json#/require: an empty object says nothing; true means all"]


def test_all_mistakes_of_a_rule_come_at_once():
    """Nobody mends a file line by line."""
    value = changed("severity", to="hihg")
    value["when"] = {"stat": 1}
    value["require"]["marker_id"] = {"maximum": "5"}
    value["params"] = {"wait": "24h", "glob": "a*"}
    value["tests"][0] = {"name": "f", "given": {"domain_id": 5}, "expect": "x"}
    assert [line.split(":")[0] for line in problems_of(value)] == [
        "r.json#/severity",
        "r.json#/when/stat",
        "r.json#/require/marker_id/maximum",
        "r.json#/params/wait",
        "r.json#/tests/0/expect",
        "r.json#/tests/0/given/domain_id",
    ]


WRITTEN: dict[str, Any] = {
    "value": {"text": "d1", "integer": 5, "time": "2026-11-22T08:15:00Z"},
    "values": {"text": ["d1"], "integer": [5], "time": ["2026-11-22T08:15:00Z"]},
    "text": "d1",
    "glob": "a*",
    "number": 5,
    "duration": "PT24H",
}


@pytest.mark.parametrize("keyword", KEYWORDS)
@pytest.mark.parametrize("name", FIELDS)
def test_every_condition_fits_the_types_it_is_for_and_no_other(keyword, name):
    """Every keyword on every field: read as such, or refused with what it is for."""
    field, word = FIELDS[name], KEYWORDS[keyword]
    written = WRITTEN[word.takes]
    if isinstance(written, dict):
        written = written.get(field.type, 0)
    if field.values and word.takes in {"value", "values"}:
        written = "accepted" if word.takes == "value" else ["accepted"]
    problems = problems_of_condition({keyword: written}, name)
    if field.type in word.types:
        assert problems == []
    else:
        assert problems == [
            (f'/{keyword}: "{keyword}" is for fields of type {" or ".join(word.types)}; '
            f'"{name}" is of type {field.type}')
        ]  # fmt: skip


@pytest.mark.parametrize("keyword", KEYWORDS)
@pytest.mark.parametrize("kind", ["param", "list", "field"])
def test_every_named_value_is_taken_where_it_makes_sense(keyword, kind):
    """A parameter, a list or a field under each keyword: taken, or refused with what may stand there."""
    word = KEYWORDS[keyword]
    beside = {"text": "domain_id", "integer": "marker_id", "time": "created_at", "texts": "gateway.permissions"}
    field = beside[word.types[0]]
    params = {"p": {"glob": "a*", "number": 5, "duration": "PT1H"}.get(word.takes, "d1")}
    named = {kind: {"param": "p", "list": "p", "field": beside["texts"] if keyword == "enum" else field}[kind]}
    allowed = REFS[word.takes]
    value = {
        **RULE, "params": params if kind == "param" and kind in allowed else {}, "require": {field: {keyword: named}},
        "tests": [{**case, "params": {}, "lists": {}} for case in RULE["tests"]],
    }  # fmt: skip
    problems: list[str] = []
    rule = parse_rule(value, Place("r.json", problems), "r")
    if kind in allowed:
        assert rule is not None, problems
        assert isinstance(rule.require, language.Test)
        assert rule.require.value == Ref(kind, named[kind])
    else:
        what = " or ".join(allowed)
        assert problems == [
            f'r.json#/require/{field}/{keyword}: "{keyword}" can take its value from a {what}, not from a {kind}'
        ]


@pytest.mark.parametrize(
    ("field", "condition", "expected"),
    [
        ("domain_id", {}, ": an empty condition says nothing"),
        ("domain_id", 5, ": a text is wanted, not a whole number"),
        ("domain_id", True, ": a text is wanted, not true or false"),
        ("domain_id", [], ': an array of values or {"list": NAME} is wanted, not an empty array'),
        ("domain_id", ["d", 5, "e"], "/1: a text is wanted, not a whole number"),
        ("domain_id", [["d"]], "/0: a text is wanted, not an array"),
        ("domain_id", [{"param": "p"}], "/0: a text is wanted, not an object"),
        ("domain_id", {"enum": "d"}, '/enum: an array of values or {"list": NAME} is wanted, not a text'),
        ("domain_id", {"const": ["d"]}, "/const: a text is wanted, not an array"),
        ("domain_id", {"like": 5}, "/like: a glob (a text) is wanted, not a whole number"),
        ("domain_id", {"like": None}, "/like: a glob (a text) is wanted, not null"),
        ("domain_id", {"like": "a" * 129}, "/like: the glob has 129 characters; at most 128 are allowed"),
        (
            "domain_id",
            {"anyOf": []},
            "/anyOf: an array of conditions, with at least one, is wanted, not an empty array",
        ),
        ("domain_id", {"not": {"lik": "a"}}, '/not/lik: unknown condition "lik"; did you mean "like"?'),
        ("domain_id", {"anyOf": ["a", {"lik": "a"}]}, '/anyOf/1/lik: unknown condition "lik"; did you mean "like"?'),
        (
            "domain_id",
            {"list": "known"},
            ('/list: "list" names a value; say what the field has to do with it, for example {"enum": {"list": ...}}'),
        ),
        (
            "domain_id",
            {"param": "p"},
            (
                '/param: "param" names a value; say what the field has to do with it, for '
                'example {"const": {"param": ...}}'
            ),
        ),
        ("domain_id", {"const": {"parm": "p"}}, '/const/parm: unknown kind of value "parm"; did you mean "param"?'),
        ("domain_id", {"const": {"param": "p"}}, '/const/param: unknown parameter "p"; known: none'),
        (
            "domain_id",
            {"const": {"field": "domain"}},
            '/const/field: unknown field "domain"; did you mean "domain_id"?',
        ),
        (
            "domain_id",
            {"const": {"field": "marker_id"}},
            ('/const/field: "marker_id" is of type integer; a field of type text is wanted'),
        ),
        (
            "domain_id",
            {"const": {"param": "p", "list": "l"}},
            ('/const: a value is written out or is {"param": NAME}, {"list": NAME} or {"field": NAME}'),
        ),
        (
            "domain_id",
            {"const": {}},
            ('/const: a value is written out or is {"param": NAME}, {"list": NAME} or {"field": NAME}'),
        ),
        (
            "domain_id",
            {"const": {"param": 5}},
            ('/const: a value is written out or is {"param": NAME}, {"list": NAME} or {"field": NAME}'),
        ),
        ("marker_id", "7", ": a whole number is wanted, not a text"),
        ("marker_id", 7.0, ": a whole number is wanted, not a decimal number"),
        ("marker_id", True, ": a whole number is wanted, not true or false"),
        ("marker_id", 2**63, ": the number needs more than 64 bits"),
        ("marker_id", {"minimum": -(2**63) - 1}, "/minimum: the number needs more than 64 bits"),
        ("marker_id", {"maximum": float("inf")}, "/maximum: the number needs more than 64 bits"),
        ("marker_id", {"minimum": None}, "/minimum: a number is wanted, not null"),
        ("marker_id", {"minimum": "5"}, "/minimum: a number is wanted, not a text"),
        ("created_at", "yesterday", ': a time such as "2026-11-22T08:15:00Z" is wanted, not "yesterday"'),
        (
            "created_at",
            "2026-11-22T08:15:00+08:00",
            (': a time such as "2026-11-22T08:15:00Z" is wanted, not "2026-11-22T08:15:00+08:00"'),
        ),
        ("created_at", {"maxAge": 24}, '/maxAge: a duration such as "PT24H" is wanted, not a whole number'),
        (
            "created_at",
            {"maxAge": "P1M"},
            ('/maxAge: "P1M" is not a duration such as "PT24H" or "P7D" (days, hours, minutes, seconds)'),
        ),
        ("created_at", {"minAge": "P40000D"}, '/minAge: "P40000D" is longer than 36500 days'),
    ],
)
def test_what_does_not_fit_a_field_is_refused(field, condition, expected):
    """Wrong types and values that can never occur are errors when rules load, not conditions that never hold."""
    assert problems_of_condition(condition, field) == [expected]


@pytest.mark.parametrize("condition", [None, {"const": None}, ["d", None], {"not": None}, {"anyOf": [None, "d"]}])
def test_null_may_stand_wherever_a_field_is_compared(condition):
    """That is how a rule speaks of what is absent."""
    assert problems_of_condition(condition) == []


def test_sugar():
    """A scalar is const, an array is enum, and a single member is not wrapped."""
    assert isinstance(rule_of(when={"status": "failed"}).when, language.Test)
    short, long = (rule_of(when={"status": value}).when for value in (["failed"], {"enum": ["failed"]}))
    assert isinstance(short, language.Test)
    assert isinstance(long, language.Test)
    assert (short.field, short.keyword, short.value) == (long.field, long.keyword, long.value)
    assert isinstance(rule_of(when={"status": {"not": "failed"}}).when, Not)


def test_nesting_has_a_bottom():
    """What is nested deeper than Python could follow is refused, and does not crash."""
    condition: Any = {"domain_id": "d1"}
    for _ in range(300):
        condition = {"not": condition}
    assert problems_of(changed("when", to=condition)) == [
        "r.json#/when" + "/not" * 40 + ": nested deeper than 40 levels"
    ]


@pytest.mark.parametrize("word", ["a\nb", "\x1b[2J", "\u202e", "\x00"])
def test_a_problem_is_one_line_whatever_stands_in_the_file(word):
    """Hostile text is shown as visible escapes: it adds no line and moves no cursor."""
    for value in (
        changed(word, to=1),
        changed("when", to={word: 1}),
        changed("severity", to=word),
        changed("require", "domain_id", to={word: 1}),
        changed("require", "status_since", to={"maxAge": word}),
        changed("tests", 0, "given", to={"created_at": word}),
    ):
        (line,) = problems_of(value)
        assert line.isprintable()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PLACES = [
    ["id"], ["title"], ["severity"], ["description"], ["controls"], ["tags"], ["params"], ["params", "wait"], ["each"],
    ["when"], ["when", "status"], ["require"], ["require", "status_since"], ["require", "status_since", "maxAge"],
    ["require", "marker_id", "maximum"], ["require", "domain_id", "enum"], ["tests"], ["tests", 0],
    ["tests", 0, "given"], ["tests", 0, "params"], ["tests", 0, "lists"], ["tests", 0, "expect"],
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PLACES), JSON)
def test_no_json_whatsoever_crashes_the_reader(path, value):
    """Anything anywhere gives a rule or problems that each name the file."""
    assert all(line.startswith("r.json") for line in problems_of(changed(*path, to=value)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (b"[]", "the file holds an empty array; an object is wanted"),
        (b"null", "the file holds null; an object is wanted"),
        (b"3", "the file holds a whole number; an object is wanted"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', 'cannot be read: the key "c" stands twice in one object'),
        (b'{"a": NaN}', "cannot be read: NaN is not JSON"),
        (b'{"a": -Infinity}', "cannot be read: -Infinity is not JSON"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8 at byte 0"),
        (b'{"a": "\\ud83d"}', "not JSON: one of its \\u escapes is half a character"),
    ],
)
def test_what_is_no_json_object(text, expected):
    """Each with its reason; a key that stands twice would lose the first one without a word."""
    problems: list[str] = []
    assert parse_json(text, Place("r.json", problems)) is None
    assert problems == [f"r.json: {expected}"]


@pytest.mark.parametrize("text", [b"{", b'{"a": 1,}', b"{'a': 1}", b'{"a": 1} x', b'{"a": "\n"}'])
def test_broken_json_says_where(text):
    """Line and column; the words are Python's own."""
    problems: list[str] = []
    assert parse_json(text, Place("r.json", problems)) is None
    assert len(problems) == 1
    assert problems[0].startswith("r.json: not JSON: ")
    assert " line 1, column " in problems[0] or " line 2, column " in problems[0]


def test_absurdly_deep_or_long_json_is_a_problem_not_a_crash():
    """Python's own limits are met as errors of the file."""
    for text in (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b'{"a": ' + b"9" * 5_000 + b"}"):
        problems: list[str] = []
        assert parse_json(text, Place("r.json", problems)) is None
        assert len(problems) == 1


def test_a_byte_order_mark_is_taken():
    """Some editors write one."""
    problems: list[str] = []
    assert parse_json(b"\xef\xbb\xbf" + json.dumps({"a": "é"}).encode(), Place("r.json", problems)) == {"a": "é"}
    assert problems == []


CHANGE: dict[str, Any] = {
    "id": "r", "title": "t", "severity": "low", "each": "change", "when": {"change": "modified"},
    "require": {"after.domain_id": {"const": {"field": "before.domain_id"}}},
    "tests": [
        {"name": "f", "before": {}, "given": {"domain_id": "d2"}, "expect": "finding"},
        {"name": "p", "before": None, "given": {}, "expect": "pass"},
    ],
}  # fmt: skip
GROUP: dict[str, Any] = {
    "id": "r", "title": "t", "severity": "low", "each": {"group": ["gateway.id", "domain_id"]},
    "when": {"status": "accepted"}, "require": {"count": {"maximum": 1}},
    "tests": [
        {"name": "f", "given": [{}, {}], "expect": "finding"},
        {"name": "p", "given": [{}, {"domain_id": "d2"}], "expect": "pass"},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "problems"),
    [
        (CHANGE, []),
        (GROUP, []),
        (
            CHANGE | {"when": {"status": "accepted"}},
            ['#/when/status: unknown field "status"; did you mean "after.status"?'],
        ),
        (CHANGE | {"when": {"change": "changed"}}, ['#/when/change: "changed" is none of added, removed, modified']),
        (
            GROUP | {"when": {"count": 1}},
            [f'#/when/count: the field "count" cannot be used here; known: {KNOWN_FIELDS}'],
        ),
        (
            GROUP | {"require": {"marker_id": 1}},
            [f'#/require/marker_id: the field "marker_id" cannot be used here; known: {", ".join(OF_GROUP)}'],
        ),
        (
            CHANGE | {"tests": [*CHANGE["tests"], {"name": "n", "before": None, "given": None, "expect": "pass"}]},
            ['#/tests/2: one of "before" and "given" must be a connection'],
        ),
        (
            CHANGE | {"tests": [*CHANGE["tests"], {"name": "n", "given": {}, "expect": "pass"}]},
            ['#/tests/2: "before" is missing'],
        ),
        (
            CHANGE
            | {"tests": [*CHANGE["tests"], {"name": "n", "before": {"after.id": "x"}, "given": {}, "expect": "pass"}]},
            ['#/tests/2/before/after.id: unknown field "after.id"; did you mean "gateway.id"?'],
        ),
        (
            GROUP | {"tests": [*GROUP["tests"], {"name": "n", "given": {}, "expect": "pass"}]},
            ["#/tests/2/given: an array of connections is wanted, not an empty object"],
        ),
        (
            GROUP | {"tests": [*GROUP["tests"], {"name": "n", "given": [5], "expect": "pass"}]},
            ["#/tests/2/given/0: an object is wanted, not a whole number"],
        ),
        (
            RULE | {"tests": [*RULE["tests"], {"name": "n", "before": {}, "given": {}, "expect": "pass"}]},
            ['#/tests/2/before: unknown key "before"; known: name, given, expect, params, lists'],
        ),
    ],
)
def test_mistakes_in_rules_about_changes_and_groups(rule, problems):
    """Each subject has its own fields, for conditions and for test cases."""
    assert problems_of(rule) == [f"r.json{problem}" for problem in problems]


def test_the_id_of_findings_about_waivers_is_taken():
    """No rule file can be mistaken for them."""
    problems: list[str] = []
    assert parse_rule(RULE | {"id": "waiver-expired"}, Place("r", problems), "waiver-expired") is None
    assert problems == ["r#/id: findings about expired waivers have this id; choose another"]
