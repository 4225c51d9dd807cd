"""Turns the JSON of one rule into a Rule, noting everything that is wrong with it; knows no files and no policy."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from audit.model import SEVERITIES, Severity
from audit.ruleset.language import (
    AGES,
    FALSE,
    KEYWORDS,
    LONGEST_GLOB,
    SUBJECTS,
    TRUE,
    All,
    AnyOf,
    Field,
    Not,
    Predicate,
    Ref,
    Scalar,
    Test,
    tests_of,
)
from audit.ruleset.problems import kind_of, nearest
from audit.times import canonical_time, parse_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from audit.ruleset.problems import Place

KEBAB = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_KEYS = (
    "$schema", "id", "title", "severity", "description", "remediation", "controls", "tags", "params", "each", "when",
    "require", "tests",
)  # fmt: skip
_REQUIRED = ("id", "title", "severity", "require", "tests")
_CASE_KEYS = ("name", "given", "expect", "params", "lists")


@dataclass(frozen=True)
class Case:
    """A test inside a rule: a subject of which only the fields that matter are given, and what must come of it."""

    name: str
    given: Mapping[str, Scalar]
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
    cases: tuple[Case, ...]
    sha256: str = ""
    lists: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        refs = (test.value for test in (*tests_of(self.when), *tests_of(self.require)))
        object.__setattr__(
            self, "lists", frozenset(ref.name for ref in refs if isinstance(ref, Ref) and ref.kind == "list")
        )

    def uses_of(self, param: str) -> tuple[Test, ...]:
        """List the conditions in which a parameter stands."""
        ref = Ref("param", param)
        return tuple(test for test in (*tests_of(self.when), *tests_of(self.require)) if test.value == ref)


def parse_rule(value: object, place: Place, rule_id: str, sha256: str = "") -> Rule | None:
    """Read a rule; `rule_id` is the name that its file gives it. Notes problems and returns None where there are any."""
    noted = len(place.problems)
    if not isinstance(value, dict):
        place.note(f"a rule is an object, not {kind_of(value)}")
        return None
    place.check_keys(value, _KEYS, "key", _REQUIRED)
    if "id" in value:
        _check_id(value["id"], place.at("id"), rule_id)
    each = value.get("each", "connection")
    if not isinstance(each, str) or each not in SUBJECTS:
        tail = nearest(each, SUBJECTS) if isinstance(each, str) else ""
        place.at("each").note(f"this version has rules for each {', '.join(SUBJECTS)} only{tail}")
        each = "connection"
    params = _parse_params(value.get("params", {}), place.at("params"))
    reader = _PredicateReader(SUBJECTS[each], params)
    rule = Rule(
        id=rule_id,
        title=_text(value, "title", place),
        severity=_severity(value.get("severity", "low"), place.at("severity")),
        description=_text(value, "description", place),
        remediation=_text(value, "remediation", place),
        controls=_controls(value.get("controls", {}), place.at("controls")),
        params=params,
        each=each,
        when=reader.read(value.get("when", True), place.at("when")),
        require=reader.read(value.get("require", True), place.at("require")),
        require_json=value.get("require"),
        cases=_parse_cases(value.get("tests", []), place.at("tests"), SUBJECTS[each]) if "tests" in value else (),
        sha256=sha256,
    )
    _texts(value.get("tags", []), place.at("tags"))
    if "require" in value and rule.require == TRUE and len(place.problems) == noted:
        place.at("require").note("it requires nothing, so it could never find anything")
    for name, default in params.items():
        check_param(rule, name, default, place.at("params", name))
        if not rule.uses_of(name) and len(place.problems) == noted:
            place.at("params", name).note("this parameter is used nowhere in the rule")
    _check_case_values(rule, place)
    return rule if len(place.problems) == noted else None


def check_param(rule: Rule, name: str, value: Scalar, place: Place) -> None:
    """Note a parameter's value that does not fit the conditions in which it stands."""
    for test in rule.uses_of(name):
        before = len(place.problems)
        check_literal(SUBJECTS[rule.each][test.field], test.keyword, value, place)
        if len(place.problems) > before:
            return


