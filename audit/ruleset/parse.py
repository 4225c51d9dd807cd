"""Turns the JSON of one rule into a Rule, noting everything that is wrong with it; knows no files and no policy."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from audit.model import SEVERITIES, Severity
from audit.ruleset.conditions import ConditionReader, form_problem, literal_problem
from audit.ruleset.language import CASE_NOW, FALSE, SUBJECTS, TRUE, Predicate, Ref, Test, tests_of
from audit.ruleset.problems import Node, nearest, unknown
from audit.times import resolve_time

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from audit.ruleset.language import Field, Scalar

    Given = Scalar | tuple[str, ...]
    from audit.ruleset.problems import Place

KEBAB = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_OUTCOMES = ("finding", "pass")
# The keys of a rule and of a test case, each with what its absence means.
_KEYS: Mapping[str, Any] = {
    "$schema": None,
    "id": None,
    "title": "",
    "severity": "low",
    "description": "",
    "remediation": "",
    "controls": {},
    "tags": [],
    "params": {},
    "each": "connection",
    "when": True,
    "require": True,
    "tests": [],
}
_REQUIRED = ("id", "title", "severity", "require", "tests")
_CASE_KEYS: Mapping[str, Any] = {"name": "", "given": {}, "expect": "pass", "params": {}, "lists": {}}
_CASE_REQUIRED = ("name", "given", "expect")


@dataclass(frozen=True)
class Case:
    """A test inside a rule: a subject of which only the fields that matter are given, and what must come of it.

    Its times are instants around CASE_NOW.
    """

    name: str
    given: Mapping[str, Given]
    expect: Literal["finding", "pass"]
    params: Mapping[str, Scalar]
    lists: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Rule:
    """A rule as written. `params` are its own defaults; `sha256` is that of its file's bytes."""

    id: str
    title: str
    severity: Severity
    description: str
    remediation: str
    controls: Mapping[str, list[str]]
    params: Mapping[str, Scalar]
    each: str
    when: Predicate
    require: Predicate
    require_json: Any
    cases: tuple[Case, ...] = ()
    sha256: str = ""

    @property
    def tests(self) -> tuple[Test, ...]:
        """All conditions, in their order."""
        return (*tests_of(self.when), *tests_of(self.require))

    @property
    def fields(self) -> frozenset[str]:
        """The fields that it reads, named as a rule about connections names them."""
        prefix = "" if self.each == "connection" else f"{self.each}."
        refs = (test.value for test in self.tests)
        others = (ref.name for ref in refs if isinstance(ref, Ref) and ref.kind == "field")
        return frozenset(prefix + name for name in (*(test.field for test in self.tests), *others))

    @property
    def lists(self) -> frozenset[str]:
        """The lists of the policy that it reads."""
        refs = (test.value for test in self.tests)
        return frozenset(ref.name for ref in refs if isinstance(ref, Ref) and ref.kind == "list")

    def check_param(self, name: str, node: Node) -> None:
        """Note a value that cannot be that of a parameter."""
        if name not in self.params:
            node.note(unknown("parameter", name, self.params))
        elif type(node.value) not in {str, int, float}:
            node.want("a text or a number")
        else:
            uses = [test for test in self.tests if test.value == Ref("param", name)]
            problems = (literal_problem(SUBJECTS[self.each][use.field], use.keyword, node.value) for use in uses)
            node.note_any(next(filter(None, problems), ""))


