"""The published JSON Schemas of a rule and of the policy, made from the tables of the language, for editors.

They refuse nothing that the loader takes. The loader refuses more: names that do not exist, rules without sense, days
that no calendar has. `python -m tests.rule_schemas` writes both files into `audit/ruleset`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping  # noqa: TC003  (a field)
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
from msgspec.structs import replace

from audit import times
from audit.model import SEVERITIES
from audit.ruleset import conditions, parse, policy
from audit.ruleset.language import GROUP_KEYS, KEYWORDS, LISTED, LONGEST_GLOB, REFS, SUBJECTS, Field, Keyword

Schema: TypeAlias = "dict[str, Any]"

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_DEFAULT_SUBJECT = "connection"
# The subject whose fields `when` has, and the one whose fields a test case gives, where it is not the rule's own.
_CHOSEN_AS = {"group": "connection"}
_GIVEN_AS = {"group": "connection", "change": "connection"}
_JSON_TYPES = {str: "string", int: "integer", float: "number"}


def _pattern(*alternatives: str) -> str:
    # A schema's \d may be any script's digit.
    return "|".join(f"^{alternative}$".replace(r"\d", "[0-9]") for alternative in alternatives)


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _closed(known: Mapping[str, Any], schemas: Mapping[str, Schema], required: Iterable[str] = ()) -> Schema:
    """Build an object that has none but the known keys; of one that has no schema yet, anything is taken."""
    properties = {key: schemas.get(key, {}) for key in known}
    return {"type": "object", "required": list(required), "additionalProperties": False, "properties": properties}


_DURATION, _INSTANT = times._DURATION.pattern, times._CANONICAL.pattern
_TEXT: Schema = {"type": "string", "pattern": r"\S"}
_TRIMMED: Schema = {"type": "string", "pattern": _pattern(r"\S([\s\S]*\S)?")}
_TEXTS: Schema = {"type": "array", "items": _TRIMMED, "uniqueItems": True}
_NAME: Schema = {"type": "string", "pattern": _pattern(parse.KEBAB.pattern)}
_64_BITS: Schema = {"minimum": -(2**63), "exclusiveMaximum": 2**63}


def _by_name(schema: Schema) -> Schema:
    return {"type": "object", "propertyNames": _NAME, "additionalProperties": schema}


_PARAMS = _by_name({"type": ["string", "number"]})
_LISTS = _by_name(_TEXTS)
_SEVERITY: Schema = {"enum": list(SEVERITIES)}
_NOT_FALSE: Schema = {"not": {"const": False}}
# What a written value must be beyond its type of JSON, by the type of the field or what a keyword takes.
_BEYOND_TYPE: Mapping[str, Schema] = {
    "integer": _64_BITS,
    "number": _64_BITS,
    "time": {"pattern": _pattern(_INSTANT), "examples": ["2026-11-22T08:15:00Z"]},
    "duration": {"pattern": _pattern(f"-?{_DURATION}"), "examples": ["PT24H", "P7D", "PT0S"]},
    "glob": {"maxLength": LONGEST_GLOB},
}
_GIVEN: Mapping[str, Schema] = {
    "time": {"type": ["string", "null"], "pattern": _pattern(f"[+-]?{_DURATION}", _INSTANT), "examples": ["-PT25H"]},
    "texts": {**_TEXTS, "type": ["array", "null"]},
}

_COMMENT: Schema = {"description": "a note of your own"}
_RULE_KEYS: Mapping[str, Schema] = {
    "$schema": {"description": "path or URL of this schema, for editors"},
    "id": {**_NAME, "description": "lower-case words with dashes; the file's name without .json"},
    "title": {**_TEXT, "description": "a sentence that says what must hold"},
    "severity": {**_SEVERITY, "description": "how bad it is where it does not hold"},
    "description": {**_TEXT, "description": "why it must hold"},
    "remediation": {**_TEXT, "description": "what to do about a finding"},
    "controls": {
        "type": "object",
        "additionalProperties": _TEXTS,
        "description": "controls that the rule supports: framework to control ids",
        "examples": [{"ISO 27001:2022": ["A.5.15"]}],
    },
    "tags": {**_TEXTS, "description": "words of your own"},
    "params": {**_PARAMS, "description": "values that the policy may change, with their defaults"},
    "each": {"default": _DEFAULT_SUBJECT, "description": "what the rule is about: it is held against each of them"},
    "when": {**_NOT_FALSE, "description": "chooses those that the rule is about; without it, all of them"},
    "require": {"not": {"const": True}, "description": "what must hold for them; false: they must never occur"},
    "tests": {
        "type": "array",
        "minItems": 1,
        "allOf": [
            {"contains": {"type": "object", "properties": {"expect": {"const": outcome}}, "required": ["expect"]}}
            for outcome in parse._OUTCOMES
        ],
        "description": "examples that the rule itself must pass: at least one finding and one pass",
    },
}
_CASE_KEYS: Mapping[str, Schema] = {
    "name": {**_TEXT, "description": "what is special about it"},
    "before": {"description": "the fields that matter of the connection as it was; null: there was none"},
    "expect": {"enum": list(parse._OUTCOMES), "description": "what must come of it"},
    "params": {**_PARAMS, "description": "parameters for this case only"},
    "lists": {**_LISTS, "description": "lists of the policy for this case only; without it they are empty"},
}
_GIVEN_MEANINGS = {
    "group": "the connections that make the groups, each with the fields that matter",
    "change": "the fields that matter of the connection as it is now; null: it is gone",
}
_OVERRIDE_KEYS: Mapping[str, Schema] = {
    "$comment": _COMMENT,
    "match": {
        **_ref("override-predicate"),
        **_NOT_FALSE,
        "description": "chooses the gateways, by what the list of gateways tells; true: all of them",
    },
    "params": {**_by_name(_PARAMS), "description": "parameters for these gateways, by rule and name"},
    "severity": {**_by_name(_SEVERITY), "description": "how bad a finding is on these gateways, by rule"},
    "disable": {**_TEXTS, "items": _NAME, "description": "rules that do not apply to these gateways"},
}
# It must change something; each limit is for what has its type.
_CHANGES_SOMETHING: Schema = {
    "anyOf": [
        {"required": [key], "properties": {key: {"minItems": 1, "minProperties": 1}}}
        for key in ("params", "severity", "disable")
    ]
}
_WAIVER_KEYS: Mapping[str, Schema] = {
    "id": {**_TEXT, "description": "a name of its own, which stands on the findings that it waives"},
    "rule": {**_NAME, "description": "the rule that it is an exception to"},
    "match": {
        **_ref("waiver-predicate"),
        **_NOT_FALSE,
        "description": "chooses the findings, by the fields that `require` has in that rule; true: all of them",
    },
    "reason": {**_TEXT, "description": "why it is accepted"},
    "approved_by": {**_TEXT, "description": "who accepted it"},
    "ticket": {**_TEXT, "description": "where that is on record"},
    "expires": {"type": "string", **_BEYOND_TYPE["time"], "description": "from when on it no longer works"},
}
_POLICY_KEYS: Mapping[str, Schema] = {
    "$schema": _RULE_KEYS["$schema"],
    "$comment": _COMMENT,
    "lists": {
        **_LISTS,
        "description": "lists that rules read, by name; while one is empty, rules that read it are not evaluated",
    },
    "params": {
        **_by_name(_PARAMS),
        "description": "parameters by rule and name; they replace the rule's defaults",
    },
    "overrides": {
        "type": "array",
        "items": {**_closed(policy._OVERRIDE_KEYS, _OVERRIDE_KEYS, ["match"]), **_CHANGES_SOMETHING},
        "description": "what is otherwise for some gateways; a later entry wins",
    },
    "waivers": {
        "type": "array",
        "items": _closed(policy._WAIVER_KEYS, _WAIVER_KEYS, policy._WAIVER_REQUIRED),
        "description": "accepted exceptions to rules: what they match is still found, as waived",
    },
}


def build_rule_schema() -> Schema:
    """Build the JSON Schema (2020-12) of a rule."""
    keys = {**_RULE_KEYS, "each": {**_each(), **_RULE_KEYS["each"]}}
    scopes = [_Scope(each, fields) for each, fields in SUBJECTS.items()]
    return {
        "$schema": _DRAFT,
        "title": "Rule of apig-vpcep-audit",
        "description": "For each subject, when P, require Q.",
        **_closed(parse._KEYS, keys, parse._REQUIRED),
        "allOf": [_branch(each) for each in SUBJECTS],
        "$defs": {
            **{name: schema for scope in scopes for name, schema in scope.definitions().items()},
            **{f"{each}-case": _case(each) for each in SUBJECTS},
            **{f"{each}-given": _given(fields) for each, fields in SUBJECTS.items() if each not in _GIVEN_AS},
        },
    }


def build_policy_schema() -> Schema:
    """Build the JSON Schema (2020-12) of the policy."""
    names = dict.fromkeys(name for fields in SUBJECTS.values() for name in fields)
    findings = {name: _field_of_any(name) for name in names}
    named = ("list", "field")  # a policy has no parameters of its own
    return {
        "$schema": _DRAFT,
        "title": "Policy of apig-vpcep-audit",
        "description": "The values of a site.",
        **_closed(policy._KEYS, _POLICY_KEYS),
        "$defs": _Scope("override", LISTED, named).definitions() | _Scope("waiver", findings, named).definitions(),
    }


def _each() -> Schema:
    words = [each for each in SUBJECTS if each != "group"]
    keys: Schema = {"type": "array", "minItems": 1, "uniqueItems": True, "items": {"enum": list(GROUP_KEYS)}}
    group = {**keys, "description": "the connections that have the same in these fields"}
    examples = [*words, {"group": ["gateway.id"]}]
    return {**_or_object({"type": ["string"], **_among(words)}, {"group": group}), "examples": examples}


def _branch(each: str) -> Schema:
    """Hold `when`, `require` and `tests` of a rule about this subject against its fields."""
    chosen: Schema = {"properties": {"each": {"type": "object"} if each == "group" else {"const": each}}}
    if each != _DEFAULT_SUBJECT:
        chosen["required"] = ["each"]
    when = _ref(f"{_CHOSEN_AS.get(each, each)}-predicate")
    properties = {"when": when, "require": _ref(f"{each}-predicate"), "tests": {"items": _ref(f"{each}-case")}}
    return {"if": chosen, "then": {"properties": properties}}


def _case(each: str) -> Schema:
    """Build a test case: a subject, the connections that make groups, or a connection before and after."""
    is_change = each == "change"
    extra = parse._BEFORE if is_change else {}
    given = {"type": ["object", "null"] if is_change else "object", **_ref(f"{_GIVEN_AS.get(each, each)}-given")}
    keys = {**_CASE_KEYS, "before": {**given, **_CASE_KEYS["before"]}}
    if each == "group":
        given = {"type": "array", "minItems": 1, "items": given}
    meaning = _GIVEN_MEANINGS.get(each, "the fields that matter; all others are filled with harmless values")
    keys["given"] = {**given, "description": meaning}
    case = _closed({**parse._CASE_KEYS, **extra}, keys, (*parse._CASE_REQUIRED, *extra))
    if is_change:
        case["if"] = {"properties": {"before": {"const": None}}, "required": ["before"]}
        case["then"] = {"properties": {"given": {"type": "object"}}}
    return case


def _field_of_any(name: str) -> Field:
    """Merge what subjects have under one name, as a waiver's rule may be about any of them."""
    first, *others = dict.fromkeys(fields[name] for fields in SUBJECTS.values() if name in fields)
    meaning = "; or ".join(field.meaning for field in (first, *others))
    return replace(first, meaning=meaning, values=()) if others else first