def check_literal(field: Field, keyword: str, value: object, place: Place) -> None:
    """Note a written value that a field of this type can never meet under this condition."""
    if keyword in AGES:
        _check_duration(value, place)
    elif keyword in {"minimum", "maximum"}:
        if type(value) not in {int, float}:
            place.note(f"a number is wanted, not {kind_of(value)}")
    elif keyword == "like":
        _check_glob(value, place)
    elif value is not None:
        _check_equal(field, value, place)


def _check_duration(value: object, place: Place) -> None:
    if not isinstance(value, str):
        place.note(f'a duration such as "PT24H" is wanted, not {kind_of(value)}')
        return
    try:
        parse_duration(value)
    except ValueError as error:
        place.note(str(error))


def _check_glob(value: object, place: Place) -> None:
    if not isinstance(value, str):
        place.note(f"a glob is a text, not {kind_of(value)}")
    elif len(value) > LONGEST_GLOB:
        place.note(f"the glob has {len(value)} characters; at most {LONGEST_GLOB} are allowed")


def _check_equal(field: Field, value: object, place: Place) -> None:
    if field.type == "integer":
        if type(value) is not int:
            place.note(f"this field holds whole numbers, never {kind_of(value)}")
    elif not isinstance(value, str):
        place.note(f"this field holds texts, never {kind_of(value)}")
    elif field.type == "time" and canonical_time(value) != value:
        place.note(f'"{value}" is no time such as "2026-11-22T08:15:00Z"')
    elif field.values and value not in field.values:
        place.note(f'"{value}" can never occur here; one of {", ".join(field.values)}{nearest(value, field.values)}')


