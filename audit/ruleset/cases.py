"""Runs the tests that stand inside rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audit.model import Connection, Gateway
from audit.ruleset.compiled import Bindings, BoundRule, compile_rules
from audit.ruleset.language import CASE_NOW, SUBJECTS

if TYPE_CHECKING:
    from audit.ruleset.parse import Case, Rule


def failing_cases(rule: Rule) -> list[str]:
    """Run a rule's own cases with its own parameters; one line for each that does not come out as it says."""
    lines = []
    for number, case in enumerate(rule.cases):
        came = "finding" if _finds(rule, case) else "pass"
        if came != case.expect:
            lines.append(f'case {number} "{case.name}": expected {case.expect}, came out as {came}')
    return lines


def _finds(rule: Rule, case: Case) -> bool:
    lists = {name: case.lists.get(name, ()) for name in rule.lists}
    bound = BoundRule(rule, Bindings({**rule.params, **case.params}, lists, CASE_NOW))
    values = {name: field.example for name, field in SUBJECTS[rule.each].items()} | dict(case.given)
    of_gateway = {name.removeprefix("gateway."): value for name, value in values.items() if "." in name}
    own = {name: value for name, value in values.items() if "." not in name}
    # That each value has its field's type was checked when the case was read.
    gateway = Gateway(**(of_gateway or own))  # type: ignore[arg-type]
    subject = gateway if rule.each == "gateway" else Connection(*gateway.key, **own, read_in="")  # type: ignore[arg-type]
    return bool(compile_rules([bound]).find([subject], gateway))