class _Scope(msgspec.Struct, frozen=True):
    """Builds the conditions on these fields; `kinds` are those of the values that can be named."""

    name: str
    fields: Mapping[str, Field]
    kinds: tuple[str, ...] = conditions._KINDS

    def definitions(self) -> dict[str, Schema]:
        matchers = {self._matcher_name(name): self._matcher(name) for name in self.fields}
        parts = {"predicate": self._predicate(), **matchers}
        return {f"{self.name}-{part}": schema for part, schema in parts.items()}

    def ref(self, part: str) -> Schema:
        return _ref(f"{self.name}-{part}")

    def _matcher_name(self, field: str) -> str:
        values = self.fields[field].values
        alike = (name for name, other in self.fields.items() if other.values == values)
        return next(alike) if values else self.fields[field].type

    def _predicate(self) -> Schema:
        several = {"type": "array", "minItems": 1, "items": self.ref("predicate")}
        fields = {
            name: {"description": field.meaning, **self.ref(self._matcher_name(name))}
            for name, field in self.fields.items()
        }
        return {
            "type": ["boolean", "object"],
            "minProperties": 1,
            "additionalProperties": False,
            "properties": {
                **fields,
                "not": {"description": "must not hold", **self.ref("predicate")},
                "allOf": {"description": "all of them must hold", **several},
                "anyOf": {"description": "at least one of them must hold", **several},
            },
        }

    def _matcher(self, name: str) -> Schema:
        """Build what may stand after a field: a value, an array of values, or conditions."""
        field, me = self.fields[name], self.ref(self._matcher_name(name))
        words = {
            word: self._condition(field, keyword) for word, keyword in KEYWORDS.items() if field.type in keyword.types
        }
        properties = {
            **words,
            "not": {"description": "holds when this condition does not", **me},
            "anyOf": {"description": "holds when at least one does", "type": "array", "minItems": 1, "items": me},
        }
        schema = _or_object(_literal(field, KEYWORDS["const"]) if "const" in words else {"type": []}, properties)
        if "enum" in words:
            schema["type"].append("array")
            schema |= {"minItems": 1, "items": _literal(field, KEYWORDS["enum"])}
        return schema

    def _condition(self, field: Field, keyword: Keyword) -> Schema:
        """Build what may stand after a keyword: a value or the name of one."""
        schema = _literal(field, keyword)
        if keyword.takes == "values":
            schema = {"type": ["array"], "minItems": 1, "items": schema}
        beside = "texts" if keyword.takes == "values" else field.type
        fields = [name for name, other in self.fields.items() if other.type == beside]
        refs: dict[str, Schema] = {
            "param": {**_NAME, "description": "a parameter of this rule"},
            "list": {**_NAME, "description": "a list of the policy"},
            "field": {"enum": fields, "description": "another field"},
        }
        kinds = [kind for kind in REFS[keyword.takes] if kind in self.kinds and (fields or kind != "field")]
        if kinds:
            schema = _or_object(schema, {kind: refs[kind] for kind in kinds}, most=1)
        return {"description": f"holds when the field {keyword.meaning}", **schema}