@dataclass(frozen=True)
class _PredicateReader:
    """Reads predicates over one subject's fields with one rule's parameters."""

    fields: Mapping[str, Field]
    params: Mapping[str, Scalar]

    def read(self, value: object, place: Place) -> Predicate:
        if isinstance(value, bool):
            return TRUE if value else FALSE
        if not isinstance(value, dict):
            place.note(f"a condition is true, false or an object from field to condition, not {kind_of(value)}")
            return TRUE
        if not value:
            place.note("an empty object says nothing; write true or leave it out")
        return _all([self._member(key, inner, place.at(key)) for key, inner in value.items()])

    def _member(self, key: str, value: object, place: Place) -> Predicate:
        if key == "not":
            return Not(self.read(value, place))
        if key in {"allOf", "anyOf"}:
            if not isinstance(value, list) or not value:
                place.note("an array of conditions is wanted, with at least one")
                return TRUE
            terms = tuple(self.read(inner, place.at(number)) for number, inner in enumerate(value))
            return All(terms) if key == "allOf" else AnyOf(terms)
        if key not in self.fields:
            place.note(f'unknown field "{key}"{nearest(key, self.fields) or "; known: " + ", ".join(self.fields)}')
            return TRUE
        return self._matcher(key, value, place)

    def _matcher(self, name: str, value: object, place: Place) -> Predicate:
        """Read the condition on one field."""
        if isinstance(value, list):
            return self._test(name, "enum", value, place)
        if not isinstance(value, dict):
            return self._test(name, "const", value, place)
        if not value:
            place.note("an empty condition says nothing")
        terms: list[Predicate] = []
        for keyword, wanted in value.items():
            at = place.at(keyword)
            if keyword == "not":
                terms.append(Not(self._matcher(name, wanted, at)))
            elif keyword == "anyOf":
                terms.append(self._alternatives(name, wanted, at))
            elif keyword in KEYWORDS:
                terms.append(self._test(name, keyword, wanted, at))
            elif keyword in {"param", "list", "field"}:
                place.note(f'say what about {{"{keyword}": ...}}: for example {{"const": {{"{keyword}": ...}}}}')
            else:
                known = [*KEYWORDS, "not", "anyOf"]
                tail = nearest(keyword, known) or f"; known: {', '.join(known)}"
                place.note(f'unknown condition "{keyword}"{tail}')
        return _all(terms)

    def _alternatives(self, name: str, value: object, place: Place) -> Predicate:
        if not isinstance(value, list) or not value:
            place.note("an array of conditions is wanted, with at least one")
            return TRUE
        return AnyOf(tuple(self._matcher(name, inner, place.at(number)) for number, inner in enumerate(value)))

    def _test(self, name: str, keyword: str, value: object, place: Place) -> Predicate:
        field = self.fields[name]
        fitting = KEYWORDS[keyword].types
        if field.type not in fitting:
            place.note(f'"{keyword}" is for a field of type {" or ".join(fitting)}; "{name}" is of type {field.type}')
            return TRUE
        if isinstance(value, dict):
            ref = self._ref(field, keyword, value, place)
            return Test(name, keyword, ref) if ref else TRUE
        if keyword != "enum":
            check_literal(field, keyword, value, place)
            return Test(name, keyword, value)  # type: ignore[arg-type]  # noted above where it is not
        if not isinstance(value, list) or not value:
            place.note('an array of values or {"list": NAME} is wanted')
            return TRUE
        for number, inner in enumerate(value):
            check_literal(field, keyword, inner, place.at(number))
        return Test(name, keyword, tuple(value))

    def _ref(self, field: Field, keyword: str, value: dict[str, Any], place: Place) -> Ref | None:
        if len(value) != 1 or not isinstance(next(iter(value.values())), str):
            place.note('a value is written out or is {"param": NAME}, {"list": NAME} or {"field": NAME}')
            return None
        kind, name = next(iter(value.items()))
        if kind not in {"param", "list", "field"}:
            place.note(f'unknown kind of value "{kind}"{nearest(kind, ("param", "list", "field"))}')
        elif (kind == "list") != (keyword == "enum"):
            place.note(f'"{keyword}" takes {"a list" if keyword == "enum" else "no list"}, not {{"{kind}": ...}}')
        elif kind == "param" and name not in self.params:
            place.at(kind).note(f'unknown parameter "{name}"{nearest(name, self.params) or "; declare it in params"}')
        elif kind == "field" and (keyword in AGES or keyword == "like"):
            place.note(f'"{keyword}" cannot be taken from another field')
        elif kind == "field" and name not in self.fields:
            place.at(kind).note(f'unknown field "{name}"{nearest(name, self.fields)}')
        elif kind == "field" and self.fields[name].type != field.type:
            place.at(kind).note(f'"{name}" is of type {self.fields[name].type}, this field of type {field.type}')
        else:
            return Ref(kind, name)  # type: ignore[arg-type]
        return None


def _all(terms: list[Predicate]) -> Predicate:
    return terms[0] if len(terms) == 1 else All(tuple(terms))


def _check_id(value: object, place: Place, rule_id: str) -> None:
    if not isinstance(value, str) or not KEBAB.fullmatch(value):
        place.note('a rule id is lower-case words with dashes, such as "pending-too-long"')
    elif value != rule_id:
        place.note(f'the id must be the file\'s name: "{rule_id}", not "{value}"')


def _text(value: dict[str, Any], key: str, place: Place) -> str:
    text = value.get(key, "")
    if not isinstance(text, str) or (key in value and not text.strip()):
        place.at(key).note(f"a text is wanted, not {'an empty one' if isinstance(text, str) else kind_of(text)}")
        return ""
    return text


def _severity(value: object, place: Place) -> Severity:
    if value not in SEVERITIES:
        tail = nearest(value, SEVERITIES) if isinstance(value, str) else ""
        place.note(f"a severity is one of {', '.join(SEVERITIES)}{tail}")
        return "low"
    return value  # type: ignore[return-value]


def _texts(value: object, place: Place) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) and text for text in value):
        place.note("an array of texts is wanted")
        return []
    return value


def _controls(value: object, place: Place) -> dict[str, list[str]]:
    if not isinstance(value, dict):
        place.note(f"an object from framework to control ids is wanted, not {kind_of(value)}")
        return {}
    return {framework: _texts(ids, place.at(framework)) for framework, ids in value.items()}


