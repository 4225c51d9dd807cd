"""The compiled rules against an oracle: `jsonschema`, given what the language page says each condition means.

`desugar` turns a predicate into a JSON Schema of the record (an object from dotted field to value; a field that is
absent reads as null). It reads the rule's JSON itself and shares no code with the compiler.
"""

from __future__ import annotations

import copy
import fnmatch
import json
import re
from datetime import datetime, timedelta, timezone
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, find, given, reject, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend
from msgspec.structs import replace

from audit.model import Connection, Gateway
from audit.ruleset import compiled
from audit.ruleset.compiled import Bindings
from audit.ruleset.language import CHANGES, CONNECTION_STATUSES, KEYWORDS, SUBJECTS, AnyOf, Field, required_of
from audit.ruleset.parse import Rule, parse_rule
from audit.ruleset.problems import Place
from audit.ruleset.program import BoundRule, Program
from audit.subjects import Change, Scene
from tests import rule_schemas
from tests.builders import compile_rules

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

NOW = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)
FIELDS = SUBJECTS["connection"]
DURATIONS = {"-PT5M": -300, "PT0S": 0, "PT1S": 1, "PT59M59S": 3599, "PT1H": 3600, "P1D": 86_400, "P1DT1S": 86_401}


# What the language means, in JSON Schema. Of this dialect are only the words that compare two fields, or one with now.


def _same_as(_validator: Any, fields: list[str], record: Any, _schema: Any) -> Any:
    one, other = map(record.get, fields)
    if one != other:
        yield ValidationError("differ")


def _member_of(_validator: Any, fields: list[str], record: Any, _schema: Any) -> Any:
    one, other = map(record.get, fields)
    if other is None or one not in other:
        yield ValidationError("is no member")


def _not_less(_validator: Any, fields: list[str], record: Any, _schema: Any) -> Any:
    one, other = map(record.get, fields)
    if one is None or other is None or one < other:
        yield ValidationError("is less")


def _seconds(text: str) -> float:
    return (NOW - datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)).total_seconds()


def _at_most_old(_validator: Any, seconds: int, text: Any, _schema: Any) -> Any:
    if _seconds(text) > seconds:
        yield ValidationError("is older")


def _at_least_old(_validator: Any, seconds: int, text: Any, _schema: Any) -> Any:
    if _seconds(text) < seconds:
        yield ValidationError("is younger")


DIALECT: Any = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {
        "sameAs": _same_as,
        "memberOf": _member_of,
        "notLess": _not_less,
        "atMostOld": _at_most_old,
        "atLeastOld": _at_least_old,
    },
)


def desugar(predicate: Any, values: Values) -> Any:
    """The JSON Schema of the records for which a predicate holds."""
    if isinstance(predicate, bool):
        return predicate
    terms = []
    for key, inner in predicate.items():
        if key == "not":
            terms.append({"not": desugar(inner, values)})
        elif key in {"allOf", "anyOf"}:
            terms.append({key: [desugar(term, values) for term in inner]})
        else:
            terms.append(desugar_matcher(key, inner, values))
    return {"allOf": terms}


def desugar_matcher(field: str, matcher: Any, values: Values) -> Any:
    if isinstance(matcher, list):
        matcher = {"enum": matcher}
    elif not isinstance(matcher, dict):
        matcher = {"const": matcher}
    terms = []
    for keyword, inner in matcher.items():
        if keyword == "not":
            terms.append({"not": desugar_matcher(field, inner, values)})
        elif keyword == "anyOf":
            terms.append({"anyOf": [desugar_matcher(field, term, values) for term in inner]})
        else:
            terms.append(desugar_condition(field, keyword, inner, values))
    return {"allOf": terms}


def desugar_condition(field: str, keyword: str, written: Any, values: Values) -> Any:
    kind, name = next(iter(written.items())) if isinstance(written, dict) else ("", "")
    if kind == "field":
        return {
            "const": {"sameAs": [field, name]},
            "enum": {"memberOf": [field, name]},
            "minimum": {"notLess": [field, name]},
            "maximum": {"notLess": [name, field]},
        }[keyword]
    value: Any = values.params[name] if kind == "param" else list(values.lists[name]) if kind == "list" else written
    if keyword == "const":
        # Null is also what is absent.
        return {"properties": {field: {"const": value}}, "required": [field] if value is not None else []}
    if keyword == "enum":
        return {"properties": {field: {"enum": value}}, "required": [] if None in value else [field]}
    meanings: dict[str, Callable[[Any], dict[str, Any]]] = {
        "like": lambda glob: {"type": "string", "pattern": anchored(glob)},
        "contains": lambda item: {"type": "array", "contains": {"const": item}},
        "minimum": lambda number: {"type": "integer", "minimum": number},
        "maximum": lambda number: {"type": "integer", "maximum": number},
        "maxAge": lambda age: {"if": {"type": "string"}, "then": {"atMostOld": DURATIONS[age]}, "else": False},
        "minAge": lambda age: {"if": {"type": "string"}, "then": {"atLeastOld": DURATIONS[age]}, "else": False},
    }
    return {"properties": {field: meanings[keyword](value)}, "required": [field]}