def _literal(field: Field, keyword: Keyword) -> Schema:
    """Build a written value that a field can be held against."""
    form = keyword.takes if keyword.takes in conditions._FORMS else field.type
    types = [_JSON_TYPES[kind] for kind in conditions._FORMS[form][1]]
    schema: Schema = {"type": types + ["null"] * (form == field.type), **_BEYOND_TYPE.get(form, {})}
    if field.values and form == "text":
        schema |= _among(field.values)
    return schema


def _among(words: Iterable[str]) -> Schema:
    """Demand one of these words of a text only: the same place may take an object or an array."""
    return {"if": {"type": "string"}, "then": {"enum": list(words)}, "examples": list(words)}


def _or_object(schema: Schema, properties: Mapping[str, Schema], most: int | None = None) -> Schema:
    """Also take an object with these keys. No `oneOf`: keywords for objects say nothing about other values."""
    limits = {"minProperties": 1} | ({} if most is None else {"maxProperties": most})
    return {
        **schema,
        "type": [*schema["type"], "object"],
        **limits,
        "additionalProperties": False,
        "properties": dict(properties),
    }


def _given(fields: Mapping[str, Field]) -> Schema:
    """Build a subject of a test case; its type is told where it stands."""
    return {"additionalProperties": False, "properties": {name: _reading(field) for name, field in fields.items()}}


def _reading(field: Field) -> Schema:
    """Build what a test case may say of a field: whatever a reading could hold, so a status may be one yet unknown."""
    schema = _GIVEN.get(field.type)
    if schema is None:
        types = [_JSON_TYPES[kind] for kind in conditions._FORMS[field.type][1]]
        schema = {"type": [*types, "null"], **_BEYOND_TYPE.get(field.type, {})}
    return {**schema, **({"examples": list(field.values)} if field.values else {}), "description": field.meaning}


DIRECTORY = Path(parse.__file__).parent
SCHEMAS = {"rule.schema.json": build_rule_schema, "policy.schema.json": build_policy_schema}


def render_schema(schema: Schema) -> str:
    """Write a schema as it stands in its file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for file_name, build in SCHEMAS.items():
        (DIRECTORY / file_name).write_text(render_schema(build()), encoding="utf-8")