def parse_rule(value: object, place: Place, rule_id: str, sha256: str = "") -> Rule | None:
    """Read a rule, named `rule_id` by its file. Notes problems and returns None where there are any."""
    noted = len(place.problems)
    members = Node(value, place).members(_KEYS, _REQUIRED)
    _check_id(members["id"], rule_id)
    members["severity"].choose(SEVERITIES)
    members["tags"].texts()
    controls = {framework: list(ids.texts()) for framework, ids in members["controls"].entries().items()}
    each, params = members["each"], members["params"].entries("an object from parameter to default")
    if each.value not in tuple(SUBJECTS):
        each.note(f'this version has only rules for each "{", ".join(SUBJECTS)}"{nearest(str(each.value), SUBJECTS)}')
        return None  # the conditions would be held against the wrong fields
    if not isinstance(members["params"].value, dict):
        return None  # every parameter would be unknown
    reader, sound = ConditionReader(SUBJECTS[each.value], params), len(place.problems)
    rule = Rule(
        id=rule_id,
        title=members["title"].text(),
        severity=members["severity"].value,
        description=members["description"].text(),
        remediation=members["remediation"].text(),
        controls=controls,
        params={name: default.value for name, default in params.items()},
        each=each.value,
        when=reader.read(members["when"]),
        require=reader.read(members["require"]),
        require_json=members["require"].value,
        sha256=sha256,
    )
    lists = rule.lists if len(place.problems) == sound else None
    for name, default in params.items():
        if not KEBAB.fullmatch(name):
            default.note("a parameter's name is lower-case words with dashes")
        rule.check_param(name, default)
    cases = [_read_case(case, rule, lists) for case in members["tests"].items("an array of test cases")]
    if len(place.problems) == noted:
        _check_sense(members, rule, {case.expect for case in cases})
    return replace(rule, cases=tuple(cases)) if len(place.problems) == noted else None


def _check_id(node: Node, rule_id: str) -> None:
    if not isinstance(node.value, str) or not KEBAB.fullmatch(node.value):
        node.note('a rule id is lower-case words with dashes, such as "pending-too-long"')
    elif node.value != rule_id:
        node.note(f'the id must be the file\'s name: "{rule_id}", not "{node.value}"')


def _check_sense(members: Mapping[str, Node], rule: Rule, outcomes: set[str]) -> None:
    """Note what is well-formed in a rule and yet cannot be meant."""
    if rule.when == FALSE:
        members["when"].note("it never applies, so it could never find anything")
    if rule.require == TRUE:
        members["require"].note("it requires nothing, so it could never find anything")
    used = [test.value for test in rule.tests]
    for name in rule.params:
        if Ref("param", name) not in used:
            members["params"].at(name, None).note("this parameter is used nowhere in the rule")
    if missing := [f'"{word}"' for word in _OUTCOMES if word not in outcomes]:
        members["tests"].note(f"a rule needs at least one case of each kind; none expects {' or '.join(missing)}")


def _read_case(node: Node, rule: Rule, known_lists: Collection[str] | None) -> Case:
    """Read a test case; `known_lists` are those that the rule reads, None where a mistake hides which."""
    members = node.members(_CASE_KEYS, _CASE_REQUIRED)
    members["expect"].choose(_OUTCOMES)
    given, params, lists = (members[key].entries() for key in ("given", "params", "lists"))
    for param, value in params.items():
        rule.check_param(param, value)
    for name, values in lists.items():
        if known_lists is not None and name not in known_lists:
            values.note(unknown("list", name, known_lists))
    return Case(
        name=members["name"].text(),
        given={field: _read_given(field, value, SUBJECTS[rule.each]) for field, value in given.items()},
        expect=members["expect"].value,
        params={param: value.value for param, value in params.items()},
        lists={name: values.texts() for name, values in lists.items()},
    )


def _read_given(name: str, node: Node, fields: Mapping[str, Field]) -> Given:
    """Read a field of a test case: whatever a reading could hold, so a status may be one yet unknown."""
    value: Scalar = node.value
    if name not in fields:
        node.note(unknown("field", name, fields))
    elif fields[name].type == "time" and isinstance(value, str):
        instant = resolve_time(value, CASE_NOW)
        if instant is None:
            node.note(f'"{value}" is neither a time such as "2026-11-22T08:15:00Z" nor relative such as "-PT25H"')
        return instant
    elif fields[name].type == "texts" and value is not None:
        return node.texts()
    elif value is not None:
        node.note_any(form_problem(fields[name].type, value))
    return value
