"""Says in plain words why a connection was found; runs for hits only, so it may walk the rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from audit.ruleset.compiled import test_function
from audit.ruleset.language import FALSE, KEYWORDS, All, AnyOf, Not, Predicate, Ref, Test, tests_of
from audit.text import printable, shorten
from audit.times import describe_duration, format_time, parse_duration, parse_time

if TYPE_CHECKING:
    from audit.model import Connection, Gateway
    from audit.ruleset.compiled import Bindings, BoundRule

_LONGEST_VALUE = 80
_MOST_VALUES = 5
_STATUS_WORDS = {"pendingAcceptance": "pending"}


@dataclass(frozen=True)
class Explanation:
    """`message` for a person; `expected` (the requirement, parameters filled in) and `actual` (field to value)."""

    message: str
    expected: Any
    actual: dict[str, Any]


def explain(bound: BoundRule, connection: Connection, gateway: Gateway) -> Explanation:
    """Explain why a connection that meets `when` breaks `require`."""
    subject = _Subject(connection, gateway, bound.bindings)
    rule = bound.rule
    if rule.require == FALSE:
        tests = tests_of(rule.when)
        facts = [f"{test.field} is {_show(subject.value(test.field))}" for test in tests]
        message = f"{'; '.join(dict.fromkeys(facts)) or 'it is there'}; this must never occur"
    else:
        tests = tests_of(rule.require)
        message = "; ".join(dict.fromkeys(subject.faults(rule.require, wanted=True)))
    actual = {test.field: subject.value(test.field) for test in tests}
    return Explanation(message, fill_params(rule.require_json, bound.bindings), actual)


def fill_params(value: object, bindings: Bindings) -> Any:  # noqa: ANN401  (any JSON)
    """Replace `{"param": name}` in a rule's JSON by the value in force."""
    if isinstance(value, dict):
        if value.keys() == {"param"}:
            return bindings.params[value["param"]]
        return {key: fill_params(inner, bindings) for key, inner in value.items()}
    if isinstance(value, list):
        return [fill_params(inner, bindings) for inner in value]
    return value


@dataclass(frozen=True)
class _Subject:
    connection: Connection
    gateway: Gateway
    bindings: Bindings

    def value(self, field: str) -> Any:  # noqa: ANN401  (whatever the field holds)
        owner, _, attribute = field.rpartition(".")
        return getattr(self.gateway if owner else self.connection, attribute)

    def holds(self, predicate: Predicate) -> bool:
        if isinstance(predicate, Test):
            return self._test(predicate)
        if isinstance(predicate, Not):
            return not self.holds(predicate.term)
        return (all if isinstance(predicate, All) else any)(map(self.holds, predicate.terms))

    def _test(self, test: Test) -> bool:
        if isinstance(test.value, Ref) and test.value.kind == "field":
            wanted = self.value(test.value.name)
            if wanted is None and not KEYWORDS[test.keyword].null_safe:
                return False
        else:
            wanted = self.bindings.constant(test)
        return bool(test_function(test.keyword)(self.value(test.field), wanted))

    def faults(self, predicate: Predicate, *, wanted: bool) -> list[str]:
        """Say what would have to be otherwise for the predicate to be as `wanted`."""
        if isinstance(predicate, Not):
            return self.faults(predicate.term, wanted=not wanted)
        if self.holds(predicate) == wanted:
            return []
        if isinstance(predicate, Test):
            return [self._fault(predicate, wanted=wanted)]
        faults = [fault for term in predicate.terms for fault in self.faults(term, wanted=wanted)]
        either = isinstance(predicate, AnyOf) == wanted and len(predicate.terms) > 1
        return [" or ".join(faults)] if either else faults

    def _fault(self, test: Test, *, wanted: bool) -> str:
        actual = self.value(test.field)
        if test.keyword in {"maxAge", "minAge"} and actual is not None:
            return self._age_fault(test, actual, wanted=wanted)
        if test.keyword == "const" and not wanted:
            return f"{test.field} is {_show(actual)}; not allowed" if actual is not None else _unreadable(test.field)
        keyword = KEYWORDS[test.keyword]
        must = (keyword.must if wanted else keyword.must_not).format(self._show_wanted(test))
        if test.keyword == "enum" and isinstance(test.value, Ref):
            must = must.replace("be one of the list", "be in the list")
        return (
            f"{test.field} is {_show(actual)}; {must}" if actual is not None else f"{_unreadable(test.field)}; {must}"
        )

    def _age_fault(self, test: Test, actual: str, *, wanted: bool) -> str:
        limit = describe_duration(parse_duration(self.bindings.written(test.value)))
        age = parse_time(format_time(self.bindings.now)) - parse_time(actual)
        at_most = (test.keyword == "maxAge") == wanted
        bound = f"{'at most' if at_most else 'at least'} {limit} allowed"
        if age.total_seconds() < 0:
            return f"{test.field} lies {describe_duration(-age)} in the future"
        if test.field == "status_since":
            status = self.connection.status
            name = _STATUS_WORDS.get(status or "", printable(status or "without a status"))
            return f"{name} for {describe_duration(age)}; {bound}"
        return f"{test.field} is {describe_duration(age)} ago; {bound}"

    def _show_wanted(self, test: Test) -> str:
        value = self.bindings.written(test.value)
        if isinstance(value, Ref):
            if value.kind == "field":
                return f"{value.name} ({_show(self.value(value.name))})"
            entries = len(self.bindings.lists[value.name])
            return f'the list "{value.name}" ({entries} {"entry" if entries == 1 else "entries"})'
        if test.keyword in {"maxAge", "minAge"}:
            return describe_duration(parse_duration(value))
        if isinstance(value, tuple):
            more = f" and {len(value) - _MOST_VALUES} more" if len(value) > _MOST_VALUES else ""
            return ", ".join(map(_show, value[:_MOST_VALUES])) + more
        return _show(value)


def _unreadable(field: str) -> str:
    return f"{field} is absent or unreadable"


def _show(value: object) -> str:
    if value is None:
        return "null"
    return f'"{shorten(printable(value), _LONGEST_VALUE)}"' if isinstance(value, str) else str(value)