def anchored(glob: str) -> str:
    signs = {"*": r"[\s\S]*", "?": r"[\s\S]"}
    # Python's $ would let a line feed follow.
    return rf"\A{''.join(signs.get(sign, re.escape(sign)) for sign in glob)}\Z"


# Random rules and records. Few values each, so that they meet; times lie on, just before and just after every edge.


class Values(NamedTuple):
    params: dict[str, Any]
    lists: dict[str, tuple[str, ...]]


class Example(NamedTuple):
    rules: list[tuple[Any, Any, Values]]
    gateway: dict[str, Any]
    records: list[dict[str, Any]]


WORDS = [
    "",
    "a",
    "b",
    "ab",
    "a*",
    "[a]",
    "!",
    "a\n",
    "A",
    " a",
    "*",
    "d1",
    "accepted",
    "None",
    "null",
    "{x}",
    "'",
    "\x00",
    "💥",
]
EDGES = [timedelta(seconds=seconds + off) for seconds in DURATIONS.values() for off in (-1, 0, 1)]
INSTANTS = sorted({(NOW - edge).strftime("%Y-%m-%dT%H:%M:%SZ") for edge in EDGES})
INTEGERS = [-2, -1, 0, 1, 2, -(2**63), 2**63 - 1, 2**53 + 1]
TEXTS, TIMES, NUMBERS = (st.sampled_from(values) for values in (WORDS, INSTANTS, INTEGERS))
AGES = st.sampled_from([*DURATIONS])
GLOBS = st.sampled_from(["a*", "*a", "?", "[a]", "[!a]*", "a?", "*", ""]) | st.text("ab*?[]!\n", max_size=4)
HELD: dict[str, list[Any]] = {
    "text": [*WORDS, *CONNECTION_STATUSES, *CHANGES],
    "integer": INTEGERS,
    "time": INSTANTS,
    "texts": [(), ("a",), ("*", "d1"), ("accepted", "", "ab")],
}
PARAMS: dict[str, st.SearchStrategy[Any]] = {
    "text": TEXTS,
    "status": st.sampled_from(CONNECTION_STATUSES),
    "change": st.sampled_from(CHANGES),
    "integer": NUMBERS,
    "number": NUMBERS | st.sampled_from([0.5, -1.5]),
    "time": TIMES,
    "duration": AGES,
    "glob": GLOBS,
}
LISTS = st.fixed_dictionaries(
    dict.fromkeys(("one", "two"), st.lists(TEXTS | PARAMS["status"], max_size=3, unique=True).map(tuple))
)


def literals(field: Field, takes: str) -> tuple[str, st.SearchStrategy[Any]]:
    """What may be written after a condition, and the parameter that could stand there."""
    if takes in {"value", "values"}:
        name = {CONNECTION_STATUSES: "status", CHANGES: "change"}.get(field.values, field.type)
        return name, PARAMS[name] | st.none()
    return takes, PARAMS[takes]


def conditions(name: str, fields: Mapping[str, Field] = FIELDS) -> st.SearchStrategy[Any]:
    """Every keyword that the field can have, with every kind of value."""
    field = fields[name]
    choices: list[st.SearchStrategy[Any]] = []
    for word, keyword in KEYWORDS.items():
        if field.type not in keyword.types:
            continue
        param, literal = literals(field, keyword.takes)
        texts = [other for other in fields if fields[other].type == "texts"]
        same = [other for other in fields if fields[other].type == field.type]
        written: list[st.SearchStrategy[Any]] = [
            st.lists(literal, min_size=1, max_size=3) if keyword.takes == "values" else literal
        ]
        if keyword.takes == "values":
            written.append(st.sampled_from([{"list": "one"}, {"list": "two"}]))
            written += [st.builds(lambda other: {"field": other}, st.sampled_from(texts))] if texts else []
        else:
            written.append(st.just({"param": param}))
            written += (
                [st.builds(lambda other: {"field": other}, st.sampled_from(same))]
                if keyword.takes in {"value", "number"}
                else []
            )
        choices.append(st.builds(lambda word, value: {word: value}, st.just(word), st.one_of(written)))
        if word == "const":
            choices.append(literal)
        if word == "enum":
            choices.append(written[0])
    leaf = st.one_of(choices)
    return st.recursive(
        leaf,
        lambda inner: (
            st.builds(lambda term: {"not": term}, inner)
            | st.builds(lambda terms: {"anyOf": terms}, st.lists(inner, min_size=1, max_size=3))
            | st.builds(lambda one, term: {**as_object(one), "not": term}, leaf, inner)
        ),
        max_leaves=3,
    )


