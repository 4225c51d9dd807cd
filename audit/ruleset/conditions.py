"""Reads the conditions of a rule (`when`, `require`): JSON in, a Predicate out, everything wrong noted."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003  (a field)
from typing import TYPE_CHECKING, Any

import msgspec

from audit.ruleset.language import (
    FALSE,
    KEYWORDS,
    LONGEST_GLOB,
    REFS,
    SUBJECTS,
    TRUE,
    All,
    AnyOf,
    Field,
    Not,
    Ref,
    Test,
)
from audit.ruleset.problems import kind_of, none_of, unknown
from audit.times import canonical_time, parse_distance

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from audit.ruleset.language import Predicate
    from audit.ruleset.problems import Node

_KINDS = ("param", "list", "field")
_FIRST_BEYOND_64_BITS = 2**63
# What a written value is called and which types of JSON it may have, by the type of the field or what a keyword takes.
_FORMS: Mapping[str, tuple[str, tuple[type, ...]]] = {
    "text": ("a text", (str,)),
    "integer": ("a whole number", (int,)),
    "time": ('a time such as "2026-11-22T08:15:00Z"', (str,)),
    "number": ("a number", (int, float)),
    "duration": ('a duration such as "PT24H"', (str,)),
    "glob": ("a glob (a text)", (str,)),
}


def literal_problem(field: Field, keyword: str, value: Any) -> str:  # noqa: ANN401  (any JSON)
    """Say why a field can never meet a condition with this written value; "" where it can."""
    takes = KEYWORDS[keyword].takes
    form = takes if takes in _FORMS else field.type
    if value is None and form == field.type:
        return ""
    return form_problem(form, value) or (
        none_of(value, field.values) if field.values and form == "text" and value not in field.values else ""
    )


def form_problem(form: str, value: Any) -> str:  # noqa: ANN401  (any JSON)
    """Say why a value is not of this form (a field's type, or what a keyword takes); "" where it is."""
    wanted, types = _FORMS[form]
    problem = ""
    if type(value) not in types:
        problem = f"{wanted} is wanted, not {kind_of(value)}"
    elif form == "time" and canonical_time(value) != value:
        problem = f'{wanted} is wanted, not "{value}"'
    elif form == "glob" and len(value) > LONGEST_GLOB:
        problem = f"the glob has {len(value)} characters; at most {LONGEST_GLOB} are allowed"
    elif form in {"integer", "number"} and not -_FIRST_BEYOND_64_BITS <= value < _FIRST_BEYOND_64_BITS:
        problem = "the number needs more than 64 bits"
    elif form == "duration":
        try:
            parse_distance(value)
        except ValueError as error:
            problem = str(error)
    return problem


class ConditionReader(msgspec.Struct, frozen=True):
    """Reads conditions on the fields of one subject, with the parameters that one rule has; None in a policy."""

    fields: Mapping[str, Field]
    params: Collection[str] | None

    def read(self, node: Node) -> Predicate:
        if isinstance(node.value, bool):
            return TRUE if node.value else FALSE
        if node.value == {}:
            node.note("an empty object says nothing; true means all")
        members = node.entries("true, false or an object from field to condition")
        return _all([self._member(key, member) for key, member in members.items()])

    def _member(self, key: str, node: Node) -> Predicate:
        if key == "not":
            return Not(self.read(node))
        if key in {"allOf", "anyOf"}:
            terms = tuple(map(self.read, node.items("an array of conditions, with at least one,")))
            return _all(terms) if key == "allOf" else AnyOf(terms)
        if key in self.fields:
            return self._matcher(key, node)
        words = (*self.fields, "not", "allOf", "anyOf")
        alike = any(name.rpartition(".")[2] == key.rpartition(".")[2] for name in self.fields)
        if not alike and any(key in fields for fields in SUBJECTS.values()):
            node.note(f'the field "{key}" cannot be used here; known: {", ".join(words)}')
        else:
            node.note(unknown("field", key, words))
        return TRUE

    def _matcher(self, name: str, node: Node) -> Predicate:
        """Read what stands after a field."""
        if isinstance(node.value, list):
            return self._test(name, "enum", node)
        if not isinstance(node.value, dict):
            return self._test(name, "const", node)
        if not node.value:
            node.note("an empty condition says nothing")
        return _all([self._condition(name, keyword, member) for keyword, member in node.entries().items()])

    def _condition(self, name: str, keyword: str, node: Node) -> Predicate:
        if keyword == "not":
            return Not(self._matcher(name, node))
        if keyword == "anyOf":
            alternatives = node.items("an array of conditions, with at least one,")
            return AnyOf(tuple(self._matcher(name, alternative) for alternative in alternatives))
        if keyword in KEYWORDS:
            return self._test(name, keyword, node)
        if keyword in _KINDS:
            example = f'{{"{"enum" if keyword == "list" else "const"}": {{"{keyword}": ...}}}}'
            node.note(f'"{keyword}" names a value; say what the field has to do with it, for example {example}')
        else:
            suiting = (word for word, known in KEYWORDS.items() if self.fields[name].type in known.types)
            node.note(unknown("condition", keyword, (*suiting, "not", "anyOf")))
        return TRUE

    def _test(self, name: str, keyword: str, node: Node) -> Predicate:
        field, word = self.fields[name], KEYWORDS[keyword]
        value: Any = node.value
        if field.type not in word.types:
            node.note(f'"{keyword}" is for fields of type {" or ".join(word.types)}; "{name}" is of type {field.type}')
        elif isinstance(node.value, dict):
            value = self._ref(field, keyword, node)
        elif word.takes == "values":
            items = node.items('an array of values or {"list": NAME}')
            value = tuple(item.value for item in items)
            for item in items:
                item.note_any(literal_problem(field, keyword, item.value))
        else:
            node.note_any(literal_problem(field, keyword, node.value))
        return Test(name, keyword, value)

    def _ref(self, field: Field, keyword: str, node: Node) -> Ref | None:
        """Read a value that is named; None, and a note, where there is no such value or it does not fit."""
        takes = KEYWORDS[keyword].takes
        allowed, wanted = REFS[takes], "texts" if takes == "values" else field.type
        kind, name = next(iter(node.value.items()), ("", ""))
        at = node.at(kind, name)
        if len(node.value) != 1 or not isinstance(name, str):
            node.note('a value is written out or is {"param": NAME}, {"list": NAME} or {"field": NAME}')
        elif kind not in _KINDS:
            at.note(unknown("kind of value", kind, _KINDS))
        elif kind not in allowed:
            node.note(f'"{keyword}" can take its value from a {" or ".join(allowed)}, not from a {kind}')
        elif kind == "param" and self.params is None:
            at.note("a policy has no parameters; write the value or name a list")
        elif kind == "param" and name not in (self.params or ()):
            at.note(unknown("parameter", name, self.params or ()))
        elif kind == "field" and name not in self.fields:
            at.note(unknown("field", name, self.fields))
        elif kind == "field" and self.fields[name].type != wanted:
            at.note(f'"{name}" is of type {self.fields[name].type}; a field of type {wanted} is wanted')
        else:
            return Ref(kind, name)
        return None


def _all(terms: Sequence[Predicate]) -> Predicate:
    return terms[0] if len(terms) == 1 else All(tuple(terms))
