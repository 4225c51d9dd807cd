"""The published JSON Schemas of a rule and of the policy, made from the tables of the language, for editors.

They refuse nothing that the loader takes. The loader refuses more: names that do not exist, rules without sense, days
that no calendar has. `python -m audit.ruleset.schema` writes both files beside this module.
"""

from __future__ import annotations

import json
from collections.abc import Mapping  # noqa: TC003  (a dataclass field)
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from audit import times
from audit.model import SEVERITIES
from audit.ruleset import conditions, parse, policy
from audit.ruleset.language import KEYWORDS, LONGEST_GLOB, REFS, SUBJECTS, Field, Keyword

Schema: TypeAlias = "dict[str, Any]"

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_DEFAULT_SUBJECT = "connection"
_JSON_TYPES = {str: "string", int: "integer", float: "number"}


def _pattern(*alternatives: str) -> str:
    # A schema's \d may be any script's digit.
    return "|".join(f"^{alternative}$".replace(r"\d", "[0-9]") for alternative in alternatives)


_DURATION, _INSTANT = times._DURATION.pattern, times._CANONICAL.pattern  # noqa: SLF001  (the loader's own)
_TEXT: Schema = {"type": "string", "pattern": r"\S"}
_TRIMMED: Schema = {"type": "string", "pattern": _pattern(r"\S([\s\S]*\S)?")}
_TEXTS: Schema = {"type": "array", "items": _TRIMMED, "uniqueItems": True}
_NAME: Schema = {"type": "string", "pattern": _pattern(parse.KEBAB.pattern)}
_64_BITS: Schema = {"minimum": -(2**63), "exclusiveMaximum": 2**63}
_PARAMS: Schema = {
    "type": "object",
    "propertyNames": _NAME,
    "additionalProperties": {"type": ["string", "number"]},
}
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

_RULE_KEYS: Mapping[str, Schema] = {
    "$schema": {"description": "path or URL of this schema, for editors"},
    "id": {**_NAME, "description": "lower-case words with dashes; the file's name without .json"},
    "title": {**_TEXT, "description": "a sentence that says what must hold"},
    "severity": {"enum": list(SEVERITIES), "description": "how bad it is where it does not hold"},
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
    "when": {"not": {"const": False}, "description": "chooses those that the rule is about; without it, all of them"},
    "require": {"not": {"const": True}, "description": "what must hold for them; false: they must never occur"},
    "tests": {
        "type": "array",
        "minItems": 1,
        "allOf": [
            {"contains": {"type": "object", "properties": {"expect": {"const": outcome}}, "required": ["expect"]}}
            for outcome in parse._OUTCOMES  # noqa: SLF001  (the loader's own)
        ],
        "description": "examples that the rule itself must pass: at least one finding and one pass",
    },
}
_CASE_KEYS: Mapping[str, Schema] = {
    "name": {**_TEXT, "description": "what is special about it"},
    "given": {"type": "object", "description": "the fields that matter; all others are filled with harmless values"},
    "expect": {"enum": list(parse._OUTCOMES), "description": "what must come of it"},  # noqa: SLF001
    "params": {**_PARAMS, "description": "parameters for this case only"},
    "lists": {
        "type": "object",
        "propertyNames": _NAME,
        "additionalProperties": _TEXTS,
        "description": "lists of the policy for this case only; without it they are empty",
    },
}
_POLICY_KEYS: Mapping[str, Schema] = {
    "$schema": _RULE_KEYS["$schema"],
    "lists": {
        "type": "object",
        "propertyNames": _NAME,
        "additionalProperties": _TEXTS,
        "description": "lists that rules read, by name; while one is empty, rules that read it are not evaluated",
    },
    "params": {
        "type": "object",
        "additionalProperties": _PARAMS,
        "description": "parameters by rule and name; they replace the defaults of the rule",
    },
}


def build_rule_schema() -> Schema:
    """Build the JSON Schema (2020-12) of a rule."""
    subjects = [_Subject(name, fields) for name, fields in SUBJECTS.items()]
    keys = {**_RULE_KEYS, "each": {"enum": list(SUBJECTS), **_RULE_KEYS["each"]}}
    return {
        "$schema": _DRAFT,
        "title": "Rule of apig-vpcep-audit",
        "description": "For each subject, when P, require Q.",
        **_closed(parse._KEYS, keys),  # noqa: SLF001  (the loader's own)
        "required": list(parse._REQUIRED),  # noqa: SLF001
        "allOf": [subject.branch() for subject in subjects],
        "$defs": {name: schema for subject in subjects for name, schema in subject.definitions().items()},
    }


def build_policy_schema() -> Schema:
    """Build the JSON Schema (2020-12) of the policy."""
    return {
        "$schema": _DRAFT,
        "title": "Policy of apig-vpcep-audit",
        "description": "The values of a site.",
        **_closed(policy._KEYS, _POLICY_KEYS),  # noqa: SLF001  (the loader's own)
    }


