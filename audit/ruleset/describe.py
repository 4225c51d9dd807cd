"""Says a rule in English, with the values that are in force and where they come from."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from audit.ruleset.explain import show, show_wanted
from audit.ruleset.language import FALSE, KEYWORDS, TRUE, All, Not, Ref, Test
from audit.text import printable
from audit.times import parse_distance

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from audit.ruleset.language import Predicate, Scalar
    from audit.ruleset.load import RuleSet
    from audit.ruleset.parse import Rule

# An age is in the future where its duration is negative, and neither where it is none.
_AGES = {
    "minAge": {
        True: ("is at most {} in the future", "is not in the future"),
        False: ("is more than {} in the future", "is in the future"),
    },
    "maxAge": {
        True: ("is at least {} in the future", "is not in the past"),
        False: ("is less than {} in the future", "is in the past"),
    },
}


def describe_rule(rule: Rule, params: Mapping[str, Scalar]) -> str:
    """Say what a rule demands in one sentence."""
    where = "" if rule.when == TRUE else f" where {_say(rule.when, params)}"
    subject = rule.each + where
    if rule.each == "change":
        subject = f"change of a connection since the reading before{where}"
    elif rule.each == "group":
        subject = f"group of connections{where} with the same {' and '.join(rule.keys)}"
    if rule.require == FALSE:
        return f"There must be no {subject}."
    return f"For each {subject}, it is required that {_say(rule.require, params)}."


def _say(predicate: Predicate, params: Mapping[str, Scalar], *, holds: bool = True) -> str:
    """Say that a predicate holds, or that it does not."""
    if isinstance(predicate, Not):
        return _say(predicate.term, params, holds=not holds)
    if isinstance(predicate, Test):
        return f"{predicate.field} {_condition(predicate, params, holds=holds)}"
    every = isinstance(predicate, All) == holds
    if not predicate.terms:
        return "true" if every else "false"
    said = [_say(term, params, holds=holds) for term in predicate.terms]
    said = [f"({text})" if _is_compound(term) else text for term, text in zip(predicate.terms, said, strict=True)]
    return " and ".join(said) if every else "either " * (len(said) > 1) + " or ".join(said)


def _is_compound(predicate: Predicate) -> bool:
    if isinstance(predicate, Not):
        return _is_compound(predicate.term)
    return not isinstance(predicate, Test) and len(predicate.terms) > 1


def _condition(test: Test, params: Mapping[str, Scalar], *, holds: bool) -> str:
    keyword = KEYWORDS[test.keyword]
    value: Any = test.value
    phrase = keyword.says if holds else keyword.denies
    # What fails for null holds for it when it is denied.
    tail = " (or is null)" if keyword.needs_value and not holds else ""
    if isinstance(value, Ref) and value.kind == "param":
        value, tail = params[value.name], f" ({value.name}){tail}"
    if keyword.takes == "duration" and (distance := parse_distance(value)) <= timedelta():
        phrase = _AGES[test.keyword][holds][distance == timedelta()]
    if isinstance(value, tuple) and len(value) == 1:
        return phrase.format(show(value)) + tail
    return phrase.format(show_wanted(value, keyword.takes)) + tail


def explain_rule(rule: Rule, rule_set: RuleSet, now: str) -> str:
    """Show a rule: what it demands, why, what to do, and the values in force with where each comes from."""
    policy = rule_set.policy
    of_policy = policy.params.get(rule.id, {})
    params = {**rule.params, **of_policy}
    lines = [f"{rule.id}: {rule.title}", "", describe_rule(rule, params), ""]
    facts = {
        "why": rule.description,
        "what to do": rule.remediation,
        "controls": "; ".join(f"{framework} {', '.join(ids)}" for framework, ids in rule.controls.items()),
        "tags": ", ".join(rule.tags),
    }
    lines += [f"{name}: {text}" for name, text in facts.items() if text]
    lines += ["", "in force", f"  severity: {rule.severity} (the rule's own)"]
    for name, value in params.items():
        source = f"from the policy; the rule's own is {rule.params[name]}" if name in of_policy else "the rule's own"
        lines.append(f"  {name}: {value} ({source})")
    for name in sorted(rule.lists):
        entries = len(policy.lists[name])
        lines.append(f"  list {name}: {entries or 'empty, so that the rule is not evaluated'} (from the policy)")
    lines += _exceptions(rule, rule_set, now)
    return "\n".join(map(printable, lines)) + "\n"


def _exceptions(rule: Rule, rule_set: RuleSet, now: str) -> Iterator[str]:
    """Name the policy's overrides and waivers for a rule."""
    for number, override in enumerate(rule_set.policy.overrides):
        changes = [f"{name}: {value}" for name, value in override.params.get(rule.id, {}).items()]
        changes += [f"severity: {override.severity[rule.id]}"] if rule.id in override.severity else []
        changes += ["does not apply"] if rule.id in override.disable else []
        if changes:
            yield f"  where {_say(override.match, {})}: {', '.join(changes)} (from the policy's override {number})"
    for waiver in rule_set.policy.waivers:
        if waiver.rule == rule.id:
            told = ", ".join(filter(None, [waiver.reason, waiver.approved_by, waiver.ticket]))
            where = _say(waiver.match, {})
            until = "waived until" if waiver.expires > now else "no longer waived since"
            yield f"  {until} {waiver.expires} where {where} (from the policy's waiver {waiver.id}: {told})"