def as_object(matcher: Any) -> dict[str, Any]:
    if isinstance(matcher, dict):
        return matcher
    return {"enum": matcher} if isinstance(matcher, list) else {"const": matcher}


def predicates(names: list[str], fields: Mapping[str, Field] = FIELDS) -> st.SearchStrategy[Any]:
    # Not flatmap: that would build the strategy anew for every draw.
    leaf = st.one_of(
        [st.builds(lambda name, term: {name: term}, st.just(name), conditions(name, fields)) for name in names]
    )
    return st.recursive(
        st.booleans() | leaf,
        lambda inner: (
            st.builds(lambda term: {"not": term}, inner)
            | st.builds(
                lambda key, terms: {key: terms}, st.sampled_from(["allOf", "anyOf"]), st.lists(inner, min_size=1)
            )
            | st.builds(lambda one, other: {**one, **other}, leaf, leaf)
            | st.builds(lambda one, term: {**one, "not": term}, leaf, inner)
        ),
        max_leaves=5,
    )


def held(names: list[str], random: Random, fields: Mapping[str, Field] = FIELDS) -> dict[str, Any]:
    """Values for these fields, about one in six absent and one in six null."""
    return {
        name: random.choice(HELD[fields[name].type]) if random.random() < 0.8 else None
        for name in names
        if random.random() < 0.84
    }