def _parse_params(value: object, place: Place) -> dict[str, Scalar]:
    if not isinstance(value, dict):
        place.note(f"an object from parameter to default is wanted, not {kind_of(value)}")
        return {}
    for name, default in value.items():
        if not KEBAB.fullmatch(name):
            place.at(name).note("a parameter's name is lower-case words with dashes")
        if isinstance(default, (dict, list)):
            place.at(name).note(f"a parameter is a text or a number, not {kind_of(default)}")
    return {name: default for name, default in value.items() if not isinstance(default, (dict, list))}


def _parse_cases(value: object, place: Place, fields: Mapping[str, Field]) -> tuple[Case, ...]:
    if not isinstance(value, list):
        place.note(f"an array of test cases is wanted, not {kind_of(value)}")
        return ()
    noted = len(place.problems)
    cases = [_parse_case(inner, place.at(number), fields) for number, inner in enumerate(value)]
    expected = {case.expect for case in cases if case}
    if missing := [f'"{word}"' for word in ("finding", "pass") if word not in expected]:
        if len(place.problems) == noted:
            place.note(f"a rule needs at least one case of each kind; none expects {' or '.join(missing)}")
    return tuple(case for case in cases if case)


def _parse_case(value: object, place: Place, fields: Mapping[str, Field]) -> Case | None:
    if not isinstance(value, dict):
        place.note(f"a case is an object, not {kind_of(value)}")
        return None
    place.check_keys(value, _CASE_KEYS, "key", ("name", "given", "expect"))
    if not isinstance(value.get("name", ""), str):
        place.at("name").note("a name is a text")
    expect = value.get("expect")
    if "expect" in value and expect not in {"finding", "pass"}:
        place.at("expect").note('"finding" or "pass" is wanted')
    given = value.get("given", {})
    if not isinstance(given, dict):
        place.at("given").note(f"an object from field to value is wanted, not {kind_of(given)}")
        given = {}
    for name, inner in given.items():
        _check_given(name, inner, place.at("given", name), fields)
    lists = value.get("lists", {})
    if not isinstance(lists, dict):
        place.at("lists").note(f"an object from list to values is wanted, not {kind_of(lists)}")
        lists = {}
    return Case(
        name=str(value.get("name", "")),
        given=given,
        expect=expect,  # type: ignore[arg-type]  # noted above where it is neither
        params=_parse_params(value.get("params", {}), place.at("params")),
        lists={name: tuple(_texts(values, place.at("lists", name))) for name, values in lists.items()},
    )


def _check_given(name: str, value: object, place: Place, fields: Mapping[str, Field]) -> None:
    """Note a field or value of a test case that could not come from a reading; a status may be one yet unknown."""
    if name not in fields:
        place.note(f'unknown field "{name}"{nearest(name, fields) or "; known: " + ", ".join(fields)}')
        return
    field = fields[name]
    if value is None:
        return
    if field.type == "time":
        text = value.lstrip("+-") if isinstance(value, str) else ""
        try:
            parse_duration(text)
        except ValueError:
            if not isinstance(value, str) or canonical_time(value) != value:
                place.note('a time is wanted: relative to the run such as "-PT25H", or "2026-11-22T08:15:00Z"')
    elif type(value) is not (int if field.type == "integer" else str):
        place.note(
            f"this field holds {'whole numbers' if field.type == 'integer' else 'texts'}, never {kind_of(value)}"
        )


def _check_case_values(rule: Rule, place: Place) -> None:
    for number, case in enumerate(rule.cases):
        at = place.at("tests", number)
        for name, value in case.params.items():
            if name not in rule.params:
                at.at("params", name).note(f'unknown parameter "{name}"{nearest(name, rule.params)}')
            else:
                check_param(rule, name, value, at.at("params", name))
        for name in case.lists:
            if name not in rule.lists:
                at.at("lists", name).note(f'this rule reads no list "{name}"{nearest(name, rule.lists)}')
