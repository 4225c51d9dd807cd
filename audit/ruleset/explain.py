"""Says in plain words why something was found; runs for hits only, so it may walk the rule."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from audit.ruleset.language import KEYWORDS, All, Not, Predicate, Ref, Test, tests_of
from audit.text import printable, shorten
from audit.times import describe_duration, format_time, parse_distance, parse_time

if TYPE_CHECKING:
    from audit.model import Gateway
    from audit.ruleset.language import Takes
    from audit.ruleset.program import BoundRule, Subject

_LONGEST_VALUE = 80
_MOST_VALUES = 6
_STATUS_WORDS = {"pendingAcceptance": "pending", None: "without a readable status"}

# What is the case, and what should be: "pending for 49 h", "at most 24 h allowed". The latter may be empty.
Fault = tuple[str, str]


class Explanation(msgspec.Struct, frozen=True):
    """`message` for a person; `expected` (the requirement, parameters filled in) and `actual` (field to value)."""

    message: str
    expected: Any
    actual: dict[str, Any]


def explain(bound: BoundRule, about: Subject, gateway: Gateway | None) -> Explanation:
    """Explain why a subject that meets `when` breaks `require`; `gateway` is None where it is about no single one."""
    rule, subject = bound.rule, _Facts(about, gateway, bound, bound.met_by(about, gateway))
    fields = [test.field for test in tests_of(rule.require)]
    faults = subject.faults(rule.require, wanted=True)
    if not faults:  # nothing else would help: `"require": false`
        fields = [*rule.keys, "count"] if rule.each == "group" else [test.field for test in rule.tests]
        facts = dict.fromkeys(f"{field} is {show(subject.value(field))}" for field in fields)
        faults = [("; ".join(facts) or "it is there", "this must never occur")]
    actual = {field: subject.value(field) for field in fields}
    return Explanation(_join(faults, " and "), bound.expected, actual)


class _Facts(msgspec.Struct, frozen=True):
    """What is the case with one subject of a rule."""

    about: Subject
    gateway: Gateway | None
    bound: BoundRule
    met: frozenset[Test]

    def value(self, field: str) -> Any:  # noqa: ANN401  (whatever the field holds)
        if isinstance(self.about, dict):
            return self.about[field]
        owner, _, attribute = field.rpartition(".")
        if owner == "gateway":
            return getattr(self.gateway, attribute)
        return getattr(getattr(self.about, owner) if owner else self.about, attribute)

    def holds(self, predicate: Predicate) -> bool:
        if isinstance(predicate, Test):
            return predicate in self.met
        if isinstance(predicate, Not):
            return not self.holds(predicate.term)
        return (all if isinstance(predicate, All) else any)(map(self.holds, predicate.terms))

    def faults(self, predicate: Predicate, *, wanted: bool) -> list[Fault]:
        """Say what would have to be otherwise for the predicate to be as `wanted`; empty where nothing would help."""
        if isinstance(predicate, Not):
            return self.faults(predicate.term, wanted=not wanted)
        if self.holds(predicate) == wanted:
            return []
        if isinstance(predicate, Test):
            return [self._fault(predicate, wanted=wanted)]
        terms = [faults for term in predicate.terms if (faults := self.faults(term, wanted=wanted))]
        if isinstance(predicate, All) == wanted:
            return [fault for faults in terms for fault in faults]
        # One of them is enough. What a term of several faults says is one fact.
        either = [faults[0] if len(faults) == 1 else (_join(faults, " and "), "") for faults in terms]
        return [(_join(either, " or ", ", or "), "")] if either else []

    def _fault(self, test: Test, *, wanted: bool) -> Fault:
        actual, keyword = self.value(test.field), KEYWORDS[test.keyword]
        written = self.bound.bindings.written(test.value)
        if test.keyword == "const" and not wanted and not isinstance(written, Ref):
            demand = "not allowed" if actual is not None else ""
        else:
            demanded = show_wanted(written, keyword.takes) + self._aside(written)
            demand = (keyword.must if wanted else keyword.must_not).format(demanded)
        if actual is None:
            return f"{test.field} is absent or unreadable", demand
        if keyword.takes == "duration":
            return self._age_fault(test, parse_distance(written), demand, wanted=wanted)
        return f"{test.field} is {show(actual)}", demand

    def _age_fault(self, test: Test, limit: timedelta, demand: str, *, wanted: bool) -> Fault:
        age = parse_time(format_time(self.bound.bindings.now)) - parse_time(self.value(test.field))
        if age < timedelta():
            if limit <= timedelta():
                allowed = f"at most {describe_duration(-limit)} allowed" if limit else "not allowed"
                demand = allowed if wanted else ""
            return f"{test.field} lies {describe_duration(-age)} in the future", demand
        shown = describe_duration(age)
        if age != limit and shown == describe_duration(limit):
            shown = f"just {'over' if age > limit else 'under'} {shown}"
        if test.field.endswith("status_since"):
            status = self.value(test.field.removesuffix("_since"))
            words = _STATUS_WORDS.get(status) or shorten(printable(str(status)), _LONGEST_VALUE)
            return f"{words} for {shown}", demand
        return f"{test.field} was {shown} ago", demand

    def _aside(self, written: object) -> str:
        """Say what stands behind a name."""
        if not isinstance(written, Ref):
            return ""
        if written.kind == "field":
            return f" ({show(self.value(written.name))})"
        entries = len(self.bound.bindings.lists[written.name])
        return f" ({entries} {'entry' if entries == 1 else 'entries'})"


def _join(faults: list[Fault], word: str, between: str = "; ") -> str:
    """Say every fact once, each with all that is demanded of it."""
    demands: dict[str, dict[str, None]] = {}
    for fact, demand in faults:
        demands.setdefault(fact, {}).update({demand: None} if demand else {})
    return between.join(f"{fact}; {word.join(wanted)}" if wanted else fact for fact, wanted in demands.items())


def show_wanted(written: Any, takes: Takes) -> str:  # noqa: ANN401  (as in the rule)
    """Write what a condition compares with; of another field or a list, its name."""
    if isinstance(written, Ref):
        if written.kind == "list":
            return f"in the list {show(written.name)}"
        return {"value": "the same as ", "values": "in "}.get(takes, "") + written.name
    if takes == "duration":
        return describe_duration(abs(parse_distance(written)))
    return f"one of {show(written)}" if takes == "values" else show(written)


def show(value: object) -> str:
    """Write a value as a person reads it, shortened."""
    if value is None:
        return "null"
    if isinstance(value, tuple):
        more = f" and {len(value) - _MOST_VALUES} more" if len(value) > _MOST_VALUES else ""
        return ", ".join(map(show, value[:_MOST_VALUES])) + more if value else "empty"
    return f'"{shorten(printable(value), _LONGEST_VALUE)}"' if isinstance(value, str) else str(value)
