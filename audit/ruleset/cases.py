"""Runs the tests that stand inside rules."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from audit.model import Connection, Gateway
from audit.ruleset.compiled import Bindings, BoundRule, compile_rules
from audit.ruleset.language import SUBJECTS, Field
from audit.times import format_time, parse_duration

if TYPE_CHECKING:
    from audit.ruleset.language import Scalar
    from audit.ruleset.parse import Case, Rule

# Any instant would do: a case's times are relative to it.
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


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
    bound = BoundRule(rule, Bindings({**rule.params, **case.params}, lists, NOW))
    values = {name: _value(field, case.given.get(name, field.example)) for name, field in SUBJECTS[rule.each].items()}
    own = {name: value for name, value in values.items() if "." not in name}
    gateway = Gateway(**{name.removeprefix("gateway."): value for name, value in values.items() if "." in name})  # type: ignore[arg-type]
    connection = Connection(
        region=gateway.region,
        project_id=gateway.project_id,
        gateway_id=gateway.id,
        read_in="",
        **own,  # type: ignore[arg-type]
    )
    return bool(compile_rules([bound]).find([connection], gateway))


def _value(field: Field, value: Scalar) -> Scalar:
    """Turn a time relative to the run ("-PT25H", "PT1H") into an instant."""
    if field.type != "time" or not isinstance(value, str) or not value.lstrip("+-").startswith("P"):
        return value
    distance: timedelta = parse_duration(value.lstrip("+-"))
    return format_time(NOW - distance if value.startswith("-") else NOW + distance)