def _closed(known: Mapping[str, Any], schemas: Mapping[str, Schema]) -> Schema:
    """Build an object that has none but the known keys; of one that has no schema yet, anything is taken."""
    properties = {key: schemas.get(key, {}) for key in known}
    return {"type": "object", "additionalProperties": False, "properties": properties}


@dataclass(frozen=True)
class _Subject:
    """Builds what depends on the subject of a rule: conditions on its fields, and test cases."""

    name: str
    fields: Mapping[str, Field]

    def branch(self) -> Schema:
        """Hold `when`, `require` and `tests` of a rule about this subject against its fields."""
        chosen: Schema = {"properties": {"each": {"const": self.name}}}
        if self.name != _DEFAULT_SUBJECT:
            chosen["required"] = ["each"]
        predicate = self._ref("predicate")
        tests = {"items": self._ref("case")}
        return {"if": chosen, "then": {"properties": {"when": predicate, "require": predicate, "tests": tests}}}

    def definitions(self) -> dict[str, Schema]:
        matchers = {self._matcher_name(name): self._matcher(name) for name in self.fields}
        parts = {"predicate": self._predicate(), "case": self._case(), **matchers}
        return {f"{self.name}-{part}": schema for part, schema in parts.items()}

    def _ref(self, part: str) -> Schema:
        return {"$ref": f"#/$defs/{self.name}-{part}"}

    def _matcher_name(self, field: str) -> str:
        return field if self.fields[field].values else self.fields[field].type

    def _predicate(self) -> Schema:
        several = {"type": "array", "minItems": 1, "items": self._ref("predicate")}
        fields = {
            name: {"description": field.meaning, **self._ref(self._matcher_name(name))}
            for name, field in self.fields.items()
        }
        return {
            "type": ["boolean", "object"],
            "minProperties": 1,
            "additionalProperties": False,
            "properties": {
                **fields,
                "not": {"description": "must not hold", **self._ref("predicate")},
                "allOf": {"description": "all of them must hold", **several},
                "anyOf": {"description": "at least one of them must hold", **several},
            },
        }

    def _case(self) -> Schema:
        given = {name: _given(field) for name, field in self.fields.items()}
        case = _closed(parse._CASE_KEYS, _CASE_KEYS)  # noqa: SLF001  (the loader's own)
        case["properties"]["given"] = {**_CASE_KEYS["given"], "additionalProperties": False, "properties": given}
        return {**case, "required": list(parse._CASE_REQUIRED)}  # noqa: SLF001

    def _matcher(self, name: str) -> Schema:
        """Build what may stand after a field: a value, an array of values, or conditions."""
        field, me = self.fields[name], self._ref(self._matcher_name(name))
        words = {word: self._condition(field, keyword) for word, keyword in KEYWORDS.items() if _suits(field, keyword)}
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
        named: dict[str, Schema] = {kind: refs[kind] for kind in REFS[keyword.takes] if fields or kind != "field"}
        return {"description": f"holds when the field {keyword.meaning}", **_or_object(schema, named, most=1)}


def _suits(field: Field, keyword: Keyword) -> bool:
    return field.type in keyword.types


def _literal(field: Field, keyword: Keyword) -> Schema:
    """Build a written value that a field can be held against."""
    form = keyword.takes if keyword.takes in conditions._FORMS else field.type  # noqa: SLF001  (as the loader does)
    types = [_JSON_TYPES[kind] for kind in conditions._FORMS[form][1]]  # noqa: SLF001
    schema: Schema = {"type": types + ["null"] * (form == field.type), **_BEYOND_TYPE.get(form, {})}
    if field.values and form == "text":
        # Only a text must be one of them: the same place may take an object or an array.
        schema |= {"if": {"type": "string"}, "then": {"enum": list(field.values)}, "examples": list(field.values)}
    return schema


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


def _given(field: Field) -> Schema:
    """Build what a test case may say of a field: whatever a reading could hold, so a status may be one yet unknown."""
    schema = _GIVEN.get(field.type)
    if schema is None:
        types = [_JSON_TYPES[kind] for kind in conditions._FORMS[field.type][1]]  # noqa: SLF001
        schema = {"type": [*types, "null"], **_BEYOND_TYPE.get(field.type, {})}
    return {**schema, **({"examples": list(field.values)} if field.values else {}), "description": field.meaning}


SCHEMAS = {"rule.schema.json": build_rule_schema, "policy.schema.json": build_policy_schema}


def render_schema(schema: Schema) -> str:
    """Write a schema as it stands in its file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for file_name, build in SCHEMAS.items():
        Path(__file__).with_name(file_name).write_text(render_schema(build()), encoding="utf-8")