def records(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A gateway and its connections. From a seed, as drawing each value would cost far more than judging it."""
    random = Random(seed)
    own = [name for name in FIELDS if "." not in name]
    return held(sorted(FIELDS.keys() - own), random), [held(own, random) for _ in range(30)]


def examples(fields: list[str]) -> st.SearchStrategy[Example]:
    """One or two rules, each with values of its own, and records that may lack any field."""
    some = predicates(fields)
    values = st.builds(Values, st.fixed_dictionaries(PARAMS), LISTS)
    rule = st.tuples(some.filter(lambda when: when is not False), some.filter(lambda must: must is not True), values)
    return st.builds(
        lambda rules, seed: Example(rules, *records(seed)),
        st.lists(rule, min_size=1, max_size=2),
        st.integers(0, 2**32),
    )


def rule_json(when: Any, require: Any, values: Values, each: Any = "connection") -> dict[str, Any]:
    """A rule that declares the parameters it uses."""
    case: dict[str, Any] = {"before": None} if each == "change" else {}
    case |= {"given": [{}] if isinstance(each, dict) else {}}
    text = json.dumps([when, require])
    params = {name: value for name, value in values.params.items() if f'{{"param": "{name}"}}' in text}
    return {
        "id": "r", "title": "t", "severity": "low", "each": each, "when": when, "require": require, "params": params,
        "tests": [{**case, "name": expect, "expect": expect} for expect in ("finding", "pass")],
    }  # fmt: skip


def parsed(when: Any, require: Any, values: Values, each: Any = "connection") -> Rule:
    problems: list[str] = []
    rule = parse_rule(copy.deepcopy(rule_json(when, require, values, each)), Place("r.json", problems), "r")
    if rule is None and all("could never find anything" in problem for problem in problems):
        reject()
    assert rule is not None, problems
    return rule


def hits_of_compiled(example: Example) -> list[tuple[int, int]]:
    """Which record breaks which rule, as the product says."""
    bound = [BoundRule(parsed(*rule), Bindings(*rule[2], NOW)) for rule in example.rules]
    of_gateway = {name.split(".")[1]: value for name, value in example.gateway.items()}
    unknown = {name.split(".")[1]: None for name in FIELDS if "." in name}
    gateway = Gateway(**{**unknown, **of_gateway})
    absent = dict.fromkeys(name for name in FIELDS if "." not in name)
    place = {"region": "r", "project_id": "p", "gateway_id": "g"}
    rows = [Connection(**{**absent, **record, **place, "read_in": str(n)}) for n, record in enumerate(example.records)]
    return [(int(row.read_in), rule) for row, rule in compile_rules(bound)(rows, gateway)]


def hits_of_oracle(example: Example) -> list[tuple[int, int]]:
    """The same, as `jsonschema` says."""
    chosen = [(DIALECT(desugar(when, values)), DIALECT(desugar(must, values))) for when, must, values in example.rules]
    gateway = {name: list(value) if isinstance(value, tuple) else value for name, value in example.gateway.items()}
    records = [{**gateway, **record} for record in example.records]
    return [
        (number, rule)
        for number, record in enumerate(records)
        for rule, (when, must) in enumerate(chosen)
        if when.is_valid(record) and not must.is_valid(record)
    ]


EXAMPLES = examples([*FIELDS])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(EXAMPLES)
def test_the_compiled_rules_agree_with_jsonschema(example):
    """Random rules, fused, on random records: the same connections break the same rules, in the same order."""
    assert hits_of_compiled(example) == hits_of_oracle(example)


@pytest.mark.parametrize("name", FIELDS)
def test_they_agree_on_every_field(name):
    """Rules about one field alone come near every edge of it."""

    @settings(max_examples=20, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
    @given(examples([name]))
    def agree(example: Example) -> None:
        assert hits_of_compiled(example) == hits_of_oracle(example)

    agree()


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(EXAMPLES)
def test_what_is_desugared_is_json_schema_and_the_rules_meet_the_published_one(example):
    """The oracle is given no schema that `jsonschema` would only pretend to understand."""
    published = Draft202012Validator(rule_schemas.build_rule_schema())
    for when, require, values in example.rules:
        Draft202012Validator.check_schema(desugar(when, values))
        Draft202012Validator.check_schema(desugar(require, values))
        problems = [error.message for error in published.iter_errors(rule_json(when, require, values))]
        assert problems == []


def test_the_oracle_knows_every_condition():
    """Whoever adds one says here what it means."""
    values = Values(dict.fromkeys(PARAMS, "PT1H"), {})
    for word, keyword in KEYWORDS.items():
        value: Any = ["PT1H"] if keyword.takes == "values" else "PT1H"
        assert desugar_condition("id", word, value, values)["properties"]["id"]


# The other subjects. They share the compiler's conditions, so that here is tried how each one's fields are reached.

KEYS = ("domain_id", "gateway.id", "marker_id")
OTHERS: dict[str, tuple[Any, Mapping[str, Field]]] = {
    "gateway": ("gateway", SUBJECTS["gateway"]),
    "change": ("change", SUBJECTS["change"]),
    "group": ({"group": [*KEYS]}, required_of("group", KEYS)),
}


def finds(each: str, rule: Rule, values: Values, record: dict[str, Any]) -> bool:
    """Whether a rule finds one subject, as the product says."""
    bound = BoundRule(rule, Bindings(*values, NOW))
    fields: dict[str, Any] = dict.fromkeys(SUBJECTS[each]) | record
    if each == "group":
        return bool(bound.find_broken([fields]))

    def part(owner: str, kind: Any, **more: Any) -> Any:
        return kind(**more, **{name.split(".")[-1]: fields[name] for name in fields if name.startswith(owner)})

    if each == "gateway":
        scene = Scene(part("", Gateway))
    else:
        place = {"region": "r", "project_id": "p", "gateway_id": "g", "read_in": ""}
        before, after = (part(owner, Connection, **place) for owner in ("before.", "after."))
        scene = Scene(part("gateway.", Gateway), changes=[Change(fields["change"], before, after)])
    return bool(Program([bound]).look(scene).breaches)


@pytest.mark.parametrize("each", OTHERS)
def test_they_agree_on_every_subject(each):
    """Gateways, changes and groups: whatever their fields are called, each condition reads the right one."""
    written, fields = OTHERS[each]
    # Of many fields every third: building the strategy costs more than all the judging.
    some = predicates([*fields][:: 3 if len(fields) > 10 else 1], fields)
    chosen = st.just(True) if each == "group" else some.filter(lambda when: when is not False)
    values = st.builds(Values, st.fixed_dictionaries(PARAMS), LISTS)

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(chosen, some.filter(lambda must: must is not True), values, st.integers(0, 2**32))
    def agree(when: Any, require: Any, values: Values, seed: int) -> None:
        random = Random(seed)
        rule = parsed(when, require, values, written)
        chosen, wanted = (DIALECT(desugar(predicate, values)) for predicate in (when, require))
        for _ in range(10):
            record = held([*fields], random, fields)
            plain = {name: list(value) if isinstance(value, tuple) else value for name, value in record.items()}
            expected = chosen.is_valid(plain) and not wanted.is_valid(plain)
            assert finds(each, rule, values, record) == expected

    agree()


def search(some: st.SearchStrategy[Example], budget: int = 400) -> Example:
    """The first example that the two judge differently; raises NoSuchExample."""
    quiet = settings(
        max_examples=budget,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    return find(some, lambda example: hits_of_compiled(example) != hits_of_oracle(example), settings=quiet)


def one_condition(field: str, keyword: str) -> st.SearchStrategy[Example]:
    """One rule that requires one condition, with a written value."""
    written = literals(FIELDS[field], KEYWORDS[keyword].takes)[1]
    value = st.lists(written, min_size=1, max_size=3) if keyword == "enum" else written
    return st.builds(
        lambda value, seed: Example([(True, {field: {keyword: value}}, Values({}, {}))], *records(seed)),
        value,
        st.integers(0, 2**32),
    )


@pytest.mark.parametrize(("keyword", "field"), [("maxAge", "created_at"), ("minimum", "marker_id"), ("enum", "status")])
def test_the_search_for_a_difference_finds_none_where_there_is_none(keyword, field):
    """So what the tests below find is the mutation."""
    with pytest.raises(NoSuchExample):
        search(one_condition(field, keyword), budget=50)


@pytest.mark.parametrize(
    ("keyword", "test", "field"),
    [
        ("maxAge", "{x} > {k}", "created_at"),
        ("minAge", "{x} < {k}", "updated_at"),
        ("minimum", "{x} > {k}", "marker_id"),
        ("maximum", "{x} < {k}", "marker_id"),
        ("like", "{k}({x}.lower()) is not None", "domain_id"),
        ("like", "{k}({x}.strip()) is not None", "domain_id"),
        ("enum", "({x} in {k} or {x} is None)", "domain_id"),
        ("enum", "({x} in {k} and {x} is not None)", "status"),
        ("const", "({x} == {k} or {x} is None)", "created_at"),
        ("const", "({x} or None) == {k}", "domain_id"),
    ],
)
def test_a_mutated_condition_is_caught(monkeypatch, keyword, test, field):
    """An edge moved by one, null or case taken lightly: the oracle sees it."""
    monkeypatch.setitem(KEYWORDS, keyword, replace(KEYWORDS[keyword], test=test))
    assert search(one_condition(field, keyword))


def two_rules_with_a_parameter() -> st.SearchStrategy[Example]:
    rule = (True, {"marker_id": {"const": {"param": "integer"}}})
    values = st.builds(lambda number: Values({"integer": number}, {}), NUMBERS)
    return st.builds(
        lambda one, other, seed: Example([(*rule, one), (*rule, other)], *records(seed)),
        values,
        values,
        st.integers(0, 2**32),
    )


def test_a_compiler_that_takes_or_for_and_is_caught(monkeypatch):
    """How conditions are joined is under test as well."""
    both = st.builds(
        lambda glob, text, seed: Example(
            [(True, {"domain_id": {"like": glob, "not": text}}, Values({}, {}))], *records(seed)
        ),
        GLOBS,
        TEXTS,
        st.integers(0, 2**32),
    )
    monkeypatch.setattr(compiled, "All", AnyOf)
    assert search(both)


def test_a_compiler_that_takes_brackets_for_signs_is_caught(monkeypatch):
    """[ is itself in a glob."""
    translate = fnmatch.translate
    monkeypatch.setattr(fnmatch, "translate", lambda glob: translate(glob.replace("[[]", "[")))
    assert search(one_condition("gateway.name", "like"))


def test_a_compiler_that_is_a_second_late_is_caught(monkeypatch):
    """Ages count from the run's own second."""
    constant = Bindings.constant

    def late(bindings: Bindings, test: Any) -> Any:
        return constant(replace(bindings, now=bindings.now + timedelta(seconds=1)), test)

    monkeypatch.setattr(Bindings, "constant", late)
    assert search(one_condition("status_since", "maxAge"))


def test_a_compiler_that_mixes_up_the_parameters_of_two_rules_is_caught(monkeypatch):
    """Rules that are fused keep their own values."""
    written = Bindings.written
    first: list[Bindings] = []

    def mixed(bindings: Bindings, value: Any) -> Any:
        first.append(bindings)
        return written(first[0], value)

    monkeypatch.setattr(Bindings, "written", mixed)
    assert search(two_rules_with_a_parameter())
