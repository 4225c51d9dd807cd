"""Turns the JSON of one rule into a Rule, noting everything that is wrong with it; knows no files and no policy."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec.structs import replace

from audit.model import SEVERITIES, Severity, SubjectKind
from audit.ruleset.conditions import ConditionReader, form_problem, literal_problem
from audit.ruleset.language import (
    CASE_NOW,
    GROUP_KEYS,
    SUBJECTS,
    Predicate,
    Ref,
    Test,
    chosen_by,
    constant_of,
    required_of,
    tests_of,
)
from audit.ruleset.problems import Node, nearest, unknown
from audit.times import resolve_time

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from audit.ruleset.language import Field, RefKind, Scalar

    Given = Mapping[str, Scalar | tuple[str, ...]]
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
_BEFORE: Mapping[str, Any] = {"before": {}}
# Findings that no rule file makes have this rule's id.
WAIVER_EXPIRED = "waiver-expired"


class Case(msgspec.Struct, frozen=True):
    """A test inside a rule: a subject of which only the fields that matter are given, and what must come of it.

    `given` is one subject, of a rule about groups the connections that make them, of a rule about changes what the
    connection is now, if it is, after it was `before`. Times are instants around CASE_NOW.
    """

    name: str
    before: Given | None
    given: tuple[Given, ...]
    expect: Literal["finding", "pass"]
    params: Mapping[str, Scalar]
    lists: Mapping[str, tuple[str, ...]]


class Rule(msgspec.Struct, frozen=True):
    """A rule as written.

    `params` are its own defaults, `keys` the fields that make groups where `each` is "group"; `sha256` is that of its
    file's bytes.
    """

    id: str
    title: str
    severity: Severity
    description: str
    remediation: str
    controls: Mapping[str, list[str]]
    params: Mapping[str, Scalar]
    each: SubjectKind
    keys: tuple[str, ...]
    when: Predicate
    require: Predicate
    require_json: Any
    tags: tuple[str, ...] = ()
    cases: tuple[Case, ...] = ()
    sha256: str = ""

    @property
    def tests(self) -> tuple[Test, ...]:
        """All conditions, in their order."""
        return (*tests_of(self.when), *tests_of(self.require))

    @property
    def fields(self) -> frozenset[str]:
        """The fields that it reads, by their full names."""
        return self.full_names({*fields_in(self.require), *self.keys}) | self.when_fields

    @property
    def when_fields(self) -> frozenset[str]:
        """Those of the fields that `when` reads."""
        chosen = fields_in(self.when)
        return self.full_names(chosen) if self.each == "gateway" else chosen

    def full_names(self, names: Iterable[str]) -> frozenset[str]:
        """Name fields of its subject as a rule about connections names them; counters are of the `group`."""
        owner = {"gateway": "gateway.", "group": "group."}.get(self.each, "")
        return frozenset(name if name in self.keys else owner + name for name in names)

    @property
    def lists(self) -> frozenset[str]:
        """The lists of the policy that it reads."""
        return lists_in(self.when) | lists_in(self.require)

    @property
    def spans_gateways(self) -> bool:
        """Whether it is about groups that may have connections of several gateways."""
        return self.each == "group" and "gateway.id" not in self.keys

    def check_param(self, name: str, node: Node) -> None:
        """Note a value that cannot be that of a parameter."""
        if name not in self.params:
            node.note(unknown("parameter", name, self.params))
        elif type(node.value) not in {str, int, float}:
            node.want("a text or a number")
        else:
            fields = {**chosen_by(self.each), **required_of(self.each, self.keys)}
            uses = [test for test in self.tests if test.value == Ref("param", name)]
            problems = (literal_problem(fields[use.field], use.keyword, node.value) for use in uses)
            node.note_any(next(filter(None, problems), ""))


def fields_in(predicate: Predicate) -> frozenset[str]:
    """Name the fields that a predicate reads."""
    return _named_in(predicate, "field") | {test.field for test in tests_of(predicate)}


def lists_in(predicate: Predicate) -> frozenset[str]:
    """Name the lists of the policy that a predicate reads."""
    return _named_in(predicate, "list")


def _named_in(predicate: Predicate, kind: RefKind) -> frozenset[str]:
    values = (test.value for test in tests_of(predicate))
    return frozenset(value.name for value in values if isinstance(value, Ref) and value.kind == kind)


def parse_rule(value: object, place: Place, rule_id: str, sha256: str = "") -> Rule | None:
    """Read a rule, named `rule_id` by its file. Notes problems and returns None where there are any."""
    noted = len(place.problems)
    members = Node(value, place).members(_KEYS, _REQUIRED)
    _check_id(members["id"], rule_id)
    members["severity"].choose(SEVERITIES)
    controls = {framework: list(ids.texts()) for framework, ids in members["controls"].entries().items()}
    tags = members["tags"].texts()
    params = members["params"].entries("an object from parameter to default")
    each, keys = _read_each(members["each"])
    if not each or not isinstance(members["params"].value, dict):
        return None  # the conditions would be held against the wrong fields or parameters
    sound = len(place.problems)
    rule = Rule(
        id=rule_id,
        title=members["title"].text(),
        severity=members["severity"].value,
        description=members["description"].text(),
        remediation=members["remediation"].text(),
        controls=controls,
        params={name: default.value for name, default in params.items()},
        each=each,
        keys=keys,
        when=ConditionReader(chosen_by(each), params).read(members["when"]),
        require=ConditionReader(required_of(each, keys), params).read(members["require"]),
        require_json=members["require"].value,
        tags=tags,
        sha256=sha256,
    )
    lists = rule.lists if len(place.problems) == sound else None
    for name, default in params.items():
        if not KEBAB.fullmatch(name):
            default.note("a parameter's name is lower-case words with dashes")
        rule.check_param(name, default)
    noted_lists: set[str] = set()
    cases = [_read_case(case, rule, lists, noted_lists) for case in members["tests"].items("an array of test cases")]
    if len(place.problems) == noted:
        _check_sense(members, rule, {case.expect for case in cases})
    return replace(rule, cases=tuple(cases)) if len(place.problems) == noted else None


def _read_each(node: Node) -> tuple[SubjectKind | None, tuple[str, ...]]:
    """Read what a rule is about, and by which fields groups are made; None, and a note, where that cannot be told."""
    words = tuple(word for word in SUBJECTS if word != "group")
    if isinstance(node.value, dict):
        noted = len(node.place.problems)
        keys = node.members({"group": []}, ("group",))["group"]
        items = keys.items("an array of fields, with at least one,")
        for item in items:
            if isinstance(item.value, str) and item.value not in GROUP_KEYS:
                known = f'"{item.value}" cannot make groups; known: {", ".join(GROUP_KEYS)}'
                is_field = item.value in SUBJECTS["connection"]
                item.note(known if is_field else unknown("field", item.value, GROUP_KEYS))
        if items:
            keys.texts()
        sound = items and len(node.place.problems) == noted
        return ("group", tuple(sorted(keys.value))) if sound else (None, ())
    if node.value not in words:
        known = f'{", ".join(map(json.dumps, words))} or {{"group": [FIELD, ...]}}'
        meant = '; did you mean {"group": [FIELD, ...]}?' if node.value == "group" else nearest(str(node.value), words)
        node.note(f"a rule is for each {known}, not {json.dumps(node.value, ensure_ascii=False)}{meant}")
        return None, ()
    return node.value, ()


def _check_id(node: Node, rule_id: str) -> None:
    if not isinstance(node.value, str) or not KEBAB.fullmatch(node.value):
        node.note('a rule id is lower-case words with dashes, such as "pending-too-long"')
    elif node.value == WAIVER_EXPIRED:
        node.note("findings about expired waivers have this id; choose another")
    elif node.value != rule_id:
        node.note(f'the id must be the file\'s name: "{rule_id}", not "{node.value}"')


def _check_sense(members: Mapping[str, Node], rule: Rule, outcomes: set[str]) -> None:
    """Note what is well-formed in a rule and yet cannot be meant."""
    if constant_of(rule.when) is False:
        members["when"].note("it never applies, so it could never find anything")
    if constant_of(rule.require) is True:
        members["require"].note("it requires nothing, so it could never find anything")
    used = [test.value for test in rule.tests]
    for name in rule.params:
        if Ref("param", name) not in used:
            members["params"].at(name, None).note("this parameter is used nowhere in the rule")
    if missing := [f'"{word}"' for word in _OUTCOMES if word not in outcomes]:
        members["tests"].note(f"a rule needs at least one case of each kind; none expects {' or '.join(missing)}")


def _read_case(node: Node, rule: Rule, known_lists: Collection[str] | None, noted: set[str]) -> Case:
    """Read a test case; `known_lists` are those that the rule reads, None where a mistake hides which.

    `noted` are unknown ones that were noted already: the mistake is most likely in the rule, once.
    """
    is_change = rule.each == "change"
    extra = _BEFORE if is_change else {}
    members = node.members({**_CASE_KEYS, **extra}, (*_CASE_REQUIRED, *extra))
    members["expect"].choose(_OUTCOMES)
    params, lists = (members[key].entries() for key in ("params", "lists"))
    subjects = members["given"].items("an array of connections") if rule.each == "group" else [members["given"]]
    given = [_read_given(subject, rule) for subject in subjects]
    before = _read_given(members["before"], rule) if is_change else None
    if is_change and members["before"].value is None and members["given"].value is None:
        node.note('one of "before" and "given" must be a connection')
    for param, value in params.items():
        rule.check_param(param, value)
    for name, values in lists.items():
        if known_lists is not None and name not in known_lists and name not in noted:
            noted.add(name)
            values.note(unknown("list", name, known_lists))
    return Case(
        name=members["name"].text(),
        before=before,
        given=tuple(fields for fields in given if fields is not None),
        expect=members["expect"].value,
        params={param: value.value for param, value in params.items()},
        lists={name: values.texts() for name, values in lists.items()},
    )


def _read_given(node: Node, rule: Rule) -> Given | None:
    """Read a subject of a test case, or the connection of a change, which may be null."""
    if rule.each == "change" and node.value is None:
        return None
    fields = SUBJECTS["gateway" if rule.each == "gateway" else "connection"]
    return {name: _read_field(name, value, fields) for name, value in node.entries().items()}


def _read_field(name: str, node: Node, fields: Mapping[str, Field]) -> Scalar | tuple[str, ...]:
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
