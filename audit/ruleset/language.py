"""The words of the rule language: subjects, their fields, the conditions on a field, and the parsed predicate.

Adding a field or a condition is adding one entry to a table here; parsing, compiling and explaining follow it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

FieldType = Literal["text", "integer", "time"]
Scalar: TypeAlias = "str | int | float | bool | None"

CONNECTION_STATUSES = ("pendingAcceptance", "creating", "accepted", "rejected", "failed", "deleting")
LONGEST_GLOB = 128


@dataclass(frozen=True)
class Field:
    """A field of a subject. `values` lists what it can hold, empty where anything; `example` is harmless in a test."""

    type: FieldType
    meaning: str
    example: Scalar
    values: tuple[str, ...] = ()


_CONNECTION: Mapping[str, Field] = {
    "id": Field("text", "connection id", "00000000-0000-4000-8000-000000000001"),
    "marker_id": Field("integer", "packet id of the endpoint", 1),
    "domain_id": Field("text", "account that the connection comes from", "0" * 32),
    "status": Field("text", "one of " + ", ".join(CONNECTION_STATUSES), "accepted", CONNECTION_STATUSES),
    "created_at": Field("time", "when it was requested", "-PT1H"),
    "updated_at": Field("time", "when anything about it last changed", "-PT1H"),
    "status_since": Field("time", "since when it has had this status, as far as is known", "-PT1H"),
}
_GATEWAY: Mapping[str, Field] = {
    "id": Field("text", "gateway id", "gateway-1"),
    "name": Field("text", "gateway name", "gateway"),
    "region": Field("text", "region, empty where only an endpoint is given", "cn-north-4"),
    "project_id": Field("text", "project id", "1" * 32),
    "status": Field("text", 'state of the gateway in the API\'s words, e.g. "Running"', "Running"),
}
# What `each` may say, with the fields that a rule then has.
SUBJECTS: Mapping[str, Mapping[str, Field]] = {
    "connection": {**_CONNECTION, **{f"gateway.{name}": field for name, field in _GATEWAY.items()}},
}


@dataclass(frozen=True)
class Keyword:
    """A condition on a field.

    `test` is Python over `x` (the field) and `k` (the wanted value), `null_safe` where it also holds water when a
    value taken from another field is null. `must` and `must_not` say it in words, with `{}` for the wanted value.
    """

    types: tuple[FieldType, ...]
    test: str
    null_safe: bool
    must: str
    must_not: str
    meaning: str


KEYWORDS: Mapping[str, Keyword] = {
    "const": Keyword(
        ("text", "integer", "time"), "x == k", True, "must be {}", "must not be {}", "equals the value; null only null"
    ),
    "enum": Keyword(
        ("text", "integer", "time"),
        "x in k",
        True,
        "must be one of {}",
        "must not be one of {}",
        'is one of the values: a JSON array or {"list": NAME}',
    ),
    "like": Keyword(
        ("text",),
        "x is not None and k(x) is not None",
        True,
        "must be like {}",
        "must not be like {}",
        "matches the glob: * is any text, ? any one character",
    ),
    "minimum": Keyword(
        ("integer",),
        "x is not None and x >= k",
        False,
        "must be at least {}",
        "must be below {}",
        "is at least the number",
    ),
    "maximum": Keyword(
        ("integer",),
        "x is not None and x <= k",
        False,
        "must be at most {}",
        "must be above {}",
        "is at most the number",
    ),
    "maxAge": Keyword(
        ("time",),
        "x is not None and x >= k",
        True,
        "must be at most {} ago",
        "must be more than {} ago",
        "lies at most this duration before the run's now",
    ),
    "minAge": Keyword(
        ("time",),
        "x is not None and x <= k",
        True,
        "must be at least {} ago",
        "must be less than {} ago",
        "lies at least this duration before the run's now; PT0S: not in the future",
    ),
}
AGES = frozenset({"maxAge", "minAge"})


@dataclass(frozen=True)
class Ref:
    """A value named instead of written: a parameter of the rule, a list of the policy, another field."""

    kind: Literal["param", "list", "field"]
    name: str


@dataclass(frozen=True)
class Test:
    """One condition on one field; the only leaf of a predicate besides the empty All (true) and AnyOf (false)."""

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
