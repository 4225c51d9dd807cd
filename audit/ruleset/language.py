"""The words of the rule language: subjects, their fields, the conditions on a field, and the parsed predicate.

Adding a field or a condition is adding one entry to a table here; parsing, compiling and explaining follow it.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FieldType = Literal["text", "integer", "time", "texts"]
Takes = Literal["value", "values", "text", "number", "duration", "glob"]
RefKind = Literal["param", "list", "field"]
Scalar: TypeAlias = "str | int | float | bool | None"

CONNECTION_STATUSES = ("pendingAcceptance", "creating", "accepted", "rejected", "failed", "deleting")
LONGEST_GLOB = 128
# When the tests inside rules are run; any instant would do, as their times are relative to it.
CASE_NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
_HARMLESS = "2025-12-31T23:00:00Z"


class Field(msgspec.Struct, frozen=True):
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
_OF_GATEWAY = {f"gateway.{name}": field for name, field in _GATEWAY.items()}
# What the list of gateways tells before any gateway is read, so that it holds still during a run.
LISTED = {f"gateway.{name}": _GATEWAY[name] for name in ("id", "name", "region", "project_id", "status")}
GROUP_KEYS: Mapping[str, Field] = {**_CONNECTION, **LISTED}
_COUNTERS: Mapping[str, Field] = {
    "count": Field("integer", "how many connections the group has", 1),
    "oldest": Field("time", "the earliest `created_at` among them", _HARMLESS),
    "newest": Field("time", "the latest `created_at` among them", _HARMLESS),
}
CHANGES = ("added", "removed", "modified")
# What `each` may say, with the fields that a rule then has; a group has, of the connection's, those that make it.
SUBJECTS: Mapping[str, Mapping[str, Field]] = {
    "connection": {**_CONNECTION, **_OF_GATEWAY},
    "gateway": _GATEWAY,
    "change": {
        "change": Field("text", "what happened: " + ", ".join(CHANGES), "modified", CHANGES),
        **{f"before.{name}": field for name, field in _CONNECTION.items()},
        **{f"after.{name}": field for name, field in _CONNECTION.items()},
        **_OF_GATEWAY,
    },
    "group": {**GROUP_KEYS, **_COUNTERS},
}
# Of these, what was not read completely has at least so many, or something older or newer.
COUNTS = frozenset({"gateway.connections", "gateway.accepted", "gateway.pending", *(f"group.{n}" for n in _COUNTERS)})


def chosen_by(each: str) -> Mapping[str, Field]:
    """The fields that `when` has: groups are made of the connections that it chooses."""
    return SUBJECTS["connection" if each == "group" else each]


def required_of(each: str, keys: Sequence[str]) -> Mapping[str, Field]:
    """The fields that `require` has; `keys` are what groups are made by."""
    fields = SUBJECTS[each]
    return {name: fields[name] for name in (*keys, *_COUNTERS)} if each == "group" else fields


class Keyword(msgspec.Struct, frozen=True):
    """A condition on a field.

    `test` is Python over x (the field) and k (the wanted value); where `needs_value`, it fails if one of them is null.
    `takes` says what may stand after the word. The rest says it to a person, `{}` is the value: `must` and `must_not`
    what is demanded, `says` and `denies` what is the case.
    """

    types: tuple[FieldType, ...]
    takes: Takes
    test: str
    needs_value: bool
    must: str
    must_not: str
    says: str
    denies: str
    meaning: str


_ANY: tuple[FieldType, ...] = ("text", "integer", "time")
_LIKE = "is like it as a whole; `*` is any text, `?` any one character, every other character itself"
_MAX_AGE = "lies at most so long before the run, or after it"
_MIN_AGE = "lies at least so long before the run; `PT0S`: not in the future, `-PT5M`: at most 5 minutes in it"
KEYWORDS: Mapping[str, Keyword] = {
    "const": Keyword(
        _ANY, "value", "{x} == {k}", False,
        "must be {}", "must not be {}", "is {}", "is not {}", "equals it; null only null",
    ),
    "enum": Keyword(
        _ANY, "values", "{x} in {k}", False,
        "must be {}", "must not be {}", "is {}", "is not {}", "is one of them",
    ),
    "contains": Keyword(
        ("texts",), "text", "{k} in {x}", True,
        "must hold {}", "must not hold {}", "holds {}", "does not hold {}", "holds it",
    ),
    "like": Keyword(
        ("text",), "glob", "{k}({x}) is not None", True,
        "must be like {}", "must not be like {}", "is like {}", "is not like {}", _LIKE,
    ),
    "minimum": Keyword(
        ("integer",), "number", "{x} >= {k}", True,
        "must be at least {}", "must be below {}", "is at least {}", "is below {}", "is no less",
    ),
    "maximum": Keyword(
        ("integer",), "number", "{x} <= {k}", True,
        "must be at most {}", "must be above {}", "is at most {}", "is above {}", "is no more",
    ),
    "maxAge": Keyword(
        ("time",), "duration", "{x} >= {k}", True,
        "at most {} allowed", "more than {} required", "is at most {} ago", "is more than {} ago", _MAX_AGE,
    ),
    "minAge": Keyword(
        ("time",), "duration", "{x} <= {k}", True,
        "at least {} required", "less than {} required", "is at least {} ago", "is less than {} ago", _MIN_AGE,
    ),
}  # fmt: skip
# The values that may be named instead of written, by what a condition takes.
REFS: Mapping[Takes, tuple[RefKind, ...]] = {
    "value": ("param", "field"),
    "values": ("list", "field"),
    "text": ("param",),
    "number": ("param", "field"),
    "duration": ("param",),
    "glob": ("param",),
}


class Ref(msgspec.Struct, frozen=True):
    """A value named instead of written: a parameter of the rule, a list of the policy, another field."""

    kind: RefKind
    name: str


class Test(msgspec.Struct, frozen=True, eq=False):
    """One condition on one field; the only leaf of a predicate besides the empty All (true) and AnyOf (false).

    It equals only itself, so that what is worked out for it can be kept under it.
    """

    field: str
    keyword: str
    value: Scalar | tuple[Scalar, ...] | Ref


class All(msgspec.Struct, frozen=True):
    """Holds when every term holds; without terms it is `true`."""

    terms: tuple[Predicate, ...]


class AnyOf(msgspec.Struct, frozen=True):
    """Holds when some term holds; without terms it is `false`."""

    terms: tuple[Predicate, ...]


class Not(msgspec.Struct, frozen=True):
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


def constant_of(predicate: Predicate) -> bool | None:
    """Return what a predicate is whatever the subject may be; None where that depends."""
    if isinstance(predicate, Test):
        return None
    if isinstance(predicate, Not):
        inner = constant_of(predicate.term)
        return None if inner is None else not inner
    decisive = isinstance(predicate, AnyOf)
    parts = {constant_of(term) for term in predicate.terms}
    return decisive if decisive in parts else None if None in parts else not decisive
