"""The words of the rule language: subjects, their fields, the conditions on a field, and the parsed predicate.

Adding a field or a condition is adding one entry to a table here; parsing, compiling and explaining follow it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

FieldType = Literal["text", "integer", "time", "texts"]
Takes = Literal["value", "values", "text", "number", "duration", "glob"]
RefKind = Literal["param", "list", "field"]
Scalar: TypeAlias = "str | int | float | bool | None"

CONNECTION_STATUSES = ("pendingAcceptance", "creating", "accepted", "rejected", "failed", "deleting")
LONGEST_GLOB = 128
# When the tests inside rules are run; any instant would do, as their times are relative to it.
CASE_NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
_HARMLESS = "2025-12-31T23:00:00Z"


@dataclass(frozen=True)
class Field:
    """A field of a subject. `values`: all that it can hold, empty where anything; `example` is harmless in a test."""

    type: FieldType
    meaning: str
    example: Scalar | tuple[str, ...]
    values: tuple[str, ...] = ()


_CONNECTION: Mapping[str, Field] = {
    "id": Field("text", "connection id", "00000000-0000-4000-8000-000000000001"),
    "marker_id": Field("integer", "packet id of the endpoint", 1),
    "domain_id": Field("text", "account that the connection comes from", "0" * 32),
    "status": Field("text", "one of " + ", ".join(CONNECTION_STATUSES), "accepted", CONNECTION_STATUSES),
    "created_at": Field("time", "when it was requested", _HARMLESS),
    "updated_at": Field("time", "when anything about it last changed", _HARMLESS),
    "status_since": Field("time", "since when it has had this status, as far as is known", _HARMLESS),
}
_GATEWAY: Mapping[str, Field] = {
    "id": Field("text", "gateway id", "gateway-1"),
    "name": Field("text", "gateway name", "gateway"),
    "region": Field("text", "region, empty where only an endpoint is given", "cn-north-4"),
    "project_id": Field("text", "project id", "1" * 32),
    "status": Field("text", 'state of the gateway in the API\'s words, e.g. "Running"', "Running"),
    "permissions": Field("texts", "accounts that may ask for a connection, by domain id; `*` is everyone", ("0" * 32,)),
    "connections": Field("integer", "how many connections it has", 1),
    "accepted": Field("integer", "how many of them are accepted", 1),
    "pending": Field("integer", "how many of them wait for acceptance", 0),
}
# Of these, a gateway that was not read completely has at least so many.
COUNTS = frozenset({"connections", "accepted", "pending"})
# What `each` may say, with the fields that a rule then has.
SUBJECTS: Mapping[str, Mapping[str, Field]] = {
    "connection": {**_CONNECTION, **{f"gateway.{name}": field for name, field in _GATEWAY.items()}},
    "gateway": _GATEWAY,
}


@dataclass(frozen=True)
class Keyword:
    """A condition on a field.

    `test` is Python over x (the field) and k (the wanted value); where `needs_value`, it fails if one of them is null.
    `takes` says what may stand after the word. `must` and `must_not` say it to a person, `{}` is the value.
    """

    types: tuple[FieldType, ...]
    takes: Takes
    test: str
    needs_value: bool
    must: str
    must_not: str
    meaning: str


_TEXT: tuple[FieldType, ...] = ("text",)
_NUMBER: tuple[FieldType, ...] = ("integer",)
_TIME: tuple[FieldType, ...] = ("time",)
_TEXTS: tuple[FieldType, ...] = ("texts",)
_ANY = (*_TEXT, *_NUMBER, *_TIME)
_LIKE = "is like it as a whole; `*` is any text, `?` any one character, every other character itself"
_MAX_AGE = "lies at most so long before the run, or after it"
_MIN_AGE = "lies at least so long before the run; `PT0S`: not in the future, `-PT5M`: at most 5 minutes in it"
KEYWORDS: Mapping[str, Keyword] = {
    "const": Keyword(_ANY, "value", "{x} == {k}", False, "must be {}", "must not be {}", "equals it; null only null"),
    "enum": Keyword(_ANY, "values", "{x} in {k}", False, "must be {}", "must not be {}", "is one of them"),
    "contains": Keyword(_TEXTS, "text", "{k} in {x}", True, "must hold {}", "must not hold {}", "holds it"),
    "like": Keyword(_TEXT, "glob", "{k}({x}) is not None", True, "must be like {}", "must not be like {}", _LIKE),
    "minimum": Keyword(_NUMBER, "number", "{x} >= {k}", True, "must be at least {}", "must be below {}", "is no less"),
    "maximum": Keyword(_NUMBER, "number", "{x} <= {k}", True, "must be at most {}", "must be above {}", "is no more"),
    "maxAge": Keyword(_TIME, "duration", "{x} >= {k}", True, "at most {} allowed", "more than {} required", _MAX_AGE),
    "minAge": Keyword(_TIME, "duration", "{x} <= {k}", True, "at least {} required", "less than {} required", _MIN_AGE),
}
# The values that may be named instead of written, by what a condition takes.
REFS: Mapping[Takes, tuple[RefKind, ...]] = {
    "value": ("param", "field"),
    "values": ("list", "field"),
    "text": ("param",),
    "number": ("param", "field"),
    "duration": ("param",),
    "glob": ("param",),
}


@dataclass(frozen=True)
class Ref:
    """A value named instead of written: a parameter of the rule, a list of the policy, another field."""

    kind: RefKind
    name: str


@dataclass(frozen=True, eq=False)
class Test:
    """One condition on one field; the only leaf of a predicate besides the empty All (true) and AnyOf (false).

    It equals only itself, so that what is worked out for it can be kept under it.
    """

    field: str
    keyword: str
    value: Scalar | tuple[Scalar, ...] | Ref


@dataclass(frozen=True)
class All:
    """Holds when every term holds; without terms it is `true`."""

    terms: tuple[Predicate, ...]


@dataclass(frozen=True)
class AnyOf:
    """Holds when some term holds; without terms it is `false`."""

    terms: tuple[Predicate, ...]


@dataclass(frozen=True)
class Not:
    """Holds when its term does not."""

    term: Predicate


Predicate: TypeAlias = "Test | All | AnyOf | Not"
TRUE = All(())
FALSE = AnyOf(())


def tests_of(predicate: Predicate) -> tuple[Test, ...]:
    """List the leaves of a predicate in their order."""
    if isinstance(predicate, Test):
        return (predicate,)
    if isinstance(predicate, Not):
        return tests_of(predicate.term)
    return tuple(leaf for term in predicate.terms for leaf in tests_of(term))
